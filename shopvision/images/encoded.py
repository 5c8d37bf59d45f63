"""Vectors of pictures at their addresses, those that can be read, with what else is known of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shopvision.images.outcome import Embedded, Failed, ImageTask
from shopvision.images.pipeline import EmbeddingPipeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images.door import PictureDoor
    from shopvision.images.pipeline import Encoder


@dataclass(frozen=True)
class EncodedPictures:
    """Of n pictures.

    Attributes:
        vectors: (n, d) float32 of unit length, rounded to float16 as stored ones are; zeros where there is none.
        contents: (n,) int64, equal for pictures of equal bytes; those that cannot be read have one each.
        failures: position -> why there is no vector.
    """

    vectors: NDArray[np.float32]
    contents: NDArray[np.int64]
    failures: dict[int, str]


def encode_pictures(
    uris: Sequence[str],
    encoder: Encoder,
    door: PictureDoor,
    *,
    dimension: int,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> EncodedPictures:
    """Read and encode pictures.

    Args:
        uris: their addresses.
        encoder: makes the vectors.
        door: that they come through.
        dimension: of the vectors.
        on_progress: called with (done, all).

    Raises:
        TransientError: a source is away for the moment.
        JobError: the model cannot run.
    """
    vectors = np.zeros((len(uris), dimension), np.float32)
    contents = np.arange(len(uris), 2 * len(uris))
    first: dict[bytes, int] = {}
    failures: dict[int, str] = {}
    done = 0
    tasks = [ImageTask(position, uri) for position, uri in enumerate(uris)]
    for outcomes in EmbeddingPipeline(encoder, door).stream(tasks):
        for outcome in outcomes:
            if isinstance(outcome, Embedded):
                vectors[outcome.image_id] = np.frombuffer(outcome.vector, "<f2")
                contents[outcome.image_id] = first.setdefault(outcome.sha256, len(first))
            elif isinstance(outcome, Failed):
                failures[outcome.image_id] = outcome.message
        done += len(outcomes)
        on_progress(done, len(tasks))
    return EncodedPictures(vectors, contents, dict(sorted(failures.items())))
