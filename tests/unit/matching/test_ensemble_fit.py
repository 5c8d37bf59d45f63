"""An ensemble is fitted on labelled pairs, and what is written scores as it was fitted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from shopvision.errors import UserError
from shopvision.evaluation.promises import Promise
from shopvision.images import PictureDoor
from shopvision.items.item import Item
from shopvision.items.pair_table import PairTable
from shopvision.matching.families.card import read_card
from shopvision.matching.fitting.ensemble_fit import METHODS, fit_ensemble
from shopvision.matching.fitting.evaluate import evaluate_matcher
from shopvision.matching.fitting.evidence_file import read_evidence
from shopvision.matching.fitting.member_effects import measure_members
from shopvision.matching.scoring.ensemble import load_scorer
from shopvision.matching.scoring.predict import PairScorer
from shopvision.settings import get_settings
from tests.unit.matching.tiny_matcher import COSINE, ONE, THRESHOLDS, WORDS, arguments, save_tiny

COUNT = 30


@pytest.fixture(name="members", scope="module")
def _members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("members")
    save_tiny(folder / "a", arguments("text_one_tower", ONE))
    save_tiny(folder / "b", arguments("text_two_tower", COSINE), seed=2, tag="second")
    return [folder / "a", folder / "b"]


@pytest.fixture(name="table", scope="module")
def _table(members: list[Path]) -> PairTable:
    """Pairs whose labels follow both members' words, with noise."""
    rng = np.random.default_rng(5)
    words = [word for word in WORDS if word.isalnum()]
    items = tuple(
        Item(str(n), title=" ".join(rng.choice(words, 4)), category="seen" if n % 3 else "new") for n in range(COUNT)
    )
    left, right = np.triu_indices(COUNT, 1)
    scores = [PairScorer(member).score(items, left, right) for member in members]
    ranks = [score.argsort().argsort() / len(left) for score in scores]
    labels = sum(ranks) + rng.normal(0, 0.3, len(left)) > 1.2
    return PairTable(items, left.astype(np.int32), right.astype(np.int32), labels.astype(np.int8))


@pytest.mark.parametrize("method", METHODS)
def test_it_scores_as_it_was_fitted(method: str, members: list[Path], table: PairTable, tmp_path: Path) -> None:
    seen = None if method == "stacking" else frozenset({"seen"})
    card = fit_ensemble(tmp_path / "e", members, table, method=method, seen=seen, promise=Promise(precision=0.9)).card
    scorer = load_scorer(tmp_path / "e")
    probabilities = scorer.score(table.items, table.left, table.right)
    decided = probabilities >= card.thresholds["decision"]
    assert f1_score(table.labels, decided) == pytest.approx(card.metrics["f1"], abs=0.01)
    if method == "stacking":  # two views of the truth are better than either
        for member in members:
            alone = PairScorer(member).score(table.items, table.left, table.right)
            precision, recall, _ = precision_recall_curve(table.labels, alone)
            assert card.metrics["f1"] > (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
    assert abs(probabilities.mean() - table.labels.mean()) < 0.05  # calibrated
    assert f"{len(table):,} pairs" in card.training_data
    assert card.promises is not None
    assert card.promises.evidence == read_evidence(tmp_path / "e").counts()
    assert card.promises.evidence.validation == len(table)
    assert card.promises.asked.precision == 0.9


@pytest.mark.usefixtures("in_float32")
def test_it_is_told_what_each_member_does(members: list[Path], table: PairTable, tmp_path: Path) -> None:
    """On the pairs that weighed them, and on others: here the same, so that both tell the same."""
    fitted = fit_ensemble(tmp_path / "e", members, table, method="stacking", name="both").members
    first = read_card(members[0]).spec
    scorer = load_scorer(tmp_path / "e", precision="float32")
    found = evaluate_matcher(scorer, table, resamples=0)
    assert found.members is not None
    said = np.stack([PairScorer(member).score(table.items, table.left, table.right) for member in members], 1)
    decided = said >= THRESHOLDS["decision"]
    for place, effects in enumerate((fitted, found.members)):
        assert effects.names == (first, "tiny:second")
        assert effects.agreement[0, 1] == effects.agreement[1, 0] == (decided[:, 0] == decided[:, 1]).mean()
        for number in range(2):
            alone, others = said[:, number], said[:, 1 - number]
            assert effects.alone[number]["f1"].value == pytest.approx(f1_score(table.labels, decided[:, number]))
            ranked = average_precision_score(table.labels, others)  # one is left, which stacking ranks no other way
            assert effects.without[number]["average_precision"].value == pytest.approx(ranked)
            assert effects.alone[number]["roc_auc"].value == pytest.approx(roc_auc_score(table.labels, alone))
            assert math.isnan(effects.alone[number]["f1"].low) == bool(place)
    parts = {(part.group, part.name) for part in found.summary().parts}
    assert {("member", first), ("without", "tiny:second")} <= parts
    share = f"{fitted.agreement[0, 1]:.4f}"
    assert (f"decided alike: {first}", f"tiny:second {share}") in found.summary().fact_rows()
    fitted.plot(tmp_path / "members.png", "Members")
    with Image.open(tmp_path / "members.png") as picture:
        assert picture.width > picture.height > 500


def test_a_member_that_scored_nothing_in_common_has_no_numbers() -> None:
    said = np.array([[0.9, np.nan], [0.1, np.nan], [np.nan, 0.8], [np.nan, 0.7]])
    effects = measure_members(
        ["words", "pictures"], said, np.array([1, 0, 1, 1], np.int8), decisions=[0.5, 0.75],
        combine=lambda p: np.where(np.isnan(p).all(1), np.nan, np.nansum(p, 1)), decision=0.5, resamples=0,
    )  # fmt: skip
    assert np.isnan(effects.agreement[0, 1])
    assert effects.alone[0]["f1"].value == 1
    assert effects.alone[1] == {}  # all that it scored is the same item
    assert effects.without[0] == {}
    assert effects.without[1]["f1"].value == 1
    assert effects.facts() == {"decided alike": {"words": {"pictures": None}}}


def test_mistakes(members: list[Path], table: PairTable, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no method 'mean'"):
        fit_ensemble(tmp_path / "e", members, table, method="mean")
    with pytest.raises(UserError, match="1 member is no ensemble"):
        fit_ensemble(tmp_path / "e", members[:1], table, method="stacking")
    with pytest.raises(UserError, match="Stacking has no thresholds that categories unseen in training could have"):
        fit_ensemble(tmp_path / "e", members, table, method="stacking", seen=frozenset({"seen"}))
    unlabelled = PairTable(table.items, table.left, table.right, np.full(len(table), -1, np.int8))
    with pytest.raises(UserError, match="have no label"):
        fit_ensemble(tmp_path / "e", members, unlabelled, method="stacking")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "card.json").write_text("{}")
    for used in (tmp_path / "full", tmp_path / "full" / "card.json"):
        with pytest.raises(UserError, match="is no empty folder: choose another --output"):
            fit_ensemble(used, members, table, method="stacking")
    with pytest.raises(UserError, match="name 'our best': use letters, digits"):
        fit_ensemble(tmp_path / "e", members, table, method="stacking", name="our best")
    save_tiny(tmp_path / "pictures", arguments("image_two_tower", COSINE), tag="blind")
    with (
        PictureDoor(get_settings()) as door,
        pytest.raises(UserError, match=r"Member tiny:blind: Not one of .* Leave it out"),
    ):
        fit_ensemble(tmp_path / "e", [*members, tmp_path / "pictures"], table, method="stacking", door=door)
    alone = PairTable(table.items, table.left, table.right, np.zeros(len(table), np.int8))
    with pytest.raises(UserError, match=r"Member tiny:.*: None of 435 pairs is the same item"):
        fit_ensemble(tmp_path / "e", members, alone, method="f1_vote")
    blank = (Item("blank"), *table.items[1:])
    with pytest.raises(UserError, match=r"No member can read both .*'blank'"):
        fit_ensemble(
            tmp_path / "e", members, PairTable(blank, table.left, table.right, table.labels), method="stacking"
        )
    assert not (tmp_path / "e").exists()
