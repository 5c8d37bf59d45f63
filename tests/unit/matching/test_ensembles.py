"""Ensembles by hand, against scikit-learn, and the weights that the published ensemble used."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import expit, logit

from shopvision.errors import UserError
from shopvision.evaluation.pair_metrics import best_f1_threshold
from shopvision.matching.scoring.ensemble_card import EnsembleArguments
from shopvision.matching.scoring.ensemble_rules import (
    LogisticStacking,
    f1_vote,
    fit_group_thresholds,
    fit_thresholds,
    group_thresholds,
    threshold_margin,
)

NAN = math.nan
# Published models (item-alignment, CCKS2022): F1 weight, threshold on seen and on unseen categories, NaN = not used.
PUBLISHED = np.array(
    [
        (0.8610, 0.3, 0.4),  # roberta_large v3.4
        (0.8600, 0.4, 0.4),  # roberta_large v3.4, layers 1-4
        (0.8612, 0.3, 0.5),  # roberta_large v4
        (0.8582, 0.4, 0.4),  # roberta_image_large v5
        (0.7777, 0.4, NAN),  # eca_nfnet_l0 v6
        (0.8096, 0.4, 0.5),  # pkgm_large v3.4
        (0.8510, 0.3, 0.4),  # bert_base
        (0.7703, 0.6, 0.6),  # textcnn v3.4
    ]
)


def test_the_margin_is_a_sum_over_the_models_that_scored() -> None:
    probabilities = [[0.9, 0.2, 0.5], [0.9, NAN, 0.1], [NAN, NAN, NAN], [0.3, 0.4, 0.6]]
    margins = threshold_margin(probabilities, [0.3, 0.4, 0.6])
    assert margins == pytest.approx([0.6 - 0.2 - 0.1, 0.6 - 0.5, 0.0, 0.0])
    assert (margins >= 0).tolist() == [True] * 4


def test_votes_weigh_by_f1_and_a_tie_is_the_same_item() -> None:
    different, same = f1_vote([[0.3, 0.1, 0.9], [0.1, 0.5, NAN], [NAN, NAN, NAN]], [0.3, 0.5, 0.5], [0.7, 0.7, 0.1])
    assert different == pytest.approx([0.7, 0.7, 0.0])
    assert same == pytest.approx([0.8, 0.7, 0.0])


def test_the_published_weights_add_up_to_the_published_totals() -> None:
    """Each pair's two tallies add up to 6.6490 in seen categories, 5.8713 in unseen ones, where one model is unused."""
    generator = np.random.default_rng(0)
    unseen = generator.random(200) < 0.3
    thresholds = group_thresholds(unseen, PUBLISHED[:, 1:].T)
    assert thresholds.shape == (200, 8)
    probabilities = generator.random((200, 8))
    different, same = f1_vote(probabilities, thresholds, PUBLISHED[:, 0])
    np.testing.assert_allclose((different + same)[~unseen], 6.6490)
    np.testing.assert_allclose((different + same)[unseen], 5.8713)
    one = int(np.flatnonzero(unseen)[0])
    used = [0, 1, 2, 3, 5, 6, 7]
    expected = sum(probabilities[one, model] - PUBLISHED[model, 2] for model in used)
    assert threshold_margin(probabilities, thresholds)[one] == pytest.approx(expected)
    # The largest margin that is possible is that of certainty everywhere: 8 - 3.1 seen, 7 - 3.2 unseen.
    certain = threshold_margin(np.ones((200, 8)), thresholds)
    assert (certain[~unseen].max(), certain[unseen].max()) == (pytest.approx(4.9), pytest.approx(3.8))


@pytest.mark.parametrize(
    ("voters", "different", "same"),
    [
        ((), 6.649, 0.0), (range(8), 0.0, 6.649), ((4,), 5.8713, 0.7777), ((6,), 5.798, 0.851), ((4, 7), 5.101, 1.548),
        ((4, 5), 5.0617, 1.5873), ((5, 7), 5.0691, 1.5799), ((0, 1, 2, 3, 4, 6, 7), 0.8096, 5.8394),
        ((2, 3, 5, 6, 7), 2.4987, 4.1503),
    ],
)  # fmt: skip
def test_tallies_are_those_of_the_published_result(voters: Sequence[int], different: float, same: float) -> None:
    """Pairs of seen categories of the published ``deepAI_result.jsonl``; whose votes they are follows from the sums."""
    thresholds = PUBLISHED[:, 1]
    voted = np.isin(np.arange(8), [*voters])
    found = f1_vote([thresholds + np.where(voted, 0.0, -1e-6)], thresholds, PUBLISHED[:, 0])
    assert [found[0].item(), found[1].item()] == pytest.approx([different, same])


def scored(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three models that know something, the second of which skipped some pairs."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(count) < 0.3).astype(int)
    odds = (2 * labels - 1)[:, None] * [2.0, 1.0, 0.2] + generator.normal(0, 1.5, (count, 3))
    probabilities = expit(odds)
    probabilities[generator.random(count) < 0.2, 1] = NAN
    return probabilities, labels


def test_thresholds_of_groups_are_fitted_on_their_own_pairs() -> None:
    probabilities, labels = scored(600, 1)
    unseen = np.arange(600) % 4 == 0
    fitted = fit_group_thresholds(probabilities, labels, unseen)
    for row, group in enumerate((~unseen, unseen)):
        for model in range(3):
            known = group & ~np.isnan(probabilities[:, model])
            assert fitted[row, model] == best_f1_threshold(probabilities[known, model], labels[known])[0]
    assert (fitted[0] != fitted[1]).all()
    everywhere = fit_thresholds(probabilities, labels)
    np.testing.assert_array_equal(fit_group_thresholds(probabilities, labels, np.zeros(600, bool)), [everywhere] * 2)
    without_positives = (labels == 0) & unseen
    np.testing.assert_array_equal(fit_group_thresholds(probabilities, labels, without_positives)[1], everywhere)


def test_a_model_that_scored_nothing_has_no_threshold() -> None:
    thresholds = fit_thresholds([[0.9, NAN], [0.1, NAN]], [1, 0])
    assert thresholds[0] == pytest.approx(0.5)
    assert math.isnan(thresholds[1])
    assert threshold_margin([[0.9, 0.9]], thresholds) == pytest.approx([0.4])


@pytest.mark.parametrize("regularisation", [0.5, 20.0])
def test_stacking_is_the_optimum_of_its_definition(regularisation: float) -> None:
    probabilities, labels = scored(300, 2)
    stacking = LogisticStacking.fit(probabilities, labels, regularisation=regularisation)
    odds = logit(probabilities)
    np.testing.assert_allclose(stacking.centres, np.nanmean(odds, axis=0))
    require_optimum(stacking, probabilities, labels, (0, 1, 2), stacking.weights, regularisation)


def require_optimum(
    stacking: LogisticStacking, probabilities: np.ndarray, labels: np.ndarray, models: tuple[int, ...],
    weights: np.ndarray, regularisation: float = 1.0,
) -> None:  # fmt: skip
    """Over pairs that these models scored, loss and a quarter of the squared weights pull with equal force."""
    columns = list(models)
    rows = ~np.isnan(probabilities[:, columns]).any(axis=1)
    alone = np.full((rows.sum(), 3), NAN)
    alone[:, columns] = probabilities[rows][:, columns]
    centred = logit(alone[:, columns]) - stacking.centres[columns]
    error = expit(stacking.log_odds(alone)) - labels[rows]
    np.testing.assert_allclose(centred.T @ error, -regularisation / 2 * weights, atol=1e-4)
    assert error.sum() == pytest.approx(0, abs=1e-4)


def test_stacking_is_better_than_its_best_member_and_survives_json() -> None:
    probabilities, labels = scored(4000, 3)
    stacking = LogisticStacking.fit(probabilities[:2000], labels[:2000])
    predicted = stacking.log_odds(probabilities[2000:])
    best = max(best_f1_threshold(probabilities[2000:, model], labels[2000:])[1] for model in (0, 2))
    assert best_f1_threshold(predicted, labels[2000:])[1] > best + 0.01
    copy = LogisticStacking.from_json(json.loads(json.dumps(stacking.to_json())))
    np.testing.assert_array_equal(copy.log_odds(probabilities[2000:]), predicted)
    assert np.isfinite(stacking.log_odds([[NAN, NAN, NAN], [1.0, 0.0, 1.0]])).all()


def test_pairs_that_some_members_scored_have_weights_of_their_own() -> None:
    """Members 0 and 1 say nearly the same, so together each has half of the weight that one has alone."""
    rng = np.random.default_rng(3)
    truth = rng.random(4000) < 0.3
    clean = np.where(truth, 2.0, -2.0) + rng.normal(0, 1.5, 4000)
    odds = np.stack([clean, clean + rng.normal(0, 0.01, 4000), rng.normal(0, 1, 4000)], axis=1)
    odds[:500, 0] = NAN
    odds[500:600, :2] = NAN
    stacking = LogisticStacking.fit(expit(odds), truth, also_alone=[(0,), (0, 1, 2), ()])
    assert set(stacking.partial) == {(0,), (1, 2), (2,)}
    for models, (weights, _) in stacking.partial.items():
        require_optimum(stacking, expit(odds), truth, models, weights)
    require_optimum(stacking, expit(odds), truth, (0, 1, 2), stacking.weights)
    assert stacking.partial[0,][0][0] > 1.5 * stacking.weights[0]
    copy = LogisticStacking.from_json(json.loads(json.dumps(stacking.to_json())))
    np.testing.assert_array_equal(copy.log_odds(expit(odds)), stacking.log_odds(expit(odds)))


def test_a_member_that_is_missing_without_weights_for_that_says_what_it_says_in_the_mean() -> None:
    stacking = LogisticStacking(np.array([2.0, 3.0]), np.array([0.5, -1.0]), 0.25)
    assert stacking.log_odds([[expit(1.5), NAN]]) == pytest.approx([2.25])


def test_members_that_are_very_sure_together_give_a_finite_margin() -> None:
    """Log-odds of 16 from each of two, weighed by 2, are 64: a probability of 1 in float64, and infinite odds again."""
    stacking = {"weights": [2.0, 2.0], "centres": [0.0, 0.0], "bias": 0.0}
    arguments = EnsembleArguments(members=("a", "b"), specs=("a:1", "b:1"), method="stacking", stacking=stacking)
    assert arguments.margins([[1.0, 1.0], [0.0, 0.0]], [False, False]) == pytest.approx([64.47, -64.47], abs=0.01)


def test_what_cannot_be_stacked_is_named() -> None:
    with pytest.raises(UserError, match="Model 1 of the ensemble scored no pair"):
        LogisticStacking.fit([[0.9, NAN], [0.1, NAN]], [1, 0])
    with pytest.raises(UserError, match="All 2 pairs have one label"):
        LogisticStacking.fit([[0.9], [0.1]], [1, 1])
    with pytest.raises(UserError, match=r"shape \(pairs, models\), not \(2,\)"):
        threshold_margin([0.9, 0.1], [0.5])
