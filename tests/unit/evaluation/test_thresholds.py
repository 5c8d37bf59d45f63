"""Thresholds against their promise: the statistic by SciPy and by hand, and the promise by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from scipy.special import expit

from shopvision.errors import UserError
from shopvision.evaluation.calibration import check_thresholds
from shopvision.evaluation.pair_metrics import best_f1_threshold
from shopvision.evaluation.promises import Promise
from shopvision.evaluation.thresholds import (
    Evidence,
    choose_thresholds,
    cuts_from_the_surest,
    fewest_pairs,
    fewest_positives,
    lower_bound,
)


def drawn(
    same: int, different: int, seed: int, *, apart: float = 4.0, hidden: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of pairs whose scores are normal, ``apart`` standard deviations from each other.

    Of the pairs of the same item the share ``hidden`` looks like different ones.
    """
    generator = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [same, different]).astype(np.int8)
    seen = (labels == 1) & (generator.random(len(labels)) >= hidden)
    scores = generator.normal(0, 1, len(labels)) + apart * seen
    return expit(apart * scores - apart**2 / 2 + np.log(same / different)), labels


def evidence_of(probabilities: np.ndarray, labels: np.ndarray) -> Evidence:
    return Evidence.of_validation(np.asarray(probabilities, np.float64), np.asarray(labels, np.int8))


@pytest.mark.parametrize(("right", "pairs", "level"), [(0, 5, 0.05), (95, 100, 0.05), (100, 100, 0.01), (3, 7, 0.2)])
def test_the_bound_is_clopper_and_pearsons(right: int, pairs: int, level: float) -> None:
    exact = scipy.stats.binomtest(right, pairs, alternative="greater").proportion_ci(1 - level, "exact")
    assert lower_bound(right, pairs, level) == pytest.approx(exact.low)


def test_fewest_pairs_by_hand() -> None:
    # Without a mistake 0.95 ** n <= 0.05: n >= ln 0.05 / ln 0.95 = 58.4; with one, 93 (tables of Clopper and Pearson).
    assert fewest_pairs(0.95, 0.05) == 59
    assert fewest_pairs(0.95, 0.05, 1) == 93
    # A start has 70 % of what is allowed: ln 0.035 / ln 0.95 = 65.4, ln 0.07 / ln 0.9 = 25.2.
    assert fewest_positives(Promise()) == 66
    assert fewest_positives(Promise(precision=0.9, confidence=0.9)) == 26


def test_looks_hand_on_what_they_may_err() -> None:
    """95 % at 95 %: 66 right ones pass the first start, then one wrong one loses it; 198 pairs are the second."""
    labels = np.ones(300, np.bool_)
    labels[66] = False
    cuts = cuts_from_the_surest(-np.arange(300.0), labels, share=0.95, confidence=0.95)
    assert np.flatnonzero(cuts.shown).tolist() == [65, *range(197, 300)]
    assert cuts.levels[[64, 65, 66, 67, 197, 299]] == pytest.approx([0, 0.035, 0.035, 0, 0.01, 0.01])
    labels[66] = True
    cuts = cuts_from_the_surest(-np.arange(300.0), labels, share=0.95, confidence=0.95)
    assert np.flatnonzero(cuts.shown).tolist() == list(range(65, 300))
    assert cuts.levels[[65, 196, 197, 299]] == pytest.approx([0.035, 0.035, 0.045, 0.045])


def test_equal_scores_are_one_look() -> None:
    cuts = cuts_from_the_surest(np.repeat([2.0, 1.0], [60, 40]), np.ones(100, np.bool_), share=0.95, confidence=0.95)
    assert cuts.pairs.tolist() == [60, 100]
    assert cuts.shown.tolist() == [False, True]


def test_200_positives_and_a_good_model_give_automatic_verdicts() -> None:
    probabilities, labels = drawn(200, 1700, 1)
    chosen = choose_thresholds(evidence_of(probabilities, labels))
    thresholds = chosen.thresholds
    assert check_thresholds(thresholds) == thresholds
    assert thresholds["different"] < thresholds["decision"] < thresholds["same"] < 0.95
    assert thresholds["decision"] == best_f1_threshold(probabilities, labels)[0]
    (asked,) = [shown for shown in chosen.shown.same if shown.precision == 0.95]
    above = probabilities >= thresholds["same"]
    assert (asked.threshold, asked.pairs) == (thresholds["same"], above.sum())
    assert asked.recall == labels[above].sum() / 200 > 0.8
    assert asked.lower_bound is not None
    assert 0.95 <= asked.lower_bound < labels[above].mean()
    between = (probabilities > thresholds["different"]) & ~above
    assert asked.review_share == between.mean()
    assert not chosen.shown.shortfalls()
    assert [shown.precision for shown in chosen.shown.same] == [0.90, 0.95, 0.98, 0.99]


def test_the_promise_is_kept_as_often_as_it_says() -> None:
    """800 models; the precision of the chosen threshold is known, because the scores are normal."""
    broken = shown = 0
    for seed in range(800):
        probabilities, labels = drawn(150, 600, seed, apart=3.0)
        cuts = cuts_from_the_surest(probabilities, labels == 1, share=0.9, confidence=0.8)
        if not cuts.shown.any():
            continue
        lowest = cuts.scores[np.flatnonzero(cuts.shown)[-1]]
        score = (np.log(lowest / (1 - lowest)) - np.log(150 / 600)) / 3 + 1.5
        right, wrong = 150 * scipy.stats.norm.sf(score - 3), 600 * scipy.stats.norm.sf(score)
        shown, broken = shown + 1, broken + (right / (right + wrong) < 0.9)
    assert shown > 600
    assert 0.02 < broken / 800 <= 0.2  # nor is it bought with thresholds that are far too strict


def test_a_wish_for_more_sends_more_to_review() -> None:
    evidence = evidence_of(*drawn(2000, 8000, 5, apart=3.0))
    loose = choose_thresholds(evidence, Promise(precision=0.8, missed=0.1)).thresholds
    strict = choose_thresholds(evidence, Promise(precision=0.98, missed=0.005)).thresholds
    assert strict["different"] < loose["different"] <= loose["decision"] <= loose["same"] < strict["same"]
    assert strict["decision"] == loose["decision"]


def test_a_perfect_model_with_enough_pairs_leaves_only_the_gap_to_review_and_with_few_everything() -> None:
    """95 % takes 66 pairs without a mistake, 2 % takes 166: ln 0.035 / ln 0.98 = 165.9."""
    for positives, negatives, same, different in ((66, 166, 0.9, 0.1), (65, 165, 1.0, 0.0), (1, 1, 1.0, 0.0)):
        probabilities = np.repeat([0.9, 0.1], [positives, negatives])
        chosen = choose_thresholds(evidence_of(probabilities, np.repeat([1, 0], [positives, negatives])))
        assert chosen.thresholds == {"same": same, "different": different, "decision": 0.5}


def test_what_it_would_take_is_told_in_one_line() -> None:
    probabilities = np.repeat([0.9, 0.1], [40, 400])
    lines = choose_thresholds(evidence_of(probabilities, np.repeat([1, 0], [40, 400]))).shown.shortfalls()
    # 40 right ones of 40 count as 40.5 of 41: ln(1 / 0.035) / KL(0.9878, 0.95) = 157 pairs at that rate.
    assert len(lines) == 1
    assert lines[0] == (
        "Precision 0.95 was not shown, so nothing is called same: at the present rate of mistakes it takes about 160 "
        "pairs of the same item; there are 40."
    )


def test_few_pairs_without_a_mistake_are_not_called_wrong_ones() -> None:
    """20 right ones of 20 count as 97.6 %, 50 of 50 as 99.02 %: that tells little of 98 and 99 %."""
    for count, precision, needed in ((20, 0.98, 166), (50, 0.99, 334)):
        evidence = evidence_of(np.repeat([0.9, 0.1], [count, 400]), np.repeat([1, 0], [count, 400]))
        (line,) = choose_thresholds(evidence, Promise(precision=precision)).shown.shortfalls()
        told = f"without a single mistake it takes {needed} pairs of the same item; there are {count}."
        assert line == f"Precision {precision} was not shown, so nothing is called same: {told}"


def test_a_model_that_knows_nothing_decides_nothing() -> None:
    generator = np.random.default_rng(6)
    chosen = choose_thresholds(evidence_of(generator.random(500), generator.random(500) < 0.3))
    assert (chosen.thresholds["same"], chosen.thresholds["different"]) == (1.0, 0.0)
    assert all("more of them would not help" in line for line in chosen.shown.shortfalls())
    chosen = choose_thresholds(evidence_of(np.full(50, 0.3), np.arange(50) % 2))
    assert chosen.thresholds == {"same": 1.0, "different": 0.0, "decision": 0.3}


def test_cross_fitted_pairs_add_to_the_evidence_and_leave_the_decision_to_validation() -> None:
    validation = drawn(60, 500, 1, apart=5.0)
    alone = choose_thresholds(evidence_of(*validation))
    assert alone.thresholds["same"] == 1
    both = choose_thresholds(evidence_of(*validation).and_cross_fitted(*drawn(200, 1700, 2, apart=5.0)))
    assert both.thresholds["same"] < 1
    assert both.thresholds["decision"] == alone.thresholds["decision"]
    assert both.shown.evidence.told() == ("560 validation pairs (60 the same), 1,900 cross-fitted ones (200 the same)")


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_labels_of_one_kind_show_nothing(labels: list[int]) -> None:
    with pytest.raises(UserError, match=r"All 2 validation pairs are .*give pairs of both labels"):
        choose_thresholds(evidence_of(np.array([0.1, 0.2]), np.array(labels)))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"precision": 95}, r"precision is 95: give a share between 0\.5 and 1, such as 0\.95\."),
        ({"confidence": 1.0}, r"confidence is 1\.0: give a share between 0\.5 and 1"),
        ({"missed": 0.7}, r"missed is 0\.7: give a share between 0 and 0\.5, such as 0\.02\."),
        ({"precision": float("nan")}, r"precision is nan: give a share"),
    ],
)
def test_a_wish_that_cannot_be_kept_is_refused(wish: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Promise().asking(**wish)
