"""The metrics of COCO against a case that was worked out by hand."""

from __future__ import annotations

import pytest
import torch

from shopvision.fashion.detection.metrics import intervals, measure_detections, overall
from shopvision.fashion.detection.regions import Boxes

CLASSES = ("bag", "dress", "hat")


def boxes(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    """Rows of left, top, right, bottom, label, score."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4].long(), table[:, 5])


# Two pictures. Bags, 100 x 100: the first found exactly (0.9), the second found with IoU 0.82 (0.6), and a false one
# between them (0.8). A dress of 20 x 20, found exactly (0.7). No hat anywhere, and none is found.
LABELLED = [boxes((0, 0, 100, 100, 0, 1)), boxes((0, 0, 100, 100, 0, 1), (200, 200, 220, 220, 1, 1))]
FOUND = [
    boxes((0, 0, 100, 100, 0, 0.9), (300, 300, 400, 400, 0, 0.8)),
    boxes((0, 0, 100, 82, 0, 0.6), (200, 200, 220, 220, 1, 0.7)),
]
# Average precision of bags, over 101 levels of recall. Up to IoU 0.80: 51 levels (recall 0 to 0.50) of precision 1, 50
# of precision 2/3. Beyond, where the second one is no find: 51 of precision 1, and nothing.
BAG_LOOSE = (51 + 50 * 2 / 3) / 101
BAG_STRICT = 51 / 101
# IoU 0.50 to 0.80 are 7 thresholds of 10.
BAG = 0.7 * BAG_LOOSE + 0.3 * BAG_STRICT


def test_every_metric_of_a_case_worked_out_by_hand() -> None:
    measured = measure_detections(FOUND, LABELLED, CLASSES)
    values = measured.values
    assert values == overall(FOUND, LABELLED)
    assert values["map_50"] == pytest.approx((BAG_LOOSE + 1) / 2)
    assert values["map_75"] == pytest.approx((BAG_LOOSE + 1) / 2)
    assert values["map"] == pytest.approx((BAG + 1) / 2)
    assert values["map_small"] == pytest.approx(1)
    assert values["map_large"] == pytest.approx(BAG)
    assert "map_medium" not in values
    # Recall of bags: both up to IoU 0.80, one beyond; of the one best box of each picture, which for the second one is
    # that of its class.
    assert values["mar_100"] == pytest.approx((0.85 + 1) / 2)
    assert values["mar_1"] == pytest.approx((0.85 + 1) / 2)
    assert measured.classes.keys() == {"bag", "dress"}
    assert measured.classes["bag"]["map"] == pytest.approx(BAG)
    assert measured.classes["bag"]["map_50"] == pytest.approx(BAG_LOOSE)
    assert measured.classes["bag"]["mar_100"] == pytest.approx(0.85)


def test_one_process_of_several_measures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are elsewhere: a metric that waited for them would wait for ever."""
    expected = overall(FOUND, LABELLED)
    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: True)
    monkeypatch.setattr("torchmetrics.metric.gather_all_tensors", lambda *_: pytest.fail("asked the other processes"))
    assert overall(FOUND, LABELLED) == expected


def test_a_class_that_is_labelled_and_not_found_counts() -> None:
    measured = measure_detections(FOUND, [LABELLED[0], boxes((0, 0, 50, 50, 2, 1))], CLASSES)
    assert measured.classes["hat"]["map"] == 0
    assert "dress" not in measured.classes


def test_nothing_found() -> None:
    measured = measure_detections([Boxes.none(), Boxes.none()], LABELLED, CLASSES)
    assert measured.values["map"] == 0
    assert measured.classes["bag"]["map_50"] == 0


def test_intervals_hold_the_value_and_are_the_same_again() -> None:
    found, labelled = FOUND * 3, LABELLED * 3
    one = intervals(found, labelled, resamples=20, seed=1)
    assert one == intervals(found, labelled, resamples=20, seed=1)
    low, high = one["map"]
    assert low <= measure_detections(found, labelled, CLASSES).values["map"] <= high
    assert low < high
    assert intervals(found, labelled, resamples=0) == {}


def test_intervals_count_no_draw_without_boxes() -> None:
    """Of three pictures one in nine draws would show no box at all, and COCO's evaluation says -1 to that."""
    found = [*FOUND, Boxes.none()]
    bounds = intervals(found, [LABELLED[0], LABELLED[0], Boxes.none()], resamples=40)
    assert 0 <= bounds["map"][0] <= bounds["map"][1]
    assert intervals(found, [LABELLED[0], Boxes.none(), Boxes.none()], resamples=5) == {}
