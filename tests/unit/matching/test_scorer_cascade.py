"""Two scorers as one: the limits against trying them all, and which model decides which pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from shopvision.errors import ItemError, UserError
from shopvision.items.item import Item
from shopvision.matching.scoring.cascade import Cascade, CascadeLimits, choose_cascade_limits
from shopvision.matching.scoring.predict import PairScorer
from tests.unit.matching.tiny_matcher import COSINE, ONE, RESNET, arguments, save_tiny

THRESHOLDS = {"same": 0.8, "decision": 0.45, "different": 0.2}


def validation(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(count) < 0.3).astype(int)
    first = expit(2.5 * (2 * labels - 1) + 2.0 * generator.normal(size=count))
    second = expit(4.0 * (2 * labels - 1) + 2.0 * generator.normal(size=count))
    return first.round(2).clip(0.01, 0.99), second, labels


def f1_score(labels: np.ndarray, called: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN)."""
    right = int((called.astype(bool) & (labels == 1)).sum())
    return 2 * right / (int(called.sum()) + int(labels.sum()))


def tried(first: np.ndarray, second: np.ndarray, labels: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """(F1, share passed on) of a cascade with these limits."""
    called = np.where(first >= high, 1, np.where(first <= low, 0, second >= THRESHOLDS["decision"]))
    return f1_score(labels, called), float(((first > low) & (first < high)).mean())


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.2])
def test_limits_pass_on_as_few_pairs_as_can_be(loss: float) -> None:
    first, second, labels = validation(300)
    found = choose_cascade_limits(first, second, labels, THRESHOLDS, max_f1_loss=loss)
    alone = f1_score(labels, second >= THRESHOLDS["decision"])
    cuts = (np.unique(first)[1:] + np.unique(first)[:-1]) / 2
    possible = [
        tried(first, second, labels, low, high)
        for low in [0.0, *cuts[cuts <= THRESHOLDS["different"]]]
        for high in [1.0, *cuts[cuts >= THRESHOLDS["same"]]]
    ]
    best = min(share for f1, share in possible if f1 >= alone - loss - 1e-9)
    assert found.f1_second == pytest.approx(alone)
    assert found.passed_on == pytest.approx(best)
    assert best < 1.0
    assert tried(first, second, labels, found.low, found.high) == pytest.approx((found.f1, found.passed_on))


def test_a_first_model_that_knows_nothing_decides_nothing() -> None:
    _, second, labels = validation(100)
    found = choose_cascade_limits(np.full(100, 0.5), second, labels, THRESHOLDS)
    assert (found.low, found.high, found.passed_on, found.f1) == (0.0, 1.0, 1.0, found.f1_second)


def test_many_validation_pairs_are_tried_at_quantiles() -> None:
    first, second, labels = validation(20_000)
    first = (first + np.random.default_rng(1).random(20_000) * 1e-3).clip(1e-7, 1 - 1e-7)
    found = choose_cascade_limits(first, second, labels, THRESHOLDS, max_f1_loss=0.01)
    assert tried(first, second, labels, found.low, found.high) == pytest.approx((found.f1, found.passed_on))
    assert found.f1 >= found.f1_second - 0.01
    assert found.passed_on < 0.7


def test_limits_need_pairs_of_the_same_item() -> None:
    with pytest.raises(UserError, match="some of them positive"):
        choose_cascade_limits([0.1], [0.2], [0], THRESHOLDS)
    with pytest.raises(UserError, match="the same labelled pairs"):
        choose_cascade_limits([0.1], [0.2, 0.3], [1, 0], THRESHOLDS)


@pytest.fixture(name="folders", scope="module")
def _folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    narrow: dict[str, Any] = {"thresholds": {"same": 0.55, "decision": 0.5, "different": 0.45}}
    save_tiny(folder / "two", arguments("text_two_tower", COSINE))
    save_tiny(folder / "one", arguments("text_one_tower", ONE), **narrow)
    save_tiny(folder / "mixed", arguments("text_image_one_tower", ONE, image=RESNET), **narrow)
    return {path.name: path for path in folder.iterdir()}


def items() -> list[Item]:
    titles = ("red shoe", "red shoe nike", "blue watch band", "apple 1", "apple 2 ; 3", "price : 1 , 2", "band")
    return [Item(str(number), title=title) for number, title in enumerate(titles)]


def test_the_first_decides_clear_pairs_and_the_second_the_rest(folders: dict[str, Path]) -> None:
    left, right = np.triu_indices(7, 1)
    first, second = (PairScorer(folders[name], precision="float32") for name in ("two", "one"))
    cheap, good = first.score(items(), left, right), second.score(items(), left, right)
    low, high = 0.45, float(np.quantile(cheap, 0.6))
    cascade = Cascade(first, second, low, max(high, 0.55))
    found = cascade.score(items(), left, right)
    decided = (cheap <= cascade.low) | (cheap >= cascade.high)
    assert 0 < decided.sum() < len(left)
    np.testing.assert_allclose(found, np.where(decided, cheap, good), atol=1e-6)
    assert cascade.passed_on == (~decided).sum()
    # No pair that the first decided comes up for review.
    assert set(cascade.verdicts(found[decided])) <= {"same", "different"}
    vectors = cascade.item_vectors(items(), None)
    assert vectors.shape == (7, 16)
    np.testing.assert_allclose(cascade.score(items(), left, right, vectors), found, atol=1e-6)
    assert np.isnan(cascade.score(items(), left, right, should_stop=lambda: True)).all()


def test_vectors_of_both_models_lie_side_by_side(folders: dict[str, Path]) -> None:
    first, second = (PairScorer(folders[name], precision="float32") for name in ("two", "mixed"))
    cascade = Cascade(first, second, 0.0, 1.0)
    assert (cascade.needs_text, cascade.needs_picture) == (True, True)
    assert cascade.preprocessing == second.preprocessing
    pictures = list(np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8))
    vectors = cascade.item_vectors(items(), pictures)
    np.testing.assert_allclose(vectors[:, :16], first.item_vectors(items(), None), atol=1e-6)
    np.testing.assert_allclose(vectors[:, 16:], second.item_vectors(items(), pictures), atol=1e-6)
    left, right = np.array([4, 2, 5]), np.array([1, 6, 0])
    np.testing.assert_allclose(
        cascade.score(items(), left, right, vectors),
        second.score(items(), left, right, second.item_vectors(items(), pictures)),
        atol=1e-6,
    )


def test_a_pair_that_one_of_both_cannot_read_as_a_whole_is_not_asked_about(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an ensemble, of which no member reads a text beside a picture."""
    first, second = PairScorer(folders["two"]), PairScorer(folders["one"])
    monkeypatch.setattr(second, "readable_pairs", lambda items, left, right: left + right > 1)
    pairs = np.array([0, 0]), np.array([1, 2])
    assert Cascade(first, second, 0.45, 0.55).readable_pairs(items(), *pairs).tolist() == [False, True]


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [(0.9, 0.1, "0 <= low <= high"), (0.47, 0.9, "for review"), (0.3, 0.5, "for review"), (-1, 1, "0 <= low")],
)
def test_limits_must_be_in_order_and_outside_the_zone_of_review(
    folders: dict[str, Path], low: float, high: float, message: str
) -> None:
    first, second = PairScorer(folders["two"]), PairScorer(folders["one"])
    with pytest.raises(UserError, match=message):
        Cascade(first, second, low, high)


def test_the_first_needs_vectors_and_every_item_something_to_read(folders: dict[str, Path]) -> None:
    first, second = PairScorer(folders["two"]), PairScorer(folders["one"])
    with pytest.raises(UserError, match="use one with item vectors"):
        Cascade(second, second, 0.1, 0.9)
    with pytest.raises(ItemError, match="has no words that the model reads"):
        Cascade(first, second, 0.1, 0.9)([(items()[0], Item("empty"))])
    assert isinstance(choose_cascade_limits([0.9, 0.1], [0.9, 0.1], [1, 0], THRESHOLDS), CascadeLimits)


def test_thresholds_of_a_job_draw_the_zone_of_review_anew(folders: dict[str, Path]) -> None:
    """Not those of the card: a job may be surer than its model, or less sure."""
    first, second = (PairScorer(folders[name], precision="float32") for name in ("two", "one"))
    with pytest.raises(UserError, match="for review"):
        Cascade(first, second, 0.49, 0.51)
    cascade = Cascade(first, second, 0.49, 0.51, thresholds={"different": 0.495, "same": 0.505})
    assert (cascade.low, cascade.high) == (0.49, 0.51)
    with pytest.raises(UserError, match=r"from 0\.2 to 0\.9 are for review"):
        Cascade(first, second, 0.45, 0.55, thresholds={"different": 0.2, "same": 0.9})
