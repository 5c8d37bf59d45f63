"""Small ranking data written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from shopvision.selection.clik.exhibitions import Exhibition, RankingData
from shopvision.selection.clik.products import Products
from shopvision.selection.topic import Topic


def exhibition(
    name: str,
    labels: Mapping[int, float] | Sequence[float],
    *,
    category: str = "c",
    first: int = 0,
    title: str = "",
    gone: int = 0,
) -> Exhibition:
    """Labels by product number, or one after another from product ``first`` on; the name is the id and the title.

    ``gone`` more members are not available.
    """
    pairs = labels.items() if isinstance(labels, Mapping) else enumerate(labels, first)
    ordered = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    return Exhibition(
        name,
        Topic(title or name, cat1=category),
        category,
        np.array([product for product, _ in ordered], np.int32),
        np.array([label for _, label in ordered], np.float32),
        members=len(ordered) + gone,
        available=len(ordered),
    )


def data(*exhibitions: Exhibition) -> RankingData:
    """Ranking data of these exhibitions, with as many products as they need."""
    count = max((int(e.products.max(initial=-1)) for e in exhibitions), default=-1) + 1
    ids = pa.array([f"{number:06d}" for number in range(count)], pa.string())
    products = Products({"id": ids, "image": pa.repeat("", count), "name": ids}, None)
    return RankingData(list(exhibitions), products)


def contents(ranking: RankingData) -> dict[str, list[int]]:
    """Exhibition id -> its products."""
    return {e.exhibition_id: e.products.tolist() for e in ranking.exhibitions}
