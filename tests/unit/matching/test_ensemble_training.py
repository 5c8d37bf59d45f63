"""One configuration that trains members and their ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shopvision.errors import UserError
from shopvision.matching.fitting.ensemble_config import EnsembleConfig, EnsembleSection
from shopvision.matching.fitting.ensemble_train import train_ensemble
from shopvision.matching.fitting.labelled_pairs import read_splits
from shopvision.matching.scoring.ensemble import load_scorer
from shopvision.training.config import load_config
from shopvision.training.run import TrainingRun
from tests.unit.matching.matcher_world import World, make_world

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "ensemble.toml"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), pairs=60)


def sections(world: World, *members: dict[str, Any]) -> dict[str, Any]:
    common = world.sections("text_two_tower", epochs=2)
    return {
        "data": common["data"], "text": common["text"], "train": common["train"], "ensemble": {"name": "both"},
        "members": [
            {"name": "words", "model": {"family": "text_two_tower", "text": world.text}},
            {"name": "pictures", "model": {"family": "image_two_tower", "image": world.image}, "train": {"epochs": 1}},
            *members,
        ],
    }  # fmt: skip


def test_members_are_trained_and_weighed_and_a_run_goes_on_where_it_stopped(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(stage: str, *_: int) -> None:
        if stage.startswith("pictures: epochs"):
            raise KeyboardInterrupt

    config = EnsembleConfig.model_validate(sections(world))
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(config, TrainingRun(output=tmp_path, on_stage=stop))
    with pytest.raises(UserError, match="holds a run: continue it with --resume"):
        train_ensemble(config, TrainingRun(output=tmp_path))
    before = (tmp_path / "members/words/model/model.safetensors").stat()
    stages: set[str] = set()
    run = TrainingRun(output=tmp_path, resume=True, on_stage=lambda stage, *_: stages.add(stage))
    report = train_ensemble(config, run)
    assert report is not None
    assert (tmp_path / "members/words/model/model.safetensors").stat() == before  # it was finished
    assert not any(stage.startswith("words") for stage in stages)
    assert {"pictures: epochs", "weighing members"} <= stages
    assert report.members.names == ("words", "pictures")
    assert not any("was not shown" in note for note in report.notes)  # which is said of verdicts
    assert all(report.members.alone)
    assert (tmp_path / "members.png").stat().st_size > 5_000
    assert report.card.name == "both"

    valid = read_splits(config.of_members()["words"])["valid"]
    assert report.pairs["valid"] == len(valid)
    scorer = load_scorer(tmp_path / "model", device="cpu")
    assert (scorer.needs_text, scorer.needs_picture) == (True, True)
    with pytest.raises(UserError, match="holds a finished ensemble"):
        train_ensemble(config, run)
    (tmp_path / "model").rename(tmp_path / "first")
    other = EnsembleConfig.model_validate(sections(world) | {"text": {"max_length": 20}})
    with pytest.raises(UserError, match=r"The member 'words' in .* was trained otherwise: name another --output"):
        train_ensemble(other, run)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"name": "words"}, "two members are called 'words'"),
        ({"name": "third", "train": {"seed": 3}}, "the member 'third' has a seed of its own"),
        ({"name": "third", "train": {"lrr": 1}}, r"member 'third': train\.lrr: Extra inputs"),
        ({"name": "third", "model": {"grid": 3}}, "member 'third': model.grid is unknown to the family text_one_tower"),
        (
            {"name": "third", "model": {"family": "text_cnn"}, "pretraining": {}},
            "member 'third': The family text_cnn does not learn from items",
        ),
        (
            {"name": "third", "model": {"family": "text_cnn"}, "contrastive": {}},
            "member 'third': The family text_cnn makes no vectors of texts",
        ),
        ({"name": "third", "text": {}, "model": {"family": "image_two_tower"}}, None),
        ({"name": "third", "model": {"family": "text_fields_one_tower"}}, None),
        (
            {"name": "third", "text": {"max_length": 9}, "model": {"family": "text_fields_one_tower"}},
            r"member 'third': text\.max_length means nothing to the family text_fields_one_tower: remove it; give each",
        ),
        ({"name": "third", "model": {"family": "agreement"}}, None),
    ],
)
def test_members_that_cannot_be(world: World, member: dict[str, Any], message: str | None) -> None:
    if message is None:
        EnsembleConfig.model_validate(sections(world, member))
        return
    with pytest.raises((UserError, ValueError), match=message):
        EnsembleConfig.model_validate(sections(world, member))


def test_thresholds_that_stacking_does_not_have_are_refused_before_anything_is_trained(world: World) -> None:
    """It is the usual method, so who asks for unseen categories alone would get nothing of it."""
    apart = sections(world) | {"ensemble": {"unseen_apart": True}}
    with pytest.raises(UserError, match="take the method threshold_margin or f1_vote, or do without"):
        EnsembleConfig.model_validate(apart)
    EnsembleConfig.model_validate(apart | {"ensemble": {"unseen_apart": True, "method": "f1_vote"}})


def test_a_member_that_cannot_begin_is_told_before_another_is_trained(world: World, tmp_path: Path) -> None:
    third = {"name": "third", "model": {"family": "text_cnn", "text": str(tmp_path / "nowhere")}}
    config = EnsembleConfig.model_validate(sections(world, third))
    with pytest.raises(UserError, match=r"Member 'third': .*nowhere"):
        train_ensemble(config, TrainingRun(output=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_example_file_shows_every_field_and_trains_eight_members() -> None:
    config = load_config(EXAMPLE, EnsembleConfig)
    assert len(config.of_members()) >= 8
    shown = {line.lstrip("# ").split(" = ")[0] for line in EXAMPLE.read_text().splitlines() if " = " in line}
    assert {*EnsembleSection.model_fields, "text", "train", "model", "pretraining"} <= shown
