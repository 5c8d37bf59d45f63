"""Pictures as pixels for networks that are fine-tuned: decoded by threads, cropped at random in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.errors import ItemError, JobError
from shopvision.images.preprocessing import Preprocessing, prepare
from shopvision.training.features import OnProgress

if TYPE_CHECKING:
    from shopvision.images import PictureDoor

THREADS = 8
# Published (CLIK): 257 pixels for a crop of 224.
RESIZED_FOR_CROP = 1.15


class PixelReader:
    """Reads pictures through ``door``; ``preprocessing`` is that of evaluation.

    Attributes:
        size: height and width of what it reads.
    """

    def __init__(self, door: PictureDoor, preprocessing: Preprocessing) -> None:
        self._door, self._preprocessing = door, preprocessing
        height, width = self.size = preprocessing.size
        self._larger = preprocessing.model_copy(
            update={"size": (int(height * RESIZED_FOR_CROP), int(width * RESIZED_FOR_CROP))}
        )
        self._threads = ThreadPoolExecutor(THREADS, "pictures")

    def read(self, uris: Sequence[str], crops: NDArray[np.float64] | None) -> Tensor:
        """Pixels of n pictures.

        Args:
            uris: their addresses.
            crops: (n, 2), where the crop lies between the top (left) edge, 0, and the bottom (right) one, 1; None: the
                whole picture, as in evaluation.

        Returns:
            (n, H, W, 3) uint8.

        Raises:
            JobError: a picture cannot be read.
        """
        places: Sequence[NDArray[np.float64] | None] = [None] * len(uris) if crops is None else list(crops)
        return torch.from_numpy(np.stack(list(self._threads.map(self._pixels, uris, places))))

    def _pixels(self, uri: str, crop: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        try:
            data = self._door.fetch(uri).data
            if crop is None:
                return prepare(data, self._preprocessing, self._door.limits)
            pixels = prepare(data, self._larger, self._door.limits)
        except ItemError as error:
            raise JobError(f"{uri} was readable before training: restore it and give --resume ({error}).") from None
        height, width = self._preprocessing.size
        top = math.floor(crop[0] * (pixels.shape[0] - height + 1))
        left = math.floor(crop[1] * (pixels.shape[1] - width + 1))
        return pixels[top : top + height, left : left + width]


def unreadable_pictures(
    uris: Sequence[str], preprocessing: Preprocessing, door: PictureDoor, on_progress: OnProgress
) -> dict[int, str]:
    """Position -> reason of every picture that cannot be fetched or decoded."""

    def reason(uri: str) -> str | None:
        try:
            prepare(door.fetch(uri).data, preprocessing, door.limits)
        except ItemError as error:
            return error.message
        return None

    failures = {}
    with ThreadPoolExecutor(THREADS, "pictures") as threads:
        for position, found in enumerate(threads.map(reason, uris)):
            if found is not None:
                failures[position] = found
            on_progress(position + 1, len(uris))
    return failures
