"""Evaluation of a pair model whose probabilities are known: every number is counted again here."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.images.preprocessing import Preprocessing
from shopvision.items.item import Item
from shopvision.items.word_overlap import token_jaccard
from shopvision.matching.fitting.error_page import compare, mark, matching_errors
from shopvision.matching.fitting.evaluate import MIXED, MatchingReport, evaluate_matcher
from shopvision.settings import get_settings
from tests.unit.matching.pair_world import THRESHOLDS, card, table_of, world

PREPROCESSING = Preprocessing(size=(8, 8), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def report() -> MatchingReport:
    table, scorer = world(300)
    return evaluate_matcher(scorer, table, seen=frozenset({"Shoes", "Watches"}), resamples=200)


def test_metrics_are_at_the_cards_threshold(report: MatchingReport) -> None:
    labels, probabilities = report.table.labels, report.probabilities
    expected = sklearn.metrics.precision_recall_fscore_support(labels, probabilities >= 0.5, average="binary")
    assert [report.metrics[name].value for name in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    assert report.metrics["roc_auc"].value == pytest.approx(sklearn.metrics.roc_auc_score(labels, probabilities))
    assert report.metrics["f1"].low < report.metrics["f1"].value < report.metrics["f1"].high
    assert report.best_f1 > report.metrics["f1"].value
    assert sklearn.metrics.f1_score(labels, probabilities >= report.best_f1_threshold) == pytest.approx(report.best_f1)


def test_verdicts_are_counted(report: MatchingReport) -> None:
    truth, probabilities = report.table.labels == 1, report.probabilities
    same, different = probabilities >= 0.8, probabilities <= 0.2
    values = {name: measured.value for name, measured in report.verdicts.items()}
    assert values == pytest.approx(
        {
            "review_share": np.mean(~same & ~different),
            "same_precision": truth[same].mean(),
            "same_recall": same[truth].mean(),
            "missed_share": truth[different].mean(),
            "accuracy": np.concatenate([truth[same], ~truth[different]]).mean(),
        }
    )
    assert report.verdicts["missed_share"].units == different.sum()
    assert report.verdicts["same_precision"].random == pytest.approx(truth.mean())
    generator = np.random.default_rng(0)
    guesses = []
    for _ in range(3000):
        shuffled = generator.permutation(truth)
        guesses.append(np.concatenate([shuffled[same], ~shuffled[different]]).mean())
    assert report.verdicts["accuracy"].random == pytest.approx(np.mean(guesses), abs=0.005)
    assert math.isnan(report.verdicts["review_share"].random)


def test_groups_and_categories_hold_their_own_pairs(report: MatchingReport) -> None:
    left = np.array([report.table.items[row].category for row in report.table.left])
    right = np.array([report.table.items[row].category for row in report.table.right])
    assert set(report.categories) == {"Shoes", "Watches", "Cables", MIXED}
    assert report.categories["Shoes"]["accuracy"].units == ((left == "Shoes") & (right == "Shoes")).sum()
    assert report.categories[MIXED]["accuracy"].units == (left != right).sum()
    unseen = (left == "Cables") | (right == "Cables")
    assert {name: of["accuracy"].units for name, of in report.groups.items()} == {
        "seen": (~unseen).sum(),
        "unseen": unseen.sum(),
    }
    expected = sklearn.metrics.f1_score(report.table.labels[unseen], report.probabilities[unseen] >= 0.5)
    assert report.groups["unseen"]["f1"].value == pytest.approx(expected)


def test_the_report_is_json_without_nan_and_rows_show_all(report: MatchingReport) -> None:
    summary = report.summary()
    plain = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
    assert plain["counts"]["pairs"] == 300
    assert plain["counts"]["positives"] == int(report.table.labels.sum())
    assert plain["facts"]["thresholds"] == THRESHOLDS
    parts = {(part["group"], part["name"]): part["metrics"] for part in plain["parts"]}
    assert parts["verdicts", ""]["review_share"]["random"] is None
    assert set(parts["baseline", "token_jaccard"]) == {"precision", "recall", "f1", "roc_auc", "average_precision"}
    names = [name for name, *_ in summary.rows()]
    assert len(names) == len(set(names)) == 9 + 5 + 2 + 4 + 5
    assert "categories unseen: f1" in names


def test_the_baseline_has_its_best_threshold(report: MatchingReport) -> None:
    scores = token_jaccard(report.table)
    best = max(sklearn.metrics.f1_score(report.table.labels, scores >= score) for score in np.unique(scores))
    assert report.baseline["f1"].value == pytest.approx(best)


def test_jaccard_of_titles_in_any_script() -> None:
    titles = ("Red SHOE 42", "red shoe, 43!", "红色鞋", "红鞋", "빨간 신발", "빨간 구두", "", "")
    items = [Item(str(number), title) for number, title in enumerate(titles)]
    table = table_of(items, [(0, 1, 1), (2, 3, 1), (4, 5, 0), (6, 7, 0)])
    assert token_jaccard(table) == pytest.approx([2 / 4, 2 / 3, 1 / 3, 0.0])


def test_one_category_is_not_repeated_and_unknown_training_has_no_groups() -> None:
    table, scorer = world(60)
    table = replace(table, items=tuple(replace(item, category="") for item in table.items))
    report = evaluate_matcher(scorer, table, resamples=0)
    assert (report.categories, report.groups) == ({}, {})


def test_the_same_seed_gives_the_same_report() -> None:
    table, scorer = world(80)
    first, second, other = (evaluate_matcher(scorer, table, resamples=50, seed=seed) for seed in (1, 1, 2))
    assert first.summary().as_dict() == second.summary().as_dict()
    assert first.metrics["f1"].low != other.metrics["f1"].low or first.metrics["f1"].high != other.metrics["f1"].high


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ({}, "matcher:1 was not calibrated: The threshold 'different' is missing"),
        ({"same": 0.3, "decision": 0.5, "different": 0.1}, "out of order"),
    ],
)
def test_a_card_without_good_thresholds_is_refused(thresholds: dict[str, float], words: str) -> None:
    table, scorer = world(20)
    with pytest.raises(UserError, match=words):
        evaluate_matcher(replace(scorer, card=card(thresholds)), table)


def test_pairs_that_cannot_be_measured_are_refused() -> None:
    table, scorer = world(20)
    with pytest.raises(UserError, match="There is no pair to evaluate on"):
        evaluate_matcher(scorer, table.select(np.zeros(20, bool)))
    with pytest.raises(UserError, match="1 of 20 pairs have no label"):
        evaluate_matcher(scorer, replace(table, labels=np.append(table.labels[:-1], -1).astype(np.int8)))
    with pytest.raises(UserError, match=r"None of .* pairs is the same item"):
        evaluate_matcher(scorer, table.select(table.labels == 0))


@pytest.mark.parametrize("needs_text", [True, False])
def test_pairs_with_items_that_the_model_cannot_read_are_left_out_and_counted(
    needs_text: bool, tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    set_environment(SHOPVISION_IMAGE_ROOTS=str(tmp_path))
    buffer = io.BytesIO()
    Image.new("RGB", (10, 10), "red").save(buffer, "PNG")
    (tmp_path / "red.png").write_bytes(buffer.getvalue())
    table, scorer = world(30)
    scorer = replace(scorer, preprocessing=PREPROCESSING, vector_dimension=1, needs_text=needs_text)
    address = (tmp_path / "red.png").as_uri()
    broken = {3: "", 8: (tmp_path / "gone.png").as_uri(), 9: ""}  # rows 8 and 9 are one pair
    table = replace(
        table, items=tuple(replace(item, picture=broken.get(row, address)) for row, item in enumerate(table.items))
    )
    progress: list[tuple[int, int]] = []
    with PictureDoor(get_settings()) as door:
        report = evaluate_matcher(
            scorer, table, door=door, resamples=0, on_progress=lambda done, total: progress.append((done, total))
        )
        # With text to read, an item may lack a picture; one that is named but gone is an error in either case.
        left_out = 1 if needs_text else 2
        assert (report.unreadable, len(report.table), len(report.probabilities)) == (
            left_out,
            30 - left_out,
            30 - left_out,
        )
        assert progress == [(60, 60)]
        assert len(scorer.pictures) == (59 if needs_text else 57)
        assert [picture is None for picture in scorer.pictures[:4]] == [False, False, False, needs_text]
        assert scorer.pictures[0].shape == (8, 8, 3)
        assert scorer.vectors[[0, 3, 8, 20]].ravel().tolist() == [2.0, 2.0 if needs_text else 0.0, 0.0, 3.0]
        none = replace(table, items=tuple(replace(item, picture="", title="") for item in table.items))
        with pytest.raises(UserError, match="Not one of 30 pairs has two items that the model can read"):
            evaluate_matcher(scorer, none, door=door)


def test_errors_come_with_the_most_certain_first(report: MatchingReport) -> None:
    errors = matching_errors(report, borderline=7)
    by_kind = {kind: [error for error in errors if error.kind == kind] for kind in ("wrong", "missed", "borderline")}
    assert [error for of in by_kind.values() for error in of] == errors
    truth, found = report.table.labels == 1, report.probabilities >= 0.5
    assert {error.row for error in by_kind["wrong"]} == set(np.flatnonzero(found & ~truth))
    assert {error.row for error in by_kind["missed"]} == set(np.flatnonzero(~found & truth))
    wrong = [error.probability for error in by_kind["wrong"]]
    missed = [error.probability for error in by_kind["missed"]]
    assert (wrong, missed) == (sorted(wrong, reverse=True), sorted(missed))
    near = [abs(error.probability - 0.5) for error in by_kind["borderline"]]
    assert near == sorted(near)
    assert len(near) == 7
    assert (np.abs(report.probabilities[found == truth] - 0.5) < max(near)).sum() == 6
    assert by_kind["wrong"][0].verdict == "same"
    assert {error.verdict for error in by_kind["borderline"]} == {"review"}


def test_differing_words_are_marked() -> None:
    left, right = mark("Nike Air-Max 90, red", "NIKE air max 95 (Red)")
    assert left == [("Nike Air-Max ", False), ("90", True), (", red", False)]
    assert right == [("NIKE air max ", False), ("95", True), (" (Red)", False)]
    assert mark("红色鞋", "红鞋")[0] == [("红", False), ("色", True), ("鞋", False)]
    assert mark("", "x") == ([], [("x", False)])
    assert len(mark("y" * 5000, "")[0][0][0]) < 5000


def test_items_are_compared_line_by_line() -> None:
    left = Item("1", "Shoe", brand="Nike", attributes={"size": ("42", "43"), "title": ("x",)})
    right = Item("2", "Shoe", price="10", attributes={"colour": ("red",), "size": ("43",)}, description="Good.")
    lines = compare(left, right)
    assert [line.name for line in lines] == ["title", "brand", "price", "size", "colour", "description"]
    assert "".join(text for text, _ in lines[0].left) == "Shoe, x"
    assert lines[3].left == [("42", True), (", 43", False)]
    assert lines[4].left == []
