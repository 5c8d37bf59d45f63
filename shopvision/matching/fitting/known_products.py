"""What labelled pairs say of offers: which are one product, and which are not.

Letters in shapes: m offers, p products, s sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from shopvision.items.pair_table import PairTable
    from shopvision.matching.families._network import Rows
    from shopvision.matching.fitting.contrastive_config import Negatives


def connected_products(count: int, left: Rows, right: Rows) -> NDArray[np.int64]:
    """(count,) number of the product that each of ``count`` items is known to be.

    Args:
        count: items.
        left: (n,) rows of the first items of same-pairs, whose items have one number.
        right: (n,) rows of the second.
    """
    links = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    products: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return products


@dataclass(frozen=True, eq=False)
class KnownProducts:
    """Of the offers that are in some pair, in the order of ``PairTable.used_items``.

    Attributes:
        product: (m,) int64, its number.
        source: (m,) int64, number of the source it comes from; -1 where it tells none.
        different: (p, p) int32, symmetric: how many pairs of their offers are labelled as different.
        listed: (p, s) bool, which sources offer a product.
        negatives: see ``ContrastiveConfig``.
    """

    product: NDArray[np.int64]
    source: NDArray[np.int64]
    different: csr_array
    listed: NDArray[np.bool_]
    negatives: Negatives

    @classmethod
    def of(cls, table: PairTable, negatives: Negatives) -> KnownProducts:
        """What the labels of ``table`` say."""
        used = table.item_rows()
        left, right = np.searchsorted(used, table.left), np.searchsorted(used, table.right)
        same, apart = table.labels == 1, table.labels == 0
        product = connected_products(len(used), left[same], right[same])
        count = int(product.max()) + 1
        a, b = product[left[apart]], product[right[apart]]
        ones = np.ones(2 * len(a), np.int32)
        links = coo_array((ones, (np.r_[a, b], np.r_[b, a])), shape=(count, count))
        names = np.array([table.items[row].source for row in used.tolist()])
        known, source = np.unique(names, return_inverse=True)
        source = np.where(names == "", -1, source)
        listed = np.zeros((count, len(known)), np.bool_)
        listed[product[source >= 0], source[source >= 0]] = True
        return cls(product, source, links.tocsr(), listed, negatives)

    @property
    def count(self) -> int:
        """How many products there are."""
        return len(self.listed)

    def repel(self, a: Rows, b: Rows) -> NDArray[np.bool_]:
        """Whether offers at rows ``a`` and ``b`` are negatives of each other; the arrays broadcast.

        A source that offers each product once cannot hold two offers of one: so an offer is not a product that its
        source offers already (Peeters and Bizer 2022 draw their steps so that no other pairs meet).
        """
        a, b = np.broadcast_arrays(a, b)
        p, q = self.product[a], self.product[b]
        other: NDArray[np.bool_] = p != q
        if self.negatives == "all":
            return other
        certain = np.asarray(self.different[p.ravel(), q.ravel()]).reshape(p.shape) > 0
        if self.negatives == "sources":
            source_a, source_b = self.source[a], self.source[b]
            certain |= (source_b >= 0) & self.listed[p, source_b]
            certain |= (source_a >= 0) & self.listed[q, source_a]
        result: NDArray[np.bool_] = other & certain
        return result

    def labelled_different(self, product: int) -> list[int]:
        """Products with an offer that some pair calls different from one of ``product``'s, which is not itself."""
        row = self.different.indices[self.different.indptr[product] : self.different.indptr[product + 1]]
        return [other for other in row.tolist() if other != product]
