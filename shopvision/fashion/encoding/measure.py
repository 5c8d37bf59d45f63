"""What an encoder's vectors find, as means over products with their intervals, overall and by category."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shopvision.evaluation.bootstrap import Measured, measure
from shopvision.evaluation.product_retrieval import Retrieved
from shopvision.fashion.encoding.searching import KS, Search

Measures: TypeAlias = dict[str, Measured]
Floats = NDArray[np.float64]


def measure_search(
    search: Search, found: Retrieved, *, resamples: int, queries: NDArray[np.bool_] | None = None
) -> Measures:
    """``recall_1``, ``recall_5``, ``recall_10`` and ``map``: means over queries, whose intervals are over products.

    Queries of one product are not independent, so products are drawn again, not queries (a cluster bootstrap).

    Args:
        search: what was asked.
        found: how well it was answered.
        resamples: of the bootstrap; 0 leaves intervals out.
        queries: (n,) those that count; by default all.
    """
    values, random = found.columns(KS)
    kept = np.ones(len(search.queries), np.bool_) if queries is None else queries
    table, chances = (np.stack(list(columns.values()), axis=1)[kept] for columns in (values, random))
    means, expected, weights = _by_product(search.products[kept], table, chances)
    return dict(zip(values, measure(means, expected, weights, resamples=resamples), strict=True))


def measure_difference(search: Search, found: Retrieved, other: Retrieved, *, resamples: int) -> Measures:
    """By how much each metric is higher than the other's, query by query; the interval is of the paired difference."""
    values, others = found.columns(KS)[0], other.columns(KS)[0]
    table = np.stack([values[name] - others[name] for name in values], axis=1)
    means, expected, weights = _by_product(search.products, table, np.zeros_like(table))
    measured = measure(means, expected, weights, resamples=resamples)
    return {name: replace(one, random=math.nan) for name, one in zip(values, measured, strict=True)}


def _by_product(products: NDArray[np.int64], *tables: Floats) -> tuple[Floats, Floats, Floats]:
    """Means of two tables over the queries of each product, and how many these are."""
    _, place, counts = np.unique(products, return_inverse=True, return_counts=True)
    means = []
    for table in tables:
        sums = np.zeros((len(counts), table.shape[1]))
        np.add.at(sums, place, table)
        means.append(sums / counts[:, None])
    return means[0], means[1], np.repeat(counts[:, None].astype(np.float64), tables[0].shape[1], axis=1)
