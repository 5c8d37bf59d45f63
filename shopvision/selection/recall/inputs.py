"""What a training step feeds the towers: cached features of frozen encoders, or tokens and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from shopvision.encoders.sentences import SentenceTokenizer
from shopvision.encoders.tokens import TokenBatch
from shopvision.training.features import Features
from shopvision.training.pixels import PixelReader

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.images.preprocessing import Preprocessing

Rows = NDArray[np.int64]


class Inputs(Protocol):
    """Inputs by the rows of texts and of pictures."""

    def texts(self, rows: Rows) -> TokenBatch | Tensor:
        """Tokens of n texts, or features (n, d) float32."""

    def pictures(self, rows: Rows, crops: NDArray[np.float64] | None) -> Tensor:
        """Pixels (n, H, W, 3) uint8, or features (n, d) float32.

        ``crops`` (n, 2) says where the crop lies between the top (left) edge, 0, and the bottom (right) one, 1; None is
        the picture of evaluation.
        """


class FeatureInputs:
    """Cached features; the same in training and evaluation."""

    def __init__(self, texts: Features, pictures: Features) -> None:
        self._texts, self._pictures = texts, pictures

    def texts(self, rows: Rows) -> Tensor:
        """See ``Inputs``."""
        return self._texts.take(rows)

    def pictures(self, rows: Rows, crops: NDArray[np.float64] | None) -> Tensor:  # noqa: ARG002 - features do not vary
        """See ``Inputs``."""
        return self._pictures.take(rows)


class RawInputs:
    """Tokens, and pixels decoded by threads: random crops in training."""

    def __init__(
        self,
        texts: Sequence[str],
        pictures: Sequence[str],
        tokenizer: SentenceTokenizer,
        door: PictureDoor,
        preprocessing: Preprocessing,
    ) -> None:
        """Take pictures through ``door``; ``preprocessing`` is that of evaluation."""
        self._texts, self._pictures, self._tokenizer = texts, pictures, tokenizer
        self._pixels = PixelReader(door, preprocessing)

    def texts(self, rows: Rows) -> TokenBatch:
        """See ``Inputs``."""
        return self._tokenizer.encode([self._texts[row] for row in rows])

    def pictures(self, rows: Rows, crops: NDArray[np.float64] | None) -> Tensor:
        """See ``Inputs``."""
        return self._pixels.read([self._pictures[row] for row in rows], crops)
