"""An ensemble as a model version: its folder, through the registry's importer, and its numbers by hand."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit, logit

from shopvision.errors import ItemError, JobError, UserError
from shopvision.images import PictureDoor, allow_image_root
from shopvision.items.item import Item
from shopvision.items.pair_table import PairTable
from shopvision.matching.fitting.evaluate import score_readable
from shopvision.matching.scoring.ensemble import EnsembleScorer, load_scorer
from shopvision.matching.scoring.ensemble_card import EnsembleArguments, ensemble_arguments, save_ensemble
from shopvision.matching.scoring.predict import PairScorer
from shopvision.matching.scoring.score_file import NOTHING_IN_COMMON, score_table
from shopvision.models.importers import fetch
from shopvision.settings import get_settings
from tests.unit.matching.tiny_matcher import (
    COSINE,
    ONE,
    PREPROCESSING,
    THRESHOLDS,
    arguments,
    save_model,
    save_tiny,
    tiny_model,
)

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


# Members that read different things.


@pytest.fixture(name="mixed", scope="module")
def _mixed(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Text; text and picture; picture, prepared in another way."""
    folder = tmp_path_factory.mktemp("mixed")
    save_tiny(folder / "text", arguments("text_two_tower", COSINE))
    save_tiny(folder / "both", arguments("text_image_one_tower", ONE), seed=2, tag="2")
    model = tiny_model(arguments("image_two_tower", COSINE), seed=3)
    larger = PREPROCESSING.model_copy(update={"size": (48, 48)})
    save_model(folder / "picture", replace(model, parts=replace(model.parts, preprocessing=larger)), tag="3")
    return [folder / "text", folder / "both", folder / "picture"]


@pytest.fixture(name="shown")
def _shown(tmp_path: Path) -> list[Item]:
    """An item with both, with a text, with a picture, and again with both."""
    allow_image_root(get_settings(), tmp_path)
    noise = np.random.default_rng(0)
    uris = []
    for name in "acd":
        Image.fromarray(noise.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / f"{name}.png")
        uris.append((tmp_path / f"{name}.png").as_uri())
    return [
        Item("a", title="red shoe", picture=uris[0]), Item("b", title="red nike shoe"), Item("c", picture=uris[1]),
        Item("d", title="blue band", picture=uris[2]),
    ]  # fmt: skip


PAIRS = [("a", "d", {0, 1, 2}), ("a", "b", {0, 1}), ("a", "c", {1, 2}), ("b", "d", {0, 1}), ("c", "d", {1, 2})]


@pytest.mark.parametrize("method", ["threshold_margin", "stacking"])
def test_an_item_is_scored_by_the_members_that_can_read_it(
    tmp_path: Path, mixed: list[Path], shown: list[Item], method: str
) -> None:
    weights: dict[str, Any] = {"weights": [1.0, 2.0, 3.0], "centres": [0.1, 0.2, 0.3], "bias": -0.5}
    weights["partial"] = [{"models": [0, 1], "weights": [5.0, 6.0], "bias": 0.7}]
    fields: dict[str, Any] = {"stacking": weights}
    if method == "threshold_margin":
        fields = {"thresholds": ((0.3, 0.4, 0.2), (0.5, 0.2, 0.1))}
    save_ensemble(tmp_path / "e", mixed, ensemble_arguments(mixed, method, **fields), name="e", thresholds=THRESHOLDS)
    scorer = load_scorer(tmp_path / "e", precision="float32")
    for item in shown:
        scorer.check(item)
    by_id = {item.item_id: item for item in shown}
    members = [PairScorer(folder, precision="float32") for folder in mixed]
    found = [pair.probability for pair in scorer([(by_id[a], by_id[b]) for a, b, _ in PAIRS])]
    for probability, (a, b, readers) in zip(found, PAIRS, strict=True):
        p = np.array([
            member([(by_id[a], by_id[b])])[0].probability if number in readers else np.nan
            for number, member in enumerate(members)
        ])  # fmt: skip
        if method == "threshold_margin":
            margin = np.nansum(p - [0.3, 0.4, 0.2])
        elif readers == {0, 1}:
            margin = 5 * (logit(p[0]) - 0.1) + 6 * (logit(p[1]) - 0.2) + 0.7
        else:
            margin = np.nansum([1.0, 2.0, 3.0] * (logit(p) - [0.1, 0.2, 0.3])) - 0.5
        assert probability == pytest.approx(expit(margin), abs=1e-4)


def test_what_no_member_can_read(tmp_path: Path, mixed: list[Path], shown: list[Item]) -> None:
    wanted = ensemble_arguments(
        [mixed[0], mixed[2]], "threshold_margin", thresholds=((0.5, 0.5), (0.5, 0.5))
    )  # fmt: skip
    save_ensemble(tmp_path / "e", [mixed[0], mixed[2]], wanted, name="e", thresholds=THRESHOLDS)
    scorer = load_scorer(tmp_path / "e", precision="float32")
    with pytest.raises(ItemError, match="Item 'x' has no words that the model reads") as error:
        scorer.check(Item("x", category="shoes"))
    assert error.value.code == "no_text"
    left, right = np.array([0, 1]), np.array([3, 2])  # a text alone and a picture alone have nothing in common
    assert scorer.readable_pairs(shown, left, right).tolist() == [True, False]
    table = PairTable(tuple(shown), left.astype(np.int32), right.astype(np.int32), np.array([1, 0], np.int8))
    refused: list[ItemError] = []
    [(done, rows)] = score_table(scorer, table, refused.append)
    assert (done, [row[:2] for row in rows]) == (2, [("a", "d")])
    assert [(one.code, one.message) for one in refused] == [
        ("nothing_in_common", f"pair 'b', 'c': {NOTHING_IN_COMMON}"),
    ]  # fmt: skip
    kept, probabilities = score_readable(scorer, table, PictureDoor(get_settings()))
    assert (kept.tolist(), len(probabilities)) == ([True, False], 1)
