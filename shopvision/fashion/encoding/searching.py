"""Searches whose answer is known: the anchors of pairs among the pictures of their own and of further products."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shopvision.evaluation.product_retrieval import NOTHING, Retrieved, Vectors, retrieve
from shopvision.fashion.encoding.pairs import PairData, Shown
from shopvision.fashion.encoding.views import View

KS = (1, 5, 10)


@dataclass(frozen=True)
class Search:
    """n queries, each by a view, in a gallery of m views.

    Attributes:
        views: every view that is needed, once.
        queries: (n,) rows of ``views``.
        gallery: (m,) rows of ``views``.
        products: (n,) what each query shows.
        gallery_products: (m,) what each of the gallery shows.
        categories: (n,) of the queries.
        gallery_categories: (m,).
        own: (n,) row of the gallery that is the query's own view, ``NOTHING`` where there is none.
    """

    views: tuple[View, ...]
    queries: NDArray[np.int64]
    gallery: NDArray[np.int64]
    products: NDArray[np.int64]
    gallery_products: NDArray[np.int64]
    categories: NDArray[np.str_]
    gallery_categories: NDArray[np.str_]
    own: NDArray[np.int64]

    @classmethod
    def of(cls, data: PairData, contents: Mapping[View, int] | None = None) -> Search:
        """All pairs of two pictures as queries.

        Args:
            data: with at least one such pair.
            contents: view -> number, equal for pictures of equal bytes: what they show counts as one product, as what
                one view shows does.
        """
        gallery, pairs = data.gallery(), data.measured
        views = tuple(dict.fromkeys((*(one.view for one in gallery), *(pair.anchor for pair in pairs))))
        row_of = {view: row for row, view in enumerate(views)}
        place_of = {one.view: place for place, one in enumerate(gallery)}
        numbers = _numbered(data.shown(), contents or {})
        # A view may ask for several products that it shows; each is a query of its own, but once only.
        asked = dict.fromkeys((pair.anchor, pair.product, pair.category) for pair in pairs)
        return cls(
            views=views,
            queries=np.array([row_of[view] for view, _, _ in asked], np.int64),
            gallery=np.array([row_of[one.view] for one in gallery], np.int64),
            products=np.array([numbers[product] for _, product, _ in asked], np.int64),
            gallery_products=np.array([numbers[one.product] for one in gallery], np.int64),
            categories=np.array([category for _, _, category in asked], np.str_),
            gallery_categories=np.array([one.category for one in gallery], np.str_),
            own=np.array([place_of.get(view, NOTHING) for view, _, _ in asked], np.int64),
        )

    def retrieve(self, vectors: Vectors) -> Retrieved:
        """How well vectors (len(views), d) of unit length find the products."""
        return retrieve(
            vectors[self.queries], vectors[self.gallery], self.products, self.gallery_products, KS, own=self.own
        )


def _numbered(shown: Iterable[Shown], contents: Mapping[View, int]) -> dict[str, int]:
    """Product -> number; products that are shown by one view, or by the same bytes, have one."""
    parent: dict[str, str] = {}

    def root(product: str) -> str:
        while parent[product] != product:
            parent[product] = parent[parent[product]]
            product = parent[product]
        return product

    first: dict[View | int, str] = {}
    for one in shown:
        parent.setdefault(one.product, one.product)
        for picture in (one.view, contents.get(one.view, one.view)):
            parent[root(one.product)] = root(first.setdefault(picture, one.product))
    numbers: dict[str, int] = {}
    return {product: numbers.setdefault(root(product), len(numbers)) for product in parent}
