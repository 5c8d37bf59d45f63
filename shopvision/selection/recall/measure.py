"""Metrics of texts that look for their pictures, with intervals over texts beside what chance would give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shopvision.evaluation.bootstrap import RESAMPLES, Measured, measure

if TYPE_CHECKING:
    from shopvision.evaluation.text_retrieval import TextRetrieval


def measure_retrieval(found: TextRetrieval, ks: tuple[int, ...], *, resamples: int = RESAMPLES) -> dict[str, Measured]:
    """Every metric: ``hit_rate_K`` (any right picture among K), ``recall_K`` (share of the right ones), ``mrr``.

    Args:
        found: of n texts.
        ks: that it was looked at.
        resamples: of the bootstrap; 0 leaves intervals out.
    """
    columns = found.columns(ks)
    chance = columns if found.random is None else found.random.columns(ks)
    values, random = (np.stack(list(one.values()), axis=1) for one in (columns, chance))
    return dict(zip(columns, measure(values, random, resamples=resamples), strict=True))
