"""Pictures to vectors: read ahead while the model computes; equal ones are embedded once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from shopvision.errors import ItemError
from shopvision.images.outcome import Embedded, Failed, ImageTask, Outcome, Touched, Unchanged
from shopvision.images.preprocessing import Preprocessing, fit
from shopvision.images.reader import (
    THREADS,
    KnownPicture,
    PictureReader,
    PictureRequest,
    Reading,
    ReadPicture,
    UnreadPicture,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images.door import PictureDoor

# The consumer gets a list at least this often, even an empty one, so that it can look for a cancelled job.
PATIENCE_SECONDS = 2.0
# Pictures that need no model come in lists of at most this many.
LARGEST_LIST = 1000
# Vectors of what was embedded last that are kept for pictures with the same bytes.
REMEMBERED = 4096

KnownVectors: TypeAlias = "Callable[[Sequence[bytes]], Mapping[bytes, bytes]]"
"""sha256 of pictures' bytes -> the vectors that there are already, as in ``Embedded``."""
_Pixels: TypeAlias = "NDArray[np.uint8]"
_Read: TypeAlias = "ReadPicture[NDArray[np.uint8]]"


class Encoder(Protocol):
    """What the pipeline needs of a model; ``shopvision.encoders.image_encoder.ImageEncoder`` is one."""

    preprocessing: Preprocessing
    batch_size: int

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]: ...  # noqa: D102


class EmbeddingPipeline:
    """Pictures to vectors. One instance serves one process; ``stream`` may be called again and again."""

    def __init__(
        self,
        encoder: Encoder,
        door: PictureDoor,
        *,
        threads: int = THREADS,
        batch_size: int | None = None,
        known_vectors: KnownVectors = lambda _: {},
    ) -> None:
        """Tie a model to the door that pictures come through.

        Args:
            encoder: the model.
            door: open for as long as ``stream`` runs.
            threads: that fetch and decode.
            batch_size: pictures per model run; by default what is fast on the encoder's device.
            known_vectors: asked before each model run.
        """
        self.encoder = encoder
        self.batch_size = batch_size or encoder.batch_size
        self.model_seconds = 0.0
        self._known_vectors = known_vectors
        preprocessing = encoder.preprocessing
        self._reader: PictureReader[_Pixels] = PictureReader(
            door, partial(fit, preprocessing=preprocessing), target=preprocessing.resized,
            threads=threads, ahead=2 * self.batch_size + threads,
        )  # fmt: skip
        self._remembered: dict[bytes, bytes] = {}

    def stream(self, tasks: Sequence[ImageTask]) -> Iterator[list[Outcome]]:
        """One outcome per task, in any order, in lists: one per model run, or earlier where sources are slow.

        An address that several tasks name is fetched once, and equal bytes go through the model once. Closing the
        generator stops the threads.

        Raises:
            TransientError: a source is away for the moment; outcomes already given out stay valid.
            JobError: the model cannot run.
        """
        by_uri: dict[str, list[ImageTask]] = {}
        for task in tasks:
            by_uri.setdefault(task.uri, []).append(task)
        groups = list(by_uri.values())
        with self._reader.read([_request(key, group) for key, group in enumerate(groups)]) as reading:
            while reading.missing:
                outcomes, pictures = self._gather(reading, groups)
                yield outcomes + self._embed(pictures, groups)

    def _gather(
        self, reading: Reading[_Pixels], groups: Sequence[Sequence[ImageTask]]
    ) -> tuple[list[Outcome], list[_Read]]:
        """Up to one batch of pictures, and what was settled without the model meanwhile."""
        outcomes: list[Outcome] = []
        pictures: list[_Read] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(pictures) < self.batch_size and len(outcomes) < LARGEST_LIST:
            found = reading.take(max(0.0, deadline - time.monotonic()))
            if found is None:
                break
            group = groups[found.key]
            if isinstance(found, ReadPicture):
                if isinstance(found.parts[0], ItemError):
                    outcomes += [_failed(task, found.parts[0]) for task in group]
                else:
                    pictures.append(found)
            elif isinstance(found, KnownPicture):
                outcomes += [_known(task, found.fingerprint) for task in group]
            elif isinstance(found, UnreadPicture):
                outcomes += [_failed(task, found.error) for task in group]
        return outcomes, pictures

    def _embed(self, pictures: Sequence[_Read], groups: Sequence[Sequence[ImageTask]]) -> list[Outcome]:
        vectors = self._vectors(pictures)
        outcomes: list[Outcome] = []
        for picture in pictures:
            vector = vectors.get(picture.sha256)
            for task in groups[picture.key]:
                if task.known_fingerprint is not None and task.known_sha256 == picture.sha256:
                    outcomes.append(_known(task, picture.fingerprint))
                elif vector is None:
                    message = "The model gives this picture no finite vector."
                    outcomes.append(Failed(task.image_id, "bad_vector", message))
                else:
                    outcomes.append(Embedded(task.image_id, picture.sha256, picture.fingerprint, vector))
        return outcomes

    def _vectors(self, pictures: Sequence[_Read]) -> dict[bytes, bytes]:
        """Vectors by sha256, made of those that nobody knows; none where the model gives none that is finite."""
        wanted = {picture.sha256: picture.parts[0] for picture in pictures}
        vectors = {sha256: self._remembered[sha256] for sha256 in wanted if sha256 in self._remembered}
        unknown = [sha256 for sha256 in wanted if sha256 not in vectors]
        if unknown:
            vectors |= self._known_vectors(unknown)
        new = [sha256 for sha256 in unknown if sha256 not in vectors]
        if new:
            vectors |= self._encode(new, np.stack([np.asarray(wanted[sha256]) for sha256 in new]))
        self._remembered |= vectors
        while len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return vectors

    def _encode(self, keys: Sequence[bytes], batch: _Pixels) -> dict[bytes, bytes]:
        started = time.perf_counter()
        vectors = self.encoder.encode(batch)
        self.model_seconds += time.perf_counter() - started
        # A unit vector in float16 is off by less than 0.001; zeros and NaN are far off, and NaN compares false.
        good = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 0.01
        halves = vectors.astype("<f2")
        return {key: half.tobytes() for key, half, fine in zip(keys, halves, good, strict=True) if fine}


def _request(key: int, group: Sequence[ImageTask]) -> PictureRequest:
    """What is known of one address counts where all its tasks know the same."""
    known = {(task.known_fingerprint, task.known_sha256) for task in group}
    return PictureRequest(key, group[0].uri, *(known.pop() if len(known) == 1 else ()))


def _known(task: ImageTask, fingerprint: str) -> Outcome:
    same = fingerprint == task.known_fingerprint
    return Unchanged(task.image_id) if same else Touched(task.image_id, fingerprint)


def _failed(task: ImageTask, error: ItemError) -> Failed:
    return Failed(task.image_id, error.code, error.message)
