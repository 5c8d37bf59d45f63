"""What a training step feeds the towers: cached features of frozen encoders, or tokens and pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.errors import ItemError, JobError
from shopvision.images.preprocessing import Preprocessing, prepare
from shopvision.models.tokens import TokenBatch
from shopvision.ranking.exhibitions import RankingData
from shopvision.ranking.features import Features, OnProgress
from shopvision.ranking.text import TopicTokenizer
from shopvision.ranking.topic import Topic

if TYPE_CHECKING:
    from shopvision.images import PictureDoor

Topics = TokenBatch | Tensor
Indices = NDArray[Any]

THREADS = 8
# Published: 257 pixels for a crop of 224.
RESIZED_FOR_CROP = 1.15


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
        self._tokenizer, self._door, self._preprocessing = tokenizer, door, preprocessing
        self._word_dropout = word_dropout
        height, width = preprocessing.size
        self._larger = preprocessing.model_copy(
            update={"size": (int(height * RESIZED_FOR_CROP), int(width * RESIZED_FOR_CROP))}
        )
        self._threads = ThreadPoolExecutor(THREADS, "pictures")

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
        places: Sequence[NDArray[np.float64] | None] = [None] * len(products) if crops is None else list(crops)
        return torch.from_numpy(np.stack(list(self._threads.map(self._pixels, products, places))))

    def _pixels(self, product: int, crop: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        uri = self.data.products.image(product)
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
