"""Which boxes become regions: each rule by a case that can be checked by hand."""

from __future__ import annotations

import math

import torch

from shopvision.fashion.detection.regions import (
    Boxes,
    RegionRules,
    choose_regions,
    clamped,
    confident,
    large_enough,
    without_doubles,
)


def boxes(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    """Rows of left, top, right, bottom, label, score."""
    table = torch.tensor(rows).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].long(), table[:, 5])


def scores(found: Boxes) -> list[float]:
    return [round(score, 3) for score in found.scores.tolist()]


def test_a_score_must_be_above_the_limit() -> None:
    found = boxes((0, 0, 50, 50, 0, 0.5), (0, 0, 50, 50, 1, 0.25))
    assert scores(confident(found, 0.25)) == [0.5]


def test_boxes_end_at_the_edges_of_the_picture() -> None:
    found = clamped(boxes((-5, -7.5, 30, 300, 0, 0.5), (120, 10, 150, 20, 0, 0.4)), (100, 200))
    assert found.boxes.tolist() == [[0, 0, 30, 200], [100, 10, 100, 20]]


def test_both_sides_must_be_large_enough() -> None:
    found = boxes((0, 0, 16, 16, 0, 0.5), (0, 0, 15.9, 90, 0, 0.4), (0, 0, 90, 15.9, 0, 0.3), (9, 9, 9, 40, 0, 0.2))
    assert scores(large_enough(found, 16)) == [0.5]


def test_a_double_goes_within_its_class_and_a_coat_over_a_top_stays() -> None:
    # 100 x 80 of 100 x 100: IoU 0.8, above the limit of one class and below that of all.
    coat, again, top = (0, 0, 100, 100, 0, 0.9), (0, 0, 100, 80, 0, 0.7), (0, 0, 100, 80, 1, 0.8)
    assert scores(without_doubles(boxes(coat, again), 0.7, 0.9)) == [0.9]
    assert scores(without_doubles(boxes(again, top, coat), 0.7, 0.9)) == [0.9, 0.8]


def test_nearly_the_same_box_under_two_names_is_one_garment() -> None:
    found = boxes((0, 0, 100, 95, 1, 0.6), (0, 0, 100, 100, 0, 0.5))  # IoU 0.95
    assert scores(without_doubles(found, 0.7, 0.9)) == [0.6]
    assert scores(without_doubles(found, 0.7, 0.96)) == [0.6, 0.5]


def test_a_picture_may_have_nothing_or_three_hundred() -> None:
    assert len(choose_regions(boxes(), (64, 64), RegionRules()).scores) == 0
    rows = [(20.0 * (n % 20), 20.0 * (n // 20), 20.0 * (n % 20) + 18, 20.0 * (n // 20) + 18, n % 7, 0.5 + n / 1000)
            for n in range(300)]  # fmt: skip
    chosen = choose_regions(boxes(*rows), (400, 300), RegionRules())
    assert len(chosen.scores) == 300
    assert scores(chosen) == sorted(scores(chosen), reverse=True)


def test_a_box_that_leaves_the_picture_is_measured_by_what_is_left() -> None:
    found = boxes((90, 0, 300, 50, 0, 0.9), (10, 0, 60, 50, 0, 0.8))
    assert choose_regions(found, (100, 100), RegionRules()).boxes.tolist() == [[10, 0, 60, 50]]
    assert math.isclose(RegionRules().smallest_side, 16)
