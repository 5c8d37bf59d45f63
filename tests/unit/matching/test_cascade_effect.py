"""What a cascade saves and costs, against numbers that are counted by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_score

from shopvision.errors import ItemError, UserError
from shopvision.items.item import Item
from shopvision.items.pair_table import PairTable
from shopvision.matching.fitting.cascade_effect import evaluate_cascade
from shopvision.matching.scoring.predict import BaseScorer, Floats, Rows
from tests.unit.matching.pair_world import card, table_of


class Given(BaseScorer):
    """Says of a pair what the left item's brand (first) or title (second) says; notes how many pairs it was asked."""

    needs_text, needs_picture, preprocessing = True, False, None

    def __init__(self, field: str, dimension: int | None) -> None:
        self.card = card()
        self.field = field
        self.vector_dimension = dimension
        self.asked: list[int] = []

    def check(self, item: Item) -> None:
        if not item.title:
            raise ItemError("no_text", "nothing to read")

    def item_vectors(self, items: Sequence[Item], pictures: Sequence[NDArray[np.uint8] | None] | None) -> Floats:
        return np.zeros((len(items), 1), np.float32)

    def _score(self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None, _: Any) -> Floats:
        self.asked.append(len(left))
        return np.array([float(getattr(items[row], self.field)) for row in left.tolist()], np.float32)


def pairs(count: int, seed: int, blank: int = 0) -> PairTable:
    """Three in ten the same; the second model is right more often than the first, and ``blank`` items have no text."""
    generator = np.random.default_rng(seed)
    items, rows = [], []
    for number in range(count):
        label = int(generator.random() < 0.3)
        first, second = (1 / (1 + np.exp(-(sharp * (2 * label - 1) + 2 * generator.normal()))) for sharp in (2.5, 4.0))
        title = "" if number < blank else f"{second:.6f}"
        items += [Item(f"a{number}", title, brand=f"{first:.6f}"), Item(f"b{number}", "other")]
        rows.append((2 * number, 2 * number + 1, label))
    return table_of(items, rows)


def test_limits_are_chosen_on_one_file_and_measured_on_another() -> None:
    first, second = Given("brand", 1), Given("title", None)
    test = pairs(600, seed=2, blank=7)
    report = evaluate_cascade(first, second, pairs(500, seed=1), test, max_f1_loss=0.01, resamples=50)
    low, high = report.limits.low, report.limits.high
    assert 0 < low < high < 1
    assert report.limits.f1 >= report.limits.f1_second - 0.01
    kept = test.select(np.arange(7, 600))
    cheap, good = (
        np.array([float(getattr(kept.items[row], name)) for row in kept.left]) for name in ("brand", "title")
    )
    open_pairs = (cheap > low) & (cheap < high)
    called = np.where(open_pairs, good, cheap) >= second.card.thresholds["decision"]
    assert report.pairs == 593
    assert report.passed_on == pytest.approx(open_pairs.mean())
    assert second.asked == [500, int(open_pairs.sum()), 593]
    assert report.together["f1"].value == pytest.approx(f1_score(kept.labels, called))
    assert report.together["precision"].value == pytest.approx(precision_score(kept.labels, called))
    alone = f1_score(kept.labels, good >= second.card.thresholds["decision"])
    assert report.alone["f1"].value == pytest.approx(alone)
    assert report.alone["f1"].low < alone < report.alone["f1"].high
    assert report.seconds_alone > 0
    assert json.loads(report.parameter) == {"model": first.card.spec, "low": low, "high": high}
    assert json.loads(json.dumps(report.summary().as_dict()))["facts"]["limits"]["low"] == low


def test_what_is_no_cascade_is_refused() -> None:
    first, second = Given("brand", 1), Given("title", None)
    valid = pairs(50, seed=1)
    with pytest.raises(UserError, match="reads both items at once: a cascade begins with a two-tower"):
        evaluate_cascade(second, second, valid, valid)
    unlabelled = table_of(valid.items, [(0, 1, -1)])
    with pytest.raises(UserError, match="1 of 1 pairs have no label"):
        evaluate_cascade(first, second, unlabelled, valid)
    with pytest.raises(UserError, match="Not one of 50 pairs has two items that the model can read"):
        evaluate_cascade(first, second, pairs(50, seed=1, blank=50), valid)
    second.card = second.card.model_copy(update={"thresholds": {}})
    with pytest.raises(UserError, match="threshold 'different' is missing"):
        evaluate_cascade(first, second, valid, valid)
