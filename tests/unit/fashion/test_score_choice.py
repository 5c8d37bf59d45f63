"""Which score a region must have: worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shopvision.fashion.detection.regions import Boxes
from shopvision.fashion.detection.score_choice import best_score, fit_of


def boxes(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    """(left, top, right, bottom, label, score) each."""
    values = torch.tensor(rows).reshape(-1, 6)
    return Boxes(values[:, :4], values[:, 4].long(), values[:, 5])


LABELLED = [boxes((0, 0, 10, 10, 0, 1), (20, 0, 30, 10, 1, 1)), boxes((0, 0, 10, 10, 0, 1)), boxes()]
FOUND = [
    # right; the same garment again; of another class than what is there; right, though only by half
    boxes((0, 0, 10, 10, 0, 0.9), (0, 0, 10, 9, 0, 0.5), (20, 0, 30, 10, 0, 0.6), (20, 0, 30, 5, 1, 0.3)),
    boxes((0, 0, 10, 4.9, 0, 0.8)),  # overlaps by less than half
    boxes((5, 5, 9, 9, 1, 0.2)),  # there is nothing
]


def test_precision_and_recall_by_hand() -> None:
    for score, hits, count in ((0.0, 2, 6), (0.25, 2, 5), (0.3 + 1e-6, 1, 4), (0.85, 1, 1), (0.95, 0, 0)):
        fit = fit_of(FOUND, LABELLED, score)
        precision, recall = hits / max(1, count), hits / 3
        assert (fit.precision, fit.recall) == pytest.approx((precision, recall))
        assert fit.f1 == pytest.approx(2 * precision * recall / (precision + recall) if hits else 0.0)


def test_the_score_with_the_best_f1() -> None:
    """Above 0.85: 2 * 1 / (1 + 3); lower ones add more wrong than right."""
    assert best_score(FOUND, LABELLED) == pytest.approx(0.85)
    assert best_score([FOUND[0], boxes((0, 0, 10, 10, 0, 0.28)), boxes()], LABELLED) == pytest.approx(0.14)


def test_equal_scores_are_not_parted() -> None:
    found = [boxes((0, 0, 10, 10, 0, 0.5), (50, 50, 60, 60, 0, 0.5)), boxes((0, 0, 10, 10, 0, 0.4)), boxes()]
    score = best_score(found, LABELLED)
    assert score == pytest.approx(0.2)
    assert fit_of(found, LABELLED, score).f1 == pytest.approx(2 * 2 / (3 + 3))


def test_nothing_right_is_no_choice() -> None:
    assert best_score([boxes(), boxes((50, 50, 60, 60, 0, 0.5)), boxes()], LABELLED) is None
    assert best_score([], []) is None
    assert fit_of([], [], 0.3).f1 == 0.0


def test_every_cut_is_tried() -> None:
    """No other cut of random regions has a better F1 than the chosen one."""
    generator = np.random.default_rng(4)
    found, labelled = [], []
    for _ in range(8):
        corners = generator.integers(0, 12, (6, 2))
        rows = [
            (x, y, x + 10, y + 10, int(generator.integers(2)), float(generator.random())) for x, y in corners.tolist()
        ]
        found.append(boxes(*rows[:4]))
        labelled.append(boxes(*rows[4:]))
    score = best_score(found, labelled)
    assert score is not None
    best = max(fit_of(found, labelled, cut).f1 for cut in np.linspace(0, 1, 501))
    assert fit_of(found, labelled, score).f1 == pytest.approx(best)
