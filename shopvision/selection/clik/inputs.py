"""What a training step feeds the towers: cached features of frozen encoders, or tokens and pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.encoders.tokens import TokenBatch
from shopvision.images.preprocessing import Preprocessing
from shopvision.selection.clik.exhibitions import RankingData
from shopvision.selection.clik.topic_tokens import TopicTokenizer
from shopvision.selection.topic import Topic
from shopvision.training.features import Features
from shopvision.training.pixels import PixelReader

if TYPE_CHECKING:
    from shopvision.images import PictureDoor

Topics = TokenBatch | Tensor
Indices = NDArray[Any]


class Inputs(Protocol):
    """Inputs of one split. With a generator or crops they are those of training, without them of evaluation."""

    data: RankingData

    def topics(
        self, exhibitions: Indices, products: Indices, augment: NDArray[np.bool_], generator: np.random.Generator | None
    ) -> Topics:
        """Texts of n topics: of ``exhibitions``, or where ``augment`` holds of ``products`` themselves."""

    def pictures(self, products: Indices, crops: NDArray[np.float64] | None) -> Tensor:
        """Pictures of n products: features (n, d) float32, or pixels (n, H, W, 3) uint8.

        ``crops`` (n, 2) says where the crop lies between the top (left) edge, 0, and the bottom (right) one, 1.
        """


class FeatureInputs:
    """Cached features; the same in training and evaluation."""

    def __init__(
        self, data: RankingData, exhibition_texts: Features, product_texts: Features | None, pictures: Features
    ) -> None:
        """Features by exhibition, and by product of ``data.products``; product texts only for augmentation."""
        self.data = data
        self._exhibition_texts, self._product_texts, self._pictures = exhibition_texts, product_texts, pictures

    def topics(
        self,
        exhibitions: Indices,
        products: Indices,
        augment: NDArray[np.bool_],
        generator: np.random.Generator | None,  # noqa: ARG002 - features do not vary
    ) -> Tensor:
        """(n, d) float32."""
        features = self._exhibition_texts.take(exhibitions)
        if self._product_texts is not None and augment.any():
            features[torch.from_numpy(augment)] = self._product_texts.take(products[augment])
        return features

    def pictures(self, products: Indices, crops: NDArray[np.float64] | None) -> Tensor:  # noqa: ARG002
        """(n, d) float32."""
        return self._pictures.take(products)


class RawInputs:
    """Tokens, and pixels decoded by threads: random crops in training, the whole picture in evaluation."""

    def __init__(
        self,
        data: RankingData,
        tokenizer: TopicTokenizer,
        door: PictureDoor,
        preprocessing: Preprocessing,
        *,
        word_dropout: float,
    ) -> None:
        """Take pictures through ``door``; ``preprocessing`` is that of evaluation."""
        self.data = data
        self._tokenizer, self._pixels = tokenizer, PixelReader(door, preprocessing)
        self._word_dropout = word_dropout

    def topics(
        self, exhibitions: Indices, products: Indices, augment: NDArray[np.bool_], generator: np.random.Generator | None
    ) -> TokenBatch:
        """Tokens of n topics."""
        topics: list[Topic] = [
            self.data.products.topic(int(product)) if own else self.data.exhibitions[exhibition].topic
            for exhibition, product, own in zip(exhibitions, products, augment, strict=True)
        ]
        if generator is None:
            return self._tokenizer.encode(topics)
        return self._tokenizer.encode(topics, word_dropout=self._word_dropout, generator=generator)

    def pictures(self, products: Indices, crops: NDArray[np.float64] | None) -> Tensor:
        """(n, H, W, 3) uint8."""
        return self._pixels.read([self.data.products.image(int(product)) for product in products], crops)
