"""Pictures to vectors: read ahead while the model computes; equal ones are embedded once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from shopvision.images.made_vectors import Recent, as_stored
from shopvision.images.outcome import Embedded, ImageTask, Outcome
from shopvision.images.preprocessing import Preprocessing, fit
from shopvision.images.reader import THREADS, PictureReader, ReadPicture
from shopvision.images.task_reading import TaskReading, by_address, is_known, known, without_vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images.door import PictureDoor

KnownVectors: TypeAlias = "Callable[[Sequence[bytes]], Mapping[bytes, bytes]]"
"""sha256 of pictures' bytes -> the vectors that there are already, as in ``Embedded``."""
_Pixels: TypeAlias = "NDArray[np.uint8]"
_Read: TypeAlias = "ReadPicture[NDArray[np.uint8]]"


class Encoder(Protocol):
    """What the pipeline needs of a model; ``shopvision.encoders.image_encoder.ImageEncoder`` is one."""

    preprocessing: Preprocessing

    @property
    def batch_size(self) -> int: ...  # noqa: D102

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]: ...  # noqa: D102


class EmbeddingPipeline:
    """Pictures to vectors. One instance serves one process; ``stream`` may be called again and again.

    Attributes:
        model_seconds: that the model took.
        reading_seconds: what pictures took in the last ``outcomes``; see ``TaskReading.seconds``.
    """

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
            door: open for as long as pictures are read.
            threads: that fetch and decode; of them as many decode at the same time as the encoder's
                ``decoding_threads`` says, if it says so.
            batch_size: pictures per model run; by default what is fast on the encoder's device.
            known_vectors: asked before each model run.
        """
        self.encoder = encoder
        self.batch_size = batch_size or encoder.batch_size
        self.model_seconds = 0.0
        self.reading_seconds: dict[str, float] = {}
        self._known_vectors = known_vectors
        preprocessing = encoder.preprocessing
        self._reader: PictureReader[_Pixels] = PictureReader(
            door, partial(fit, preprocessing=preprocessing), target=preprocessing.target,
            threads=threads, decoders=getattr(encoder, "decoding_threads", None),
            ahead=2 * self.batch_size + threads,
        )  # fmt: skip
        self._remembered: Recent[bytes, bytes] = Recent()

    def stream(self, tasks: Sequence[ImageTask]) -> Iterator[list[Outcome]]:
        """One outcome per task, in any order, in lists; see ``outcomes``. Closing the generator stops the threads."""
        with self.begin(tasks) as reading:
            yield from self.outcomes(reading)

    def begin(self, tasks: Sequence[ImageTask]) -> TaskReading[_Pixels, ImageTask]:
        """Begin to fetch and decode, as far ahead as the pipeline does; the model does nothing yet."""
        return TaskReading(self._reader, by_address(tasks))

    def outcomes(self, reading: TaskReading[_Pixels, ImageTask]) -> Iterator[list[Outcome]]:
        """One outcome per task that was begun, in lists: one per model run, or earlier where sources are slow.

        An address that several tasks name is fetched once, and equal bytes go through the model once.

        Raises:
            TransientError: a source is away for the moment; outcomes already given out stay valid.
            JobError: the model cannot run.
        """
        while reading.missing:
            outcomes, pictures = reading.gather(self.batch_size)
            self.reading_seconds = reading.seconds
            yield outcomes + self._embed(pictures)

    def _embed(self, pictures: Sequence[tuple[_Read, Sequence[ImageTask]]]) -> list[Outcome]:
        vectors = self._vectors([picture for picture, _ in pictures])
        outcomes: list[Outcome] = []
        for picture, tasks in pictures:
            vector = vectors.get(picture.sha256)
            for task in tasks:
                if is_known(task, picture.sha256):
                    outcomes.append(known(task, picture.fingerprint))
                elif vector is None:
                    outcomes.append(without_vector(task))
                else:
                    outcomes.append(
                        Embedded(task.image_id, picture.sha256, picture.fingerprint, vector, picture.pixels)
                    )
        return outcomes

    def _vectors(self, pictures: Sequence[_Read]) -> dict[bytes, bytes]:
        """Vectors by sha256, made of those that nobody knows; none where the model gives none that is finite."""
        wanted = {picture.sha256: picture.parts[0] for picture in pictures}
        vectors = self._remembered.known(wanted)
        unknown = [sha256 for sha256 in wanted if sha256 not in vectors]
        if unknown:
            vectors |= self._known_vectors(unknown)
        new = [sha256 for sha256 in unknown if sha256 not in vectors]
        if new:
            vectors |= self._encode(new, np.stack([np.asarray(wanted[sha256]) for sha256 in new]))
        self._remembered.note(vectors)
        return vectors

    def _encode(self, keys: Sequence[bytes], batch: _Pixels) -> dict[bytes, bytes]:
        started = time.perf_counter()
        vectors = self.encoder.encode(batch)
        self.model_seconds += time.perf_counter() - started
        return {key: vector for key, vector in zip(keys, as_stored(vectors), strict=True) if vector is not None}
