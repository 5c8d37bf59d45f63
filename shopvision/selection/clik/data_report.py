"""What is in ranking data, in plain values: sizes, labels, categories, and what reading and each rule dropped."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from shopvision.selection.clik.exhibitions import RankingData
from shopvision.selection.clik.refine import RefineOptions, apply_rules

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


def data_report(data: RankingData, options: RefineOptions) -> dict[str, Any]:
    """A report on ``data`` and on what the refinement rules make of it.

    Returns:
        Plain values for JSON: ``exhibitions``, ``products``, ``rows``, ``products_per_exhibition`` and ``labels``
        (quantiles, mean, share of zeros), ``categories`` (exhibitions and rows of each, most rows first), ``rules``
        (one record per rule, reading first), ``splits`` and ``fingerprint``.
    """
    labels = np.concatenate([exhibition.labels for exhibition in data.exhibitions])
    sizes = np.array([len(exhibition.products) for exhibition in data.exhibitions])
    exhibitions = Counter(exhibition.category for exhibition in data.exhibitions)
    rows: Counter[str] = Counter()
    for exhibition in data.exhibitions:
        rows[exhibition.category] += len(exhibition.products)
    splits, log = apply_rules(data, options)
    return {
        "exhibitions": len(data.exhibitions),
        "products": len(data.products),
        "rows": data.rows,
        "products_per_exhibition": _quantiles(sizes),
        "labels": {**_quantiles(labels), "mean": float(labels.mean()), "zeros": float(np.mean(labels == 0))},
        "categories": [
            {"category": category, "exhibitions": exhibitions[category], "rows": count}
            for category, count in sorted(rows.items(), key=lambda pair: (-pair[1], pair[0]))
        ],
        "rules": [record.as_dict() for record in (*data.read_log, *log)],
        "splits": {
            name: {"exhibitions": len(part.exhibitions), "products": len(part.used_products()), "rows": part.rows}
            for name, part in splits.items()
        },
        "fingerprint": data.fingerprint(),
    }


def _quantiles(values: np.ndarray[Any, Any]) -> dict[str, float]:
    names = ["min", *(f"p{round(100 * share)}" for share in QUANTILES[1:-1]), "max"]
    return dict(zip(names, np.quantile(values, QUANTILES).astype(float).tolist(), strict=True))
