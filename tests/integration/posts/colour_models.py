"""A detector and a thumbnail classifier that go by colours, so that every outcome can be told beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel
from torch import Tensor, nn

from shopvision.fashion.detection.network import DetectionNetwork, Inputs
from shopvision.fashion.detection.regions import Boxes
from shopvision.images.preprocessing import Preprocessing

# Each colour is one garment; the two last ones are the shoes of other people. Gloves are no class of the classifier.
GARMENTS = {
    (200, 0, 0): "top", (0, 200, 0): "bottom", (0, 0, 200): "bag", (200, 200, 0): "shoes", (180, 180, 0): "shoes",
    (160, 160, 0): "shoes", (230, 0, 0): "top", (0, 200, 200): "glove", (0, 160, 160): "glove",
}  # fmt: skip
LABELS = ("bag", "bottom", "glove", "shoes", "top")
COLOUR = {label: colour for colour, label in reversed(GARMENTS.items())}
OTHER = (120, 120, 120)  # a thumbnail of no garment
CLASSES = ("bag", "bottom", "dress", "shoes", "top", "etc")


class ColourNetwork(DetectionNetwork):
    """A box around all pixels of a colour, with a score of 0.9; a picture whose corner is black gives no numbers."""

    family = "colours"
    labels = LABELS

    def __init__(self) -> None:
        super().__init__()
        self.shown = 0
        self.nothing = nn.Parameter(torch.zeros(1))

    @property
    def arguments(self) -> BaseModel:
        raise AssertionError("it is not saved")

    @property
    def target(self) -> tuple[int, int]:
        return (1000, 1000)

    def prepare(self, image: Image.Image) -> Inputs:
        if min(image.size) < 2:
            raise ValueError(image.size)
        return {"pixels": torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()}

    def core(self) -> nn.Module:
        return nn.Identity()

    def core_inputs(self, inputs: Inputs) -> tuple[Tensor, ...]:
        return (inputs["pixels"],)

    def boxes(self, numbers: Sequence[Tensor], inputs: Inputs, least: float) -> list[Boxes | None]:
        self.shown += len(inputs["pixels"])
        return [None if not picture[:, 0, 0].any() else self._boxes(picture) for picture in inputs["pixels"]]

    def _boxes(self, picture: Tensor) -> Boxes:
        height, width = picture.shape[1:]
        boxes, labels = [], []
        for colour, label in GARMENTS.items():
            rows, columns = torch.nonzero((picture == torch.tensor(colour)[:, None, None]).all(0), as_tuple=True)
            if len(rows):
                edges = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width,
                         (rows.max() + 1) / height)  # fmt: skip
                boxes.append([float(edge) for edge in edges])
                labels.append(LABELS.index(label))
        scores = torch.linspace(0.9, 0.8, len(boxes)) if boxes else torch.zeros(0)
        return Boxes(torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), scores)

    def loss(self, inputs: Inputs, truths: Sequence[Boxes]) -> Tensor:
        raise AssertionError("it does not learn")

    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        raise AssertionError("it does not learn")


class ColourClassifier:
    """Sure of a garment's colour (0.97), less sure of one that is a little darker (0.6)."""

    labels = CLASSES
    preprocessing = Preprocessing(size=(8, 8), resize_mode="squash")
    batch_size = 4

    def __init__(self) -> None:
        self.batches: list[int] = []

    def probabilities(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(batch))
        rows = []
        for colour in batch.reshape(len(batch), -1, 3).mean(1):
            far = {known: float(np.abs(colour - known).max()) for known in (*COLOUR.values(), OTHER)}
            known = min(far, key=lambda one: far[one])
            row = np.full(len(CLASSES), (0.03 if far[known] < 3 else 0.4) / (len(CLASSES) - 1), np.float32)
            row[CLASSES.index(GARMENTS.get(known, "etc"))] = 0.97 if far[known] < 3 else 0.6
            rows.append(row)
        return np.stack(rows)


def photo(*colours: tuple[int, int, int], seed: int = 0, size: tuple[int, int] = (120, 160)) -> Image.Image:
    """A street photo: grey blots of its own, and a garment of 20 x 20 pixels for each colour, from left to right."""
    blots = np.random.default_rng(seed).integers(60, 250, (5, 4), dtype=np.uint8)
    drawn = Image.fromarray(blots, "L").resize(size, Image.Resampling.BILINEAR).convert("RGB")
    for place, colour in enumerate(colours):
        drawn.paste(
            colour, (5 + 25 * (place % 4), 20 + 30 * (place // 4), 25 + 25 * (place % 4), 40 + 30 * (place // 4))
        )
    return drawn


def thumbnail(colour: tuple[int, int, int], side: int = 200) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (side, side + 20), colour)
