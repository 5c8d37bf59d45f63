"""An ensemble is fitted on labelled pairs, and what is written scores as it was fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_curve

from shopvision.errors import UserError
from shopvision.evaluation.promises import Promise
from shopvision.items.item import Item
from shopvision.items.pair_table import PairTable
from shopvision.matching.fitting.ensemble_fit import METHODS, fit_ensemble
from shopvision.matching.fitting.evidence_file import read_evidence
from shopvision.matching.scoring.ensemble import load_scorer
from shopvision.matching.scoring.predict import PairScorer
from tests.unit.matching.tiny_matcher import COSINE, ONE, WORDS, arguments, save_tiny

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
    card = fit_ensemble(
        tmp_path / "e", members, table, method=method, seen=frozenset({"seen"}), promise=Promise(precision=0.9)
    )
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


def test_mistakes(members: list[Path], table: PairTable, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no method 'mean'"):
        fit_ensemble(tmp_path / "e", members, table, method="mean")
    with pytest.raises(UserError, match="1 member is no ensemble"):
        fit_ensemble(tmp_path / "e", members[:1], table, method="stacking")
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
    blank = (Item("blank"), *table.items[1:])
    with pytest.raises(UserError, match=r"No member can read both .*'blank'"):
        fit_ensemble(
            tmp_path / "e", members, PairTable(blank, table.left, table.right, table.labels), method="stacking"
        )
    assert not (tmp_path / "e").exists()
