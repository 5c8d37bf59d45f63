"""Rules by which whole exhibitions stay or go."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shopvision.selection.clik.exhibitions import Exhibition, RankingData


def keep_available(data: RankingData, minimum: int) -> RankingData:
    """Exhibitions of which at least ``minimum`` members are for sale and have a picture (published: 50)."""
    return _where(data, lambda exhibition: exhibition.available >= minimum)


def keep_available_share(data: RankingData, share: float) -> RankingData:
    """Exhibitions of which at least this share of the members is for sale and has a picture (published: 0.5)."""
    return _where(data, lambda exhibition: exhibition.available >= share * exhibition.members)


def keep_positive(data: RankingData, minimum: int) -> RankingData:
    """Exhibitions with at least ``minimum`` labels above 0 (published: 5)."""
    return _where(data, lambda exhibition: positive_labels(exhibition) >= minimum)


def keep_distinct(data: RankingData, minimum: int) -> RankingData:
    """Exhibitions with at least ``minimum`` distinct labels (published: 2); equal labels rank nothing."""
    return _where(data, lambda exhibition: distinct_labels(exhibition) >= minimum)


def keep_positive_or_distinct(data: RankingData, positive: int) -> RankingData:
    """Exhibitions with fewer than ``positive`` labels above 0 or two distinct ones: the published, inverted rule."""
    return _where(data, lambda exhibition: positive_labels(exhibition) < positive or distinct_labels(exhibition) > 1)


def keep_products(data: RankingData, minimum: int) -> RankingData:
    """Exhibitions with at least ``minimum`` products (published: 50)."""
    return _where(data, lambda exhibition: len(exhibition.products) >= minimum)


def positive_labels(exhibition: Exhibition) -> int:
    """How many labels are above 0."""
    return int(np.count_nonzero(exhibition.labels > 0))


def distinct_labels(exhibition: Exhibition) -> int:
    """How many different labels there are."""
    return len(np.unique(exhibition.labels))


def _where(data: RankingData, keep: Callable[[Exhibition], bool]) -> RankingData:
    return data.with_exhibitions(filter(keep, data.exhibitions))
