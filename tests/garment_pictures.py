"""Pictures with garments of one colour each, a detector that knows the colours, and an encoder that sees the mean."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from shopvision.errors import ItemError
from shopvision.fashion.composition.arguments import CompositionArguments
from shopvision.fashion.composition.policy import CropPolicy
from shopvision.fashion.composition.predict import ComposedEncoder
from shopvision.fashion.detection.regions import Region, RegionRules
from shopvision.images import Decoded
from shopvision.images.preprocessing import Preprocessing

COLOURS = {"bag": (200, 0, 0), "dress": (0, 180, 0), "shoes": (0, 0, 220)}
SCORES = {"bag": 0.9, "dress": 0.8, "shoes": 0.7}
PREPROCESSING = Preprocessing(size=(8, 8), resize_mode="squash")
GROUND = (255, 255, 0)
SIZE = (120, 160)
BAG, DRESS, SHOES = (10, 10, 50, 50), (30, 60, 110, 120), (60, 125, 100, 157)


def picture(size: tuple[int, int] = SIZE, note: int = 0, **garments: tuple[int, int, int, int]) -> bytes:
    """A PNG with these garments on yellow; another ``note`` makes other bytes of the same pixels but one."""
    image = Image.new("RGB", size, GROUND)
    pen = ImageDraw.Draw(image)
    for label, (left, top, right, bottom) in garments.items():
        pen.rectangle((left, top, right - 1, bottom - 1), fill=COLOURS[label])
    image.putpixel((0, 0), (255, 255, note))
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def direction(*colour: float) -> np.ndarray:
    """The vector of a picture of one colour, as it is stored."""
    return (np.array(colour) / np.linalg.norm(colour)).astype("<f2")


@dataclass
class Finder:
    """A detector that finds what has the colour of a class; ``answers`` replaces that for pictures of some width.

    ``looked`` counts the pictures of each call, ``widths`` are those of the pixels that it reads.
    """

    labels: tuple[str, ...] = tuple(COLOURS)
    target: tuple[int, int] = (160, 120)
    batch_size: int = 2
    rules: RegionRules = field(default_factory=RegionRules)
    answers: dict[int, Any] = field(default_factory=dict)
    looked: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)

    def prepare(self, decoded: Decoded) -> SimpleNamespace:
        if decoded.size[0] > 20 * decoded.size[1]:
            raise ItemError("unfit_shape", "too long and narrow")
        return SimpleNamespace(pixels=np.asarray(decoded.image).copy(), size=decoded.size)

    def detect(self, pictures: Sequence[SimpleNamespace], rules: RegionRules | None = None) -> list[Any]:
        self.looked.append(len(pictures))
        self.widths += [one.pixels.shape[1] for one in pictures]
        return [
            self.answers.get(one.size[0]) or tuple(self._find(one, (rules or self.rules).score)) for one in pictures
        ]

    def _find(self, prepared: SimpleNamespace, least: float) -> Any:
        scale = prepared.size[0] / prepared.pixels.shape[1]
        for label, colour in COLOURS.items():
            rows, columns = np.nonzero((prepared.pixels == colour).all(axis=2))
            if len(rows) and SCORES[label] > least:
                box = (columns.min() * scale, rows.min() * scale, (columns.max() + 1) * scale, (rows.max() + 1) * scale)
                yield Region(tuple(map(float, box)), label, SCORES[label])


@dataclass
class MeanColour:
    """The mean colour as a vector of three numbers. ``batches`` counts the crops of each call."""

    preprocessing: Preprocessing = PREPROCESSING
    dimension: int = 3
    batch_size: int = 4
    device: str = "cpu"
    batches: list[int] = field(default_factory=list)

    def encode(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(len(batch))
        colours = batch.mean(axis=(1, 2), dtype=np.float32)
        with np.errstate(invalid="ignore"):
            return colours / np.linalg.norm(colours, axis=1, keepdims=True)


def composed(
    finder: Finder | None = None, eye: MeanColour | None = None, *, classes: dict[str, str] | None = None, **policy: Any
) -> Any:
    """A composed encoder of these; crops have no margin unless that is asked for."""
    arguments = CompositionArguments(
        detector="finder:1",
        encoder="eye:1",
        policy=CropPolicy(**({"margin": 0.0, "smallest_side": 16} | policy)),
        classes=classes or {},
    )
    detector: Any = finder or Finder()
    encoder: Any = eye or MeanColour()
    return ComposedEncoder(detector, encoder, {}, arguments)
