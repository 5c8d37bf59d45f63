"""Pictures as pixels for networks that are fine-tuned: read ahead, cropped at random in training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.errors import ItemError, JobError
from shopvision.images.preprocessing import Preprocessing, fit
from shopvision.images.reader import PictureReader, PictureRequest, ReadPicture, whole
from shopvision.training.features import OnProgress

if TYPE_CHECKING:
    from shopvision.images import PictureDoor

# Published (CLIK): 257 pixels for a crop of 224.
RESIZED_FOR_CROP = 1.15

Pixels: TypeAlias = NDArray[np.uint8]


class PixelReader:
    """Reads pictures through ``door``; ``preprocessing`` is that of evaluation.

    Attributes:
        size: height and width of what it reads.
    """

    def __init__(self, door: PictureDoor, preprocessing: Preprocessing) -> None:
        height, width = self.size = preprocessing.size
        larger = {"size": (int(height * RESIZED_FOR_CROP), int(width * RESIZED_FOR_CROP))}
        self._whole = _reader(door, preprocessing)
        self._larger = _reader(door, preprocessing.model_copy(update=larger))

    def read(
        self, uris: Sequence[str], crops: NDArray[np.float64] | None, mirrored: NDArray[np.bool_] | None = None
    ) -> Tensor:
        """Pixels of n pictures.

        Args:
            uris: their addresses.
            crops: (n, 2), where the crop lies between the top (left) edge, 0, and the bottom (right) one, 1; None: the
                whole picture, as in evaluation.
            mirrored: (n,) which of them have left and right swapped; by default none.

        Returns:
            (n, H, W, 3) uint8.

        Raises:
            JobError: a picture cannot be read.
        """
        pixels = torch.empty(len(uris), *self.size, 3, dtype=torch.uint8)
        rows = pixels.numpy()
        reader = self._whole if crops is None else self._larger
        with reader.read(_requests(uris)) as reading:
            for outcome in reading:
                found = whole(outcome)
                if isinstance(found, ItemError):
                    uri = uris[outcome.key]
                    raise JobError(f"{uri} was readable before training: restore it and give --resume ({found}).")
                part = found if crops is None else self._cropped(found, crops[outcome.key])
                rows[outcome.key] = part[:, ::-1] if mirrored is not None and mirrored[outcome.key] else part
        return pixels

    def _cropped(self, pixels: Pixels, crop: NDArray[np.float64]) -> Pixels:
        height, width = self.size
        top = math.floor(crop[0] * (pixels.shape[0] - height + 1))
        left = math.floor(crop[1] * (pixels.shape[1] - width + 1))
        return pixels[top : top + height, left : left + width]


def look_at_pictures(
    uris: Sequence[str], preprocessing: Preprocessing, door: PictureDoor, on_progress: OnProgress
) -> tuple[dict[int, bytes], dict[int, str]]:
    """Position -> sha256 of every picture that can be fetched and decoded, and -> reason of every other one."""
    digests, failures = dict[int, bytes](), dict[int, str]()
    with _reader(door, preprocessing).read(_requests(uris)) as reading:
        for outcome in reading:
            if isinstance(found := whole(outcome), ItemError):
                failures[outcome.key] = found.message
            elif isinstance(outcome, ReadPicture):
                digests[outcome.key] = outcome.sha256
            on_progress(len(uris) - reading.missing, len(uris))
    return digests, failures


def _reader(door: PictureDoor, preprocessing: Preprocessing) -> PictureReader[Pixels]:
    return PictureReader(door, partial(fit, preprocessing=preprocessing), target=preprocessing.target)


def _requests(uris: Sequence[str]) -> list[PictureRequest]:
    return [PictureRequest(position, uri) for position, uri in enumerate(uris)]


class PixelsToInput:
    """Pixels (n, H, W, 3) uint8 on a device -> (n, 3, H, W) float32 as the network wants them."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        mean, std = (torch.tensor(values, device=device) for values in (preprocessing.mean, preprocessing.std))
        self._scale, self._shift = (1.0 / (255.0 * std)).view(3, 1, 1), (-mean / std).view(3, 1, 1)

    def __call__(self, pixels: Tensor) -> Tensor:
        """See the class."""
        return pixels.permute(0, 3, 1, 2).float() * self._scale + self._shift
