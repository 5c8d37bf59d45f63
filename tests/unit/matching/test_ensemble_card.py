"""An ensemble as a model version: its folder, through the registry's importer, and its numbers by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from shopvision.errors import JobError, UserError
from shopvision.items.item import Item
from shopvision.matching.scoring.ensemble import (
    EnsembleArguments,
    EnsembleScorer,
    ensemble_arguments,
    load_scorer,
    save_ensemble,
)
from shopvision.matching.scoring.predict import PairScorer
from shopvision.models.importers import fetch
from tests.unit.matching.tiny_matcher import COSINE, ONE, THRESHOLDS, arguments, save_tiny

LEFT, RIGHT = np.triu_indices(5, 1)
ITEMS = [
    Item(str(number), title=title, category=category)
    for number, (title, category) in enumerate(
        [("red shoe", "shoes"), ("nike shoe", "shoes"), ("blue band", "watches"), ("apple", "shoes"), ("1 2 3", "new")]
    )
]
UNSEEN = (LEFT == 4) | (RIGHT == 4)
GROUPS = {"seen_categories": ("shoes", "watches")}
MARGIN: dict[str, Any] = {"method": "threshold_margin", "thresholds": ((0.3, 0.4), (0.5, 0.2)), **GROUPS}


@pytest.fixture(name="members", scope="module")
def _members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("members")
    save_tiny(folder / "a", arguments("text_one_tower", ONE))
    save_tiny(folder / "b", arguments("text_two_tower", COSINE), seed=2, tag="second")
    return [folder / "a", folder / "b"]


@pytest.fixture(name="p", scope="module")
def _probabilities(members: list[Path]) -> np.ndarray:
    scores = [PairScorer(folder, precision="float32").score(ITEMS, LEFT, RIGHT) for folder in members]
    return np.stack(scores, axis=1)


def scored(folder: Path, members: list[Path], **fields: Any) -> tuple[EnsembleScorer, np.ndarray]:
    save_ensemble(folder, members, ensemble_arguments(members, **fields), name="both", thresholds=THRESHOLDS)
    scorer = load_scorer(folder, precision="float32")
    assert isinstance(scorer, EnsembleScorer)
    return scorer, scorer.score(ITEMS, LEFT, RIGHT)


def test_margins_by_group(tmp_path: Path, members: list[Path], p: np.ndarray) -> None:
    scorer, found = scored(tmp_path / "e", members, **MARGIN)
    thresholds = np.where(UNSEEN[:, None], [[0.5, 0.2]], [[0.3, 0.4]])
    np.testing.assert_allclose(found, expit((p - thresholds).sum(1)), atol=1e-5)
    vectors = scorer.item_vectors(ITEMS, None)
    assert vectors.shape == (5, scorer.vector_dimension)
    np.testing.assert_allclose(scorer.score(ITEMS, LEFT, RIGHT, vectors), found, atol=1e-5)
    assert scorer.verdicts(np.array([0.95, 0.5])).tolist() == ["same", "review"]
    assert scorer([(ITEMS[0], ITEMS[1])])[0].probability == pytest.approx(found[0], abs=1e-5)


def test_a_member_without_threshold_is_not_asked(
    tmp_path: Path, members: list[Path], p: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, found = scored(tmp_path / "e", members, **(MARGIN | {"thresholds": ((0.3, 0.4), (None, 0.2))}))
    expected = np.where(UNSEEN, p[:, 1] - 0.2, p[:, 0] - 0.3 + p[:, 1] - 0.4)
    np.testing.assert_allclose(found, expit(expected), atol=1e-5)
    asked: list[int] = []

    def watched(items: Any, left: np.ndarray, *rest: Any, **more: Any) -> np.ndarray:
        asked.append(len(left))
        return score(items, left, *rest, **more)

    score = scorer.members[0].score
    monkeypatch.setattr(scorer.members[0], "score", watched)
    scorer.score(ITEMS, LEFT, RIGHT)
    assert asked == [(~UNSEEN).sum()]


def test_votes_weighted_by_f1(tmp_path: Path, members: list[Path], p: np.ndarray) -> None:
    threshold = float(np.median(p[:, 0]))
    fields: dict[str, Any] = {
        "thresholds": ((threshold, 0.5), (threshold, 0.5)), "f1": (0.8, 0.7),
        "calibration": {"method": "temperature", "scale": 3.0, "shift": 0.1},
    }  # fmt: skip
    _, found = scored(tmp_path / "e", members, method="f1_vote", **fields)
    votes = np.where(p >= [threshold, 0.5], [0.8, 0.7], [-0.8, -0.7]).sum(1)
    assert len(np.unique(votes)) > 1
    np.testing.assert_allclose(found, expit(3.0 * votes + 0.1), atol=1e-5)


def test_stacking(tmp_path: Path, members: list[Path], p: np.ndarray) -> None:
    stacking = {"weights": [1.5, 0.5], "centres": [0.2, -0.1], "bias": 0.3}
    _, found = scored(tmp_path / "e", members, method="stacking", stacking=stacking)
    expected = 1.5 * (logit(p[:, 0]) - 0.2) + 0.5 * (logit(p[:, 1]) + 0.1) + 0.3
    np.testing.assert_allclose(found, expit(expected), atol=1e-5)


def test_a_stop_leaves_pairs_without_probability(tmp_path: Path, members: list[Path]) -> None:
    scorer, _ = scored(tmp_path / "e", members, **MARGIN)
    assert np.isnan(scorer.score(ITEMS, LEFT, RIGHT, should_stop=lambda: True)).all()


def test_it_comes_through_the_importer_whole(tmp_path: Path, members: list[Path]) -> None:
    scorer, found = scored(tmp_path / "e", members, **MARGIN)
    assert scorer.card.kind == "pair_scorer"
    assert "members/1/card.json" in scorer.card.files
    assert scorer.arguments.specs[1] == "tiny:second"
    assert fetch(f"local-dir:{tmp_path / 'e'}", tmp_path / "copy") == scorer.card
    again = load_scorer(tmp_path / "copy", precision="float32")
    np.testing.assert_array_equal(again.score(ITEMS, LEFT, RIGHT), found)
    (tmp_path / "e" / "members" / "0" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"members/0/model.safetensors is not the file of the card"):
        fetch(f"local-dir:{tmp_path / 'e'}", tmp_path / "copy")
    with pytest.raises(JobError, match="cannot be read as safetensors"):
        load_scorer(tmp_path / "e")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (MARGIN | {"thresholds": ((0.3,), (0.5, 0.2))}, "a number for each"),
        ({"method": "threshold_margin"}, "a number for each"),
        ({"method": "f1_vote", "thresholds": ((0.3, 0.4), (0.5, 0.2))}, "a number for each"),
        ({"method": "stacking"}, "a number for each"),
        ({"method": "majority"}, "ensemble: method"),
    ],
)
def test_numbers_must_fit_the_members(members: list[Path], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ensemble_arguments(members, **fields)


def test_what_is_no_ensemble(tmp_path: Path, members: list[Path]) -> None:
    assert isinstance(load_scorer(members[0]), PairScorer)
    with pytest.raises(UserError, match="no ensemble"):
        EnsembleScorer(members[0])
    wanted = ensemble_arguments(members, **MARGIN)
    with pytest.raises(UserError, match="out of order"):
        save_ensemble(tmp_path / "e", members, wanted, name="e", thresholds=THRESHOLDS | {"same": 0.2})
    save_ensemble(tmp_path / "e", members, wanted, name="e", thresholds=THRESHOLDS)
    with pytest.raises(UserError, match="itself an ensemble"):
        save_ensemble(tmp_path / "f", [members[0], tmp_path / "e"], wanted, name="f", thresholds=THRESHOLDS)
    with pytest.raises(UserError, match="family ensemble"):
        PairScorer(tmp_path / "e")
    assert EnsembleArguments.model_validate(wanted.model_dump(mode="json")) == wanted
    shutil.rmtree(tmp_path / "e" / "members" / "1")
    with pytest.raises(UserError, match="holds no card"):
        load_scorer(tmp_path / "e")
