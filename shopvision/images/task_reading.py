"""Tasks to pictures: read ahead, each address once; what needs no model is settled on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Generic, TypeVar

from shopvision.errors import ItemError
from shopvision.images.outcome import Failed, ImageTask, Outcome, Touched, Unchanged
from shopvision.images.reader import KnownPicture, PictureReader, PictureRequest, ReadPicture, UnreadPicture

T = TypeVar("T")
Task = TypeVar("Task", bound=ImageTask)

# The consumer gets a list at least this often, even an empty one, so that it can look for a cancelled job.
PATIENCE_SECONDS = 2.0
# Pictures that need no model come in lists of at most this many.
LARGEST_LIST = 1000


class TaskReading(Generic[T, Task]):
    """Pictures on their way, with the tasks that name them. A context manager; leaving it stops the threads.

    Attributes:
        waited: seconds that ``gather`` has waited for pictures.
    """

    def __init__(self, reader: PictureReader[T], groups: Sequence[Sequence[Task]]) -> None:
        """Begin to read.

        Args:
            reader: how.
            groups: from ``by_address``; the place of each is the key of its request.
        """
        self.waited = 0.0
        self._reader, self._groups = reader, groups
        self._reading = reader.read([_request(key, group) for key, group in enumerate(groups)])

    @property
    def seconds(self) -> dict[str, float]:
        """What pictures have taken until now: of this thread (``wait``), of those that read (``fetch``, ``decode``)."""
        return {"wait": self.waited, "fetch": self._reader.seconds.fetch, "decode": self._reader.seconds.decode}

    @property
    def missing(self) -> int:
        """Addresses of which nothing has come yet."""
        return self._reading.missing

    @property
    def are_all_begun(self) -> bool:
        """Whether no picture waits any more to be read."""
        return self._reading.are_all_begun

    def gather(self, most: int) -> tuple[list[Outcome], list[tuple[ReadPicture[T], Sequence[Task]]]]:
        """Up to ``most`` pictures with their tasks, and what was settled without them meanwhile.

        Raises:
            TransientError: a source is away for the moment; outcomes already given out stay valid.
            JobError: there are no credentials for S3.
        """
        outcomes: list[Outcome] = []
        pictures: list[tuple[ReadPicture[T], Sequence[Task]]] = []
        started = time.monotonic()
        deadline = started + PATIENCE_SECONDS
        while len(pictures) < most and len(outcomes) < LARGEST_LIST:
            found = self._reading.take(max(0.0, deadline - time.monotonic()))
            if found is None:
                break
            group = self._groups[found.key]
            if isinstance(found, ReadPicture):
                if isinstance(found.parts[0], ItemError):
                    outcomes += [failed(task, found.parts[0]) for task in group]
                else:
                    pictures.append((found, group))
            elif isinstance(found, KnownPicture):
                outcomes += [known(task, found.fingerprint) for task in group]
            elif isinstance(found, UnreadPicture):
                outcomes += [failed(task, found.error) for task in group]
        self.waited += time.monotonic() - started
        return outcomes, pictures

    def __enter__(self) -> TaskReading[T, Task]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads."""
        self._reading.close()


def by_address(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks that name one address together: it is fetched once."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.uri, []).append(task)
    return list(groups.values())


def is_known(task: ImageTask, sha256: bytes) -> bool:
    """Whether the task knows these bytes, so that nothing but the mark of the source is new."""
    return task.known_fingerprint is not None and task.known_sha256 == sha256


def known(task: ImageTask, fingerprint: str) -> Outcome:
    """What comes of a task whose bytes are the known ones."""
    same = fingerprint == task.known_fingerprint
    return Unchanged(task.image_id) if same else Touched(task.image_id, fingerprint)


def failed(task: ImageTask, error: ItemError) -> Failed:
    """What comes of a task whose picture is of no use."""
    return Failed(task.image_id, error.code, error.message)


def without_vector(task: ImageTask) -> Failed:
    """What comes of a task whose picture a model cannot place."""
    return Failed(task.image_id, "bad_vector", "The model gives this picture no finite vector.")


def _request(key: int, group: Sequence[ImageTask]) -> PictureRequest:
    """What is known of one address counts where all its tasks know the same."""
    known = {(task.known_fingerprint, task.known_sha256) for task in group}
    return PictureRequest(key, group[0].uri, *(known.pop() if len(known) == 1 else ()))
