"""The family ``image_two_tower``: each item's picture alone becomes a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shopvision.encoders._fast import accelerate_image_network
from shopvision.encoders.image_networks import build_image, image_dimension
from shopvision.errors import UserError
from shopvision.images.preprocessing import Preprocessing
from shopvision.items.item import Item
from shopvision.matching.families._family import TwoTowerFamily
from shopvision.matching.families._network import ItemNetwork, ItemReader, Rows
from shopvision.matching.families._parts import FrozenFeatures, Origin, Parts, Start
from shopvision.matching.families.heads import vector_head
from shopvision.matching.families.image_encoders import LearnablePictureOptions, fetch_pictures
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_reading import TextOptions
from shopvision.matching.families.towers import TwoTower, TwoTowerArguments, TwoTowerOptions
from shopvision.models.card import Architecture


class ImageTwoTowerOptions(TwoTowerOptions, LearnablePictureOptions):
    """Options."""

    family: str = "image_two_tower"


class ImageTwoTowerArguments(TwoTowerArguments):
    """Arguments.

    Attributes:
        image: the image encoder, without classifier.
    """

    image: Architecture


@dataclass(frozen=True, slots=True)
class PictureBatch:
    """Pictures of n items.

    Attributes:
        pictures: (n, H, W, 3) uint8 as prepared, or (n, features) that the image encoder gave of them before.
    """

    pictures: Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def to(self, device: torch.device) -> PictureBatch:
        """The batch on another device."""
        return PictureBatch(self.pictures.to(device))

    def rows(self, index: slice) -> PictureBatch:
        """Some of the pictures."""
        return PictureBatch(self.pictures[index])


class PictureReader(ItemReader[int]):
    """Pictures as they come."""

    def read(self, items: Sequence[Item]) -> int:
        """See ``ItemReader``; nothing but pictures is read, so only their number is kept."""
        return len(items)

    def lengths(self, kept: int) -> NDArray[np.int64]:
        """See ``ItemReader``."""
        return np.ones(kept, np.int64)

    def batch(self, kept: int, rows: Rows, pictures: Tensor | None) -> PictureBatch:  # noqa: ARG002
        """See ``ItemReader``."""
        if pictures is None:
            raise ValueError("a model of pictures needs pictures")
        return PictureBatch(pictures)


class ImageTowers(TwoTower):
    """Towers of pictures.

    Attributes:
        image: a timm network without classifier.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, image: nn.Module, head: nn.Module, *, preprocessing: Preprocessing, projection: int | None
    ) -> None:
        """Put together; pixels are normalised with the mean and standard deviation of ``preprocessing``."""
        super().__init__(head, features=image_dimension(image), projection=projection)
        self.image = image
        self._size = preprocessing.size
        self.register_buffer("mean", torch.tensor(preprocessing.mean), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std), persistent=False)

    def features(self, batch: Any) -> Tensor:
        """See ``TwoTower``; of a ``PictureBatch``."""
        pictures: Tensor = batch.pictures
        return pictures if pictures.ndim == 2 else self.image_features(pictures)

    def image_features(self, pixels: Tensor) -> Tensor:
        """(n, H, W, 3) uint8 -> (n, features)."""
        normalised = (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std
        features: Tensor = self.image(normalised.permute(0, 3, 1, 2))
        return features

    def prepare_for_scoring(self, device: torch.device, dtype: torch.dtype) -> None:
        """See ``ItemNetwork``."""
        super().prepare_for_scoring(torch.device("cpu"), dtype)
        accelerate_image_network(self.image, self._size)
        self.image = _ComputesIn(self.image, dtype)
        self.to(device)


class _ComputesIn(nn.Module):
    """A timm network in half precision between float32 pixels and float32 features; channels_last."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload] # untyped keyword
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images.to(self.dtype, memory_format=torch.channels_last))
        return features.float()


@register
class ImageTwoTower(TwoTowerFamily[ImageTwoTowerArguments, ImageTwoTowerOptions]):
    """Reads each item's picture."""

    name = "image_two_tower"
    reads_text = False
    pictures = "pixels"
    arguments = ImageTwoTowerArguments
    options = ImageTwoTowerOptions

    def start(
        self, options: ImageTwoTowerOptions, texts: TextOptions, items: Sequence[Item]  # noqa: ARG002 - not read
    ) -> Start[ImageTwoTowerArguments]:  # fmt: skip
        """See ``Family``."""
        source = fetch_pictures(options)
        arguments = ImageTwoTowerArguments(
            **self.settled(options), image=source.card.architecture, projection=options.projection
        )
        return Start(
            arguments=arguments,
            parts=Parts(preprocessing=source.preprocessing),
            weights={"image": source.network.state_dict()},
            origins=[Origin(name="image", source=source.card.source, licence=source.card.licence)],
            image=source,
        )

    def build(self, arguments: ImageTwoTowerArguments, parts: Parts) -> ItemNetwork:
        """See ``TwoTowerFamily``."""
        if parts.preprocessing is None:
            raise UserError("A model of pictures needs their preprocessing.")
        image = build_image(arguments.image)
        dimension = arguments.projection or image_dimension(image)
        head = vector_head(arguments.axes, dimension, dropout=arguments.dropout)
        return ImageTowers(image, head, preprocessing=parts.preprocessing, projection=arguments.projection)

    def reader(self, arguments: ImageTwoTowerArguments, parts: Parts) -> ItemReader[Any]:  # noqa: ARG002 - none needed
        """See ``TwoTowerFamily``."""
        return PictureReader()

    def freeze(self, network: ImageTowers, options: ImageTwoTowerOptions) -> Sequence[nn.Module]:
        """See ``Family``."""
        if not options.frozen_image:
            return ()
        return [network.image.requires_grad_(requires_grad=False)]

    def frozen_features(self, network: ImageTowers, options: ImageTwoTowerOptions) -> FrozenFeatures | None:
        """See ``Family``."""
        if not options.frozen_image:
            return None
        return FrozenFeatures(network.image_features, image_dimension(network.image))

    def flips(self, options: ImageTwoTowerOptions) -> float:
        """See ``Family``."""
        return options.flips
