"""Cross-fitting a tiny model, and other promises from the evidence that its version keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shopvision.errors import JobError, UserError
from shopvision.evaluation.promises import Promise
from shopvision.matching.families.card import load_matcher, read_card
from shopvision.matching.fitting import cross_fit
from shopvision.matching.fitting.config import MatcherConfig, ThresholdsConfig
from shopvision.matching.fitting.cross_fit import plan_folds
from shopvision.matching.fitting.evidence_file import EVIDENCE_FILE, choose_again, read_evidence
from shopvision.matching.fitting.labelled_pairs import read_splits
from shopvision.matching.fitting.train import MatcherReport, train_matcher
from shopvision.models.version_folder import wrong_file
from shopvision.training.run import TrainingRun
from tests.unit.matching.matcher_world import World, make_world
from tests.unit.matching.tiny_matcher import COSINE, arguments, save_tiny

ASKED = {"precision": 0.8, "missed": 0.2, "confidence": 0.8, "cross_fit": 2}


@pytest.fixture(name="world", scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def config_of(world: World, family: str, epochs: int = 1, **asked: Any) -> MatcherConfig:
    sections = world.sections(family, epochs=epochs)
    return MatcherConfig.model_validate(sections | {"thresholds": ASKED | asked})


def train(config: MatcherConfig, output: Path, **options: Any) -> MatcherReport:
    report = train_matcher(config, TrainingRun(output=output, **options))
    assert report is not None
    return report


@pytest.mark.parametrize("family", ["text_two_tower", "image_two_tower"])
def test_folds_share_no_item_and_their_pairs_tell_what_validation_cannot(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    seen: list[tuple[set[str], set[str]]] = []
    teach, make_inputs = cross_fit.teach, cross_fit.make_inputs

    def watched_teach(*given: Any, **named: Any) -> Any:
        seen.append(({item.item_id for item in named["splits"]["train"].used_items()}, set()))
        return teach(*given, **named)

    def watched_inputs(model: Any, table: Any, pictures: Any) -> Any:
        seen[-1][1].update(item.item_id for item in table.used_items())
        return make_inputs(model, table, pictures)

    monkeypatch.setattr(cross_fit, "teach", watched_teach)
    monkeypatch.setattr(cross_fit, "make_inputs", watched_inputs)
    stages = []
    report = train(config_of(world, family, epochs=2), tmp_path / "run", on_stage=lambda *stage: stages.append(stage))
    splits = read_splits(config_of(world, family))
    assert len(seen) == 2
    for learnt, held_out in seen:
        assert learnt
        assert held_out
        assert not learnt & held_out
    assert set.union(*(held_out for _, held_out in seen)) == {item.item_id for item in splits["train"].used_items()}

    promises = report.card.promises
    assert promises is not None
    assert promises.evidence.validation == len(splits["valid"])
    assert promises.evidence.cross_fitted == len(splits["train"])
    evidence = read_evidence(report.folder)
    assert evidence.counts() == promises.evidence
    assert promises.asked == Promise(precision=0.8, missed=0.2, confidence=0.8)
    assert not (tmp_path / "run" / cross_fit.FOLDER).exists()
    done = [stage[1:] for stage in stages if stage[0] == "cross-fitting 2 of 2"]
    assert done[-1][0] == done[-1][1] > 0
    assert [note for note in report.notes if "another seed may make another model" not in note] == []
    assert report.card.thresholds["same"] < 1


def test_who_is_interrupted_while_cross_fitting_goes_on_there(world: World, tmp_path: Path) -> None:
    def stop(stage: str, *_: int) -> None:
        if stage == "cross-fitting 2 of 2":
            raise KeyboardInterrupt

    config = config_of(world, "text_two_tower")
    straight = train(config, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "resumed", on_stage=stop)
    stages: list[str] = []
    resumed = train(config, tmp_path / "resumed", resume=True, on_stage=lambda *stage: stages.append(stage[0]))
    assert resumed.card == straight.card  # with the sha256 of the evidence
    assert set(stages) == {"cross-fitting 2 of 2"}


def test_who_resumes_may_ask_for_another_promise(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise JobError("The loss is nan in epoch 1, step 2: lower the learning rates.")

    straight = train(config_of(world, "text_two_tower", cross_fit=0), tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr(cross_fit, "teach", fail)
        with pytest.raises(JobError, match=r"^In cross-fitting 1 of 2: The loss is nan.*--resume with cross_fit = 0"):
            train(config_of(world, "text_two_tower"), tmp_path / "resumed")
    resumed = train(config_of(world, "text_two_tower", cross_fit=0), tmp_path / "resumed", resume=True)
    assert resumed.card == straight.card
    assert not (tmp_path / "resumed" / cross_fit.FOLDER).exists()


def test_without_cross_fitting_validation_tells_alone(world: World, tmp_path: Path) -> None:
    report = train(config_of(world, "text_two_tower", cross_fit=0), tmp_path / "run")
    assert report.card.promises is not None
    assert report.card.promises.evidence.cross_fitted == 0


def test_cross_fitting_happens_where_it_is_needed_and_can_help(world: World) -> None:
    splits = read_splits(world.config())
    train, valid = splits["train"], splits["valid"]
    same = int((valid.labels == 1).sum())
    assert same == 20

    def folds(**asked: float) -> int:
        return len(plan_folds(ThresholdsConfig.model_validate(asked), train, valid, 1))

    assert folds(precision=0.8, confidence=0.8) == 3
    assert folds(precision=0.8, confidence=0.8, cross_fit=0) == 0
    assert folds(precision=0.95) == 0  # takes 66 pairs of the same item, and there are 50
    assert folds(precision=0.55, confidence=0.51) == 0  # takes 2, and validation has ten times as many
    few = train.select(np.flatnonzero(train.left == train.left[0]))
    with pytest.raises(UserError, match="pairs cannot be dealt out to 3 folds"):
        plan_folds(ThresholdsConfig(precision=0.8, confidence=0.8), few, valid, 1)


def test_a_fold_that_cannot_learn_costs_the_evidence_and_not_the_model(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UserError("too few pairs: give more.")

    monkeypatch.setattr(cross_fit, "teach", fail)
    report = train(config_of(world, "text_two_tower"), tmp_path / "run")
    assert report.notes[0] == "Cross-fitting was left out: too few pairs: give more."
    assert not (tmp_path / "run" / cross_fit.FOLDER).exists()
    assert report.card.promises is not None
    assert report.card.promises.evidence.cross_fitted == 0


def test_another_promise_makes_another_version_of_the_same_model(world: World, tmp_path: Path) -> None:
    report = train(config_of(world, "text_two_tower"), tmp_path / "run")
    before = (report.folder / "card.json").read_bytes()
    promise = Promise(precision=0.6, confidence=0.6)
    card = choose_again(report.folder, tmp_path / "again", promise, tag="again")
    assert card.spec == "tiny:again"
    assert card.promises is not None
    assert card.promises.asked == promise
    assert card.thresholds["same"] <= report.card.thresholds["same"]
    assert (card.files, card.metrics, card.architecture) == (
        report.card.files, report.card.metrics, report.card.architecture,
    )  # fmt: skip
    assert wrong_file(tmp_path / "again", card) is None
    assert load_matcher(tmp_path / "again").card == card == read_card(tmp_path / "again")
    assert (report.folder / "card.json").read_bytes() == before
    same = choose_again(report.folder, tmp_path / "same", report.card.promises.asked)  # type: ignore[union-attr]
    assert same == report.card

    (tmp_path / "again" / EVIDENCE_FILE).write_bytes(b"PAR1")
    with pytest.raises(JobError, match=r"evidence\.parquet is damaged"):
        read_evidence(tmp_path / "again")


def test_a_version_without_evidence_says_so(tmp_path: Path) -> None:
    card = save_tiny(tmp_path / "model", arguments("text_two_tower", COSINE))
    assert "promises" not in card.model_dump(mode="json")
    with pytest.raises(UserError, match=rf"{card.spec} keeps no evidence\.parquet, so its thresholds cannot"):
        choose_again(tmp_path / "model", tmp_path / "again", Promise())
