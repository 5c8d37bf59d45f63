"""Pictures, or parts of them, as encoders see them: as they are, or changed a little at random for training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from shopvision.errors import ItemError, JobError
from shopvision.images.preprocessing import Preprocessing, fit
from shopvision.images.reader import PictureReader, PictureRequest, ReadPicture, UnreadPicture

if TYPE_CHECKING:
    from shopvision.images import Box, PictureDoor

# Views are kept so much larger than the network wants them, so that a part of one is not blurred.
KEPT = 1.25

Pixels: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class View:
    """A picture by its address, or the part of it within a box in pixels of the upright picture at full scale."""

    uri: str
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class ReadView:
    """What was made of one view.

    Attributes:
        place: of the view among those asked for.
        pixels: (H, W, 3) uint8; why there are none; or None of a picture that is known and has not changed.
        sha256: of the picture's bytes; empty where they could not be read.
        fingerprint: mark of the picture's source.
    """

    place: int
    pixels: Pixels | ItemError | None
    sha256: bytes
    fingerprint: str = ""


def read_views(
    views: Sequence[View],
    door: PictureDoor,
    preprocessing: Preprocessing,
    *,
    larger: float = 1.0,
    known: Mapping[int, tuple[str, bytes]] | None = None,
) -> Iterator[ReadView]:
    """Every view, in whatever order they come; each picture is read once.

    Args:
        views: what to read.
        door: to the pictures.
        preprocessing: of the encoder.
        larger: factor on its size.
        known: place of a view -> mark of its source and sha256 of its bytes, where nothing is wanted of it unless they
            have changed.

    Raises:
        TransientError: a source of pictures is away for the moment.
    """
    height, width = preprocessing.size
    wanted = preprocessing.model_copy(update={"size": (int(height * larger), int(width * larger))})
    known = known or {}
    places: dict[tuple[str, bool, bool], list[int]] = {}
    for place, view in enumerate(views):
        places.setdefault((view.uri, view.box is None, place in known), []).append(place)
    groups = list(places.values())
    requests = []
    for key, group in enumerate(groups):
        mark, sha256 = known.get(group[0], (None, None))
        boxes = tuple(box for place in group if (box := views[place].box))
        requests.append(PictureRequest(key, views[group[0]].uri, mark, sha256, boxes or None))
    reader = PictureReader(door, partial(fit, preprocessing=wanted), target=wanted.resized)
    with reader.read(requests) as reading:
        for outcome in reading:
            group = groups[outcome.key]
            if isinstance(outcome, ReadPicture):
                parts = outcome.parts * len(group) if views[group[0]].box is None else outcome.parts
                for place, part in zip(group, parts, strict=True):
                    yield ReadView(place, part, outcome.sha256, outcome.fingerprint)
            elif isinstance(outcome, UnreadPicture):
                yield from (ReadView(place, outcome.error, b"") for place in group)
            else:
                yield from (ReadView(place, None, known[place][1], outcome.fingerprint) for place in group)


@dataclass(frozen=True, slots=True)
class Changes:
    """How a view is changed for training.

    No rotation: garments hang and stand upright, in photos as in shops, and letters and left and right tell them apart.

    Attributes:
        least_area: of the part of a view that is kept, as a share of it.
        flip: probability of the mirror image.
        light: brightness, contrast and saturation are changed by up to this share; hue never, because the colour of a
            garment is part of the answer.
    """

    least_area: float = 0.5
    flip: float = 0.5
    light: float = 0.1

    def draw(self, generator: np.random.Generator) -> Change:
        """One change."""
        area, ratio = generator.uniform(self.least_area, 1.0), np.exp(generator.uniform(-0.2, 0.2))
        height, width = min(1.0, np.sqrt(area * ratio)), min(1.0, np.sqrt(area / ratio))
        top, left = generator.random() * (1 - height), generator.random() * (1 - width)
        light = generator.uniform(1 - self.light, 1 + self.light, 3)
        return Change(
            (float(top), float(left), float(height), float(width)),
            bool(generator.random() < self.flip),
            (float(light[0]), float(light[1]), float(light[2])),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What was drawn.

    Attributes:
        part: top, left, height and width of what is kept, in shares of the view.
        flip: whether it is mirrored.
        light: factors of brightness, contrast and saturation.
    """

    part: tuple[float, float, float, float]
    flip: bool
    light: tuple[float, float, float]

    def __call__(self, pixels: Pixels, size: tuple[int, int]) -> Pixels:
        """``pixels`` (H, W, 3) uint8, changed and of ``size`` (height, width)."""
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        rows, columns = image.shape[1:]
        top, left, height, width = self.part
        image = transforms.resized_crop(
            image, int(top * rows), int(left * columns), max(1, int(height * rows)), max(1, int(width * columns)),
            list(size),
        )  # fmt: skip
        if self.flip:
            image = transforms.horizontal_flip(image)
        brightness, contrast, saturation = self.light
        image = transforms.adjust_brightness(image, brightness)
        image = transforms.adjust_contrast(image, contrast)
        image = transforms.adjust_saturation(image, saturation)
        changed: Pixels = image.permute(1, 2, 0).numpy()
        return changed


class ViewReader:
    """Reads views through ``door`` for a network with this ``preprocessing``."""

    def __init__(self, door: PictureDoor, preprocessing: Preprocessing) -> None:
        self.door, self.preprocessing = door, preprocessing

    def read(self, views: Sequence[View], changes: Sequence[Change] | None = None) -> Tensor:
        """Pixels (n, H, W, 3) uint8 of n views; without ``changes`` as in evaluation, with them each changed.

        Raises:
            JobError: a view cannot be read.
            TransientError: a source of pictures is away for the moment.
        """
        pixels = torch.empty(len(views), *self.preprocessing.size, 3, dtype=torch.uint8)
        rows = pixels.numpy()
        larger = 1.0 if changes is None else KEPT
        for read in read_views(views, self.door, self.preprocessing, larger=larger):
            if isinstance(read.pixels, ItemError):
                uri = views[read.place].uri
                raise JobError(f"{uri} was readable before training: restore it and give --resume ({read.pixels}).")
            if read.pixels is not None:
                found = read.pixels
                rows[read.place] = found if changes is None else changes[read.place](found, self.preprocessing.size)
        return pixels
