"""Vectors of several encoders in one index: extra coordinates tell which encoder a vector is from.

A unit vector v of encoder r becomes the unit vector [a v ; b e_r], with a^2 + b^2 = 1 and e_r the r-th axis. The inner
product of two of them is a^2 cos + b^2 within an encoder and a^2 cos between two, where the cosine means nothing. With
b^2 > 2 a^2 the least of the former, b^2 - a^2, is above the most of the latter, a^2: a query meets what its own encoder
made first, in the order of the cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# a^2. A little below a third, so that no rounding of stored vectors (float16) closes the gap.
VECTOR_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Routes:
    """Which encoder a label goes to.

    Attributes:
        labels: with an encoder of their own. All others, and what has none, go to the common one.
    """

    labels: tuple[str, ...] = ()

    @property
    def coordinates(self) -> int:
        """How many are added to a vector; none where there is only one encoder."""
        return len(self.labels) + 1 if self.labels else 0

    def of(self, label: str | None) -> int:
        """The number of the encoder for a label; 0 is the common one."""
        return self.labels.index(label) + 1 if label in self.labels else 0

    def extend(self, vectors: NDArray[np.float32], routes: Sequence[int]) -> NDArray[np.float32]:
        """Add the coordinates that tell encoders apart.

        Args:
            vectors: (n, d), of unit length.
            routes: (n), numbers of their encoders.

        Returns:
            (n, d + coordinates) float32, of unit length.
        """
        if not self.labels:
            return vectors
        axes = np.zeros((len(vectors), self.coordinates), np.float32)
        axes[np.arange(len(vectors)), np.asarray(routes, np.int64)] = np.sqrt(1.0 - VECTOR_SHARE)
        return np.hstack([np.float32(np.sqrt(VECTOR_SHARE)) * vectors, axes])

    def within(self, scores: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether two extended vectors are of one encoder, by their inner product; of two, a cosine means nothing."""
        # Halfway between the least product within an encoder and the largest between two.
        return np.asarray(scores) > (1.0 - VECTOR_SHARE) / 2 if self.labels else np.ones(np.shape(scores), np.bool_)

    def similarity(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Inner products of extended vectors -> cosines of what the encoders gave.

        Args:
            scores: of any shape. Whether two vectors are of one encoder shows in them.
        """
        products = np.asarray(scores, np.float64)
        if not self.labels:
            return products
        cosines: NDArray[np.float64] = (
            products - np.where(self.within(products), 1.0 - VECTOR_SHARE, 0.0)
        ) / VECTOR_SHARE
        return cosines
