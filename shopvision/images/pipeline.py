"""Fetching, decoding and encoding pictures at the same time, with bounded memory."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shopvision.errors import ItemError, ShopvisionError
from shopvision.images.outcome import Embedded, Failed, ImageTask, Outcome, Touched, Unchanged
from shopvision.images.preprocessing import Preprocessing, prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images.door import PictureDoor

# The consumer gets a list at least this often, even an empty one, so that it can look for a cancelled job.
PATIENCE_SECONDS = 2.0
# Pictures that need no model come in lists of at most this many.
LARGEST_LIST = 1000
POLL_SECONDS = 0.05
# More than the cores can decode: most of them wait for a remote source most of the time.
THREADS = 8


class Encoder(Protocol):
    """What the pipeline needs of a model; ``shopvision.encoders.image_encoder.ImageEncoder`` is one."""

    preprocessing: Preprocessing
    batch_size: int

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class _Picture:
    image_id: int
    sha256: bytes
    fingerprint: str
    pixels: NDArray[np.uint8]


class _Readers:
    """Threads that turn tasks into pictures or outcomes and hand them over through a bounded queue.

    Memory: at most ``capacity`` prepared pictures wait, and one per thread is being made.
    """

    def __init__(self, pipeline: EmbeddingPipeline, tasks: Sequence[ImageTask], capacity: int) -> None:
        self._pipeline = pipeline
        self._tasks = iter(tasks)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.handed: queue.Queue[_Picture | Outcome | ShopvisionError] = queue.Queue(capacity)
        self._threads = [
            threading.Thread(target=self._run, name=f"pictures-{number}", daemon=True)
            for number in range(min(pipeline.threads, len(tasks)))
        ]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                task = next(self._tasks, None)
            if task is None:
                return
            self._hand(self._look(task))

    def _look(self, task: ImageTask) -> _Picture | Outcome | ShopvisionError:
        try:
            return self._pipeline.look(task)
        except ItemError as error:
            return Failed(task.image_id, error.code, error.message)
        except ShopvisionError as error:
            return error
        except MemoryError:
            return Failed(task.image_id, "out_of_memory", f"{task.uri}: not enough memory to decode the picture.")
        except Exception as error:  # noqa: BLE001 - whatever a decoder trips over concerns this picture only
            return Failed(task.image_id, "decode_error", f"{task.uri}: {type(error).__name__}: {error}")

    def _hand(self, result: _Picture | Outcome | ShopvisionError) -> None:
        while not self._stop.is_set():
            try:
                self.handed.put(result, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return

    def stop(self) -> None:
        """Ask the threads to end. One that waits for a slow source ends by itself and hands over nothing any more."""
        self._stop.set()
        for thread in self._threads:
            thread.join(POLL_SECONDS)


class EmbeddingPipeline:
    """Pictures to vectors. One instance serves one process; ``stream`` may be called again and again."""

    def __init__(
        self, encoder: Encoder, door: PictureDoor, *, threads: int = THREADS, batch_size: int | None = None
    ) -> None:
        """Tie a model to the door that pictures come through.

        Args:
            encoder: the model.
            door: open for as long as ``stream`` runs.
            threads: that fetch and decode.
            batch_size: pictures per model run; by default what is fast on the encoder's device.
        """
        self.encoder = encoder
        self.door = door
        self.threads = threads
        self.batch_size = batch_size or encoder.batch_size
        self.model_seconds = 0.0

    def look(self, task: ImageTask) -> _Picture | Outcome:
        """Fetch and prepare one picture, as far as that is needed. Raises what the door raises."""
        if task.known_fingerprint is not None and self.door.fingerprint(task.uri) == task.known_fingerprint:
            return Unchanged(task.image_id)
        fetched = self.door.fetch(task.uri)
        if task.known_fingerprint is not None and fetched.sha256 == task.known_sha256:
            return Touched(task.image_id, fetched.fingerprint)
        pixels = prepare(fetched.data, self.encoder.preprocessing, self.door.limits)
        return _Picture(task.image_id, fetched.sha256, fetched.fingerprint, pixels)

    def stream(self, tasks: Sequence[ImageTask]) -> Iterator[list[Outcome]]:
        """One outcome per task, in any order, in lists: one per model run, or earlier where sources are slow.

        Closing the generator stops the threads.

        Raises:
            TransientError: a source is away for the moment; outcomes already given out stay valid.
            JobError: the model cannot run.
        """
        readers = _Readers(self, tasks, capacity=2 * self.batch_size)
        try:
            missing = len(tasks)
            while missing:
                outcomes, pictures = self._gather(readers, missing)
                missing -= len(outcomes) + len(pictures)
                yield outcomes + self._encode(pictures)
        finally:
            readers.stop()

    def _gather(self, readers: _Readers, missing: int) -> tuple[list[Outcome], list[_Picture]]:
        """Up to one batch of pictures, and what was settled without the model meanwhile."""
        outcomes: list[Outcome] = []
        pictures: list[_Picture] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (
            len(pictures) < self.batch_size and len(outcomes) < LARGEST_LIST and len(outcomes) + len(pictures) < missing
        ):
            try:
                handed = readers.handed.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(handed, ShopvisionError):
                raise handed
            if isinstance(handed, _Picture):
                pictures.append(handed)
            else:
                outcomes.append(handed)
        return outcomes, pictures

    def _encode(self, pictures: Sequence[_Picture]) -> list[Outcome]:
        if not pictures:
            return []
        started = time.perf_counter()
        vectors = self.encoder.encode(np.stack([picture.pixels for picture in pictures]))
        self.model_seconds += time.perf_counter() - started
        # A unit vector in float16 is off by less than 0.001; zeros and NaN are far off, and NaN compares false.
        good = np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 0.01
        halves = vectors.astype("<f2")
        return [
            Embedded(picture.image_id, picture.sha256, picture.fingerprint, half.tobytes())
            if fine
            else Failed(picture.image_id, "bad_vector", "The model gives this picture no finite vector.")
            for picture, half, fine in zip(pictures, halves, good, strict=True)
        ]
