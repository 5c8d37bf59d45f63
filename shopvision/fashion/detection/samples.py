"""Labelled pictures as pixels: read ahead, and changed at random for training with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from shopvision.errors import ItemError, JobError
from shopvision.fashion.detection.regions import Boxes
from shopvision.images import Decoded
from shopvision.images.reader import PictureReader, PictureRequest, whole

if TYPE_CHECKING:
    from shopvision.fashion.detection.coco import LabelledPicture
    from shopvision.images import PictureDoor
    from shopvision.training.features import OnProgress

# Pictures are kept larger than the network wants them, so that enlarged ones are not blurred.
KEPT = 1.5
# A box that an edge leaves less of, in pixels of the canvas, is no garment to learn from any more.
LEAST_SIDE = 4.0
GREY = 128
# Sides of a canvas are multiples of it: of the strides of networks.
CANVAS_STEP = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture with its n boxes.

    Attributes:
        pixels: (3, H, W) uint8.
        boxes: (n, 4) float32: left, top, right, bottom in these pixels.
        labels: (n,) int64.
    """

    pixels: Tensor
    boxes: Tensor
    labels: Tensor

    @property
    def image(self) -> Image.Image:
        """The picture, as a network's ``prepare`` takes it."""
        return Image.fromarray(self.pixels.permute(1, 2, 0).numpy())

    @property
    def truth(self) -> Boxes:
        """The boxes in shares of the picture's width and height, as networks learn them."""
        height, width = self.pixels.shape[1:]
        return Boxes(
            self.boxes / torch.tensor([width, height, width, height]), self.labels, torch.ones(len(self.labels))
        )


class SampleReader:
    """Reads labelled pictures through ``door``, no larger than training needs them."""

    def __init__(self, door: PictureDoor, target: tuple[int, int]) -> None:
        """``target``: (height, width) that the network wants."""
        longest = int(KEPT * max(target))
        self._reader: PictureReader[_Read] = PictureReader(
            door, partial(_shrunk, longest=longest), target=(longest, longest)
        )

    def read(self, pictures: Sequence[LabelledPicture]) -> list[Sample]:
        """Samples of pictures, in order.

        Raises:
            JobError: one cannot be read.
        """
        with self._reader.read(_requests(pictures), in_order=True) as reading:
            samples = []
            for picture, outcome in zip(pictures, reading, strict=True):
                read = whole(outcome)
                samples.append(self._sample(picture, read))
            return samples

    def _sample(self, picture: LabelledPicture, read: _Read | ItemError) -> Sample:
        if isinstance(read, ItemError):
            raise JobError(f"{picture.uri} was readable before training: restore it and give --resume ({read}).")
        height, width = read.pixels.shape[:2]
        scale = np.array([width, height, width, height], np.float32) / np.array([*picture.size, *picture.size])
        return Sample(
            torch.from_numpy(read.pixels).permute(2, 0, 1),
            torch.from_numpy((picture.boxes * scale).astype(np.float32)),
            torch.from_numpy(picture.labels),
        )

    def survey(self, pictures: Sequence[LabelledPicture], on_progress: OnProgress) -> dict[int, str]:
        """Look at every picture once: position -> reason of those that cannot be read.

        Raises:
            UserError: a picture has another size than its file of boxes says.
            TransientError: a source is away for the moment.
        """
        failures: dict[int, str] = {}
        with self._reader.read(_requests(pictures)) as reading:
            for outcome in reading:
                picture, read = pictures[outcome.key], whole(outcome)
                if isinstance(read, ItemError):
                    failures[outcome.key] = read.message
                else:
                    picture.require_size(read.size)
                on_progress(len(pictures) - reading.missing, len(pictures))
        return failures


class Augmentation:
    """A picture on a canvas: mirrored, enlarged or made smaller, cut, in other light. Boxes go along.

    What lies outside of the canvas is cut off; boxes of which nothing is left go, with their labels. Draws from torch's
    generator.
    """

    def __init__(self, canvas: tuple[int, int], scale: tuple[float, float]) -> None:
        """``canvas``: (height, width) in pixels; ``scale`` of the picture against one that just fits."""
        self._change = v2.Compose(
            [
                v2.RandomHorizontalFlip(0.5),
                _Scaled(canvas, scale),
                v2.RandomCrop(canvas, pad_if_needed=True, fill=GREY),
                v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25),
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(min_size=LEAST_SIDE),
            ]
        )

    def __call__(self, sample: Sample) -> Sample:
        """The changed picture with the boxes that are left."""
        height, width = sample.pixels.shape[1:]
        boxes = tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=(height, width))
        changed = self._change({"image": tv_tensors.Image(sample.pixels), "boxes": boxes, "labels": sample.labels})
        return Sample(
            changed["image"].as_subclass(Tensor), changed["boxes"].as_subclass(Tensor).float(), changed["labels"]
        )


class _Scaled(v2.Transform):  # type: ignore[misc] # torchvision is untyped
    """Keeps proportions: ``scale`` is against a picture that just fits the canvas, upright or not."""

    def __init__(self, canvas: tuple[int, int], scale: tuple[float, float]) -> None:
        super().__init__()
        self._canvas, self._range = canvas, scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = flat_inputs[0].shape[-2:]
        low, high = self._range
        factor = min(self._canvas[0] / height, self._canvas[1] / width) * (low + float(torch.rand(1)) * (high - low))
        return {"size": [max(1, round(height * factor)), max(1, round(width * factor))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(v2.functional.resize, inpt, antialias=True, **params)


def canvas_for(pictures: Sequence[LabelledPicture], longest_side: int) -> tuple[int, int]:
    """(height, width) in whole strides of a canvas for pictures of any proportions: those of the one in the middle.

    On a square one, photos taken upright would be a third of grey, which takes as long as picture does.
    """
    slim = float(np.median([picture.size[0] / picture.size[1] for picture in pictures]))
    height, width = longest_side * min(1.0, 1 / slim), longest_side * min(1.0, slim)
    return _whole_strides(height), _whole_strides(width)


def _whole_strides(side: float) -> int:
    return max(1, round(side / CANVAS_STEP)) * CANVAS_STEP


@dataclass(frozen=True, slots=True)
class _Read:
    """Pixels (H, W, 3) uint8, and (width, height) at full scale."""

    pixels: NDArray[np.uint8]
    size: tuple[int, int]


def _shrunk(decoded: Decoded, longest: int) -> _Read:
    """A picture at most ``longest`` pixels wide and high."""
    scale = min(1.0, longest / max(decoded.size))
    width, height = (max(1, round(side * scale)) for side in decoded.size)
    resized = decoded.image.resize((width, height), Image.Resampling.BILINEAR, box=decoded.box)
    return _Read(np.array(resized), decoded.size)


def _requests(pictures: Sequence[LabelledPicture]) -> list[PictureRequest]:
    return [
        PictureRequest(key, picture.uri, regions=None if picture.part is None else (picture.part,))
        for key, picture in enumerate(pictures)
    ]
