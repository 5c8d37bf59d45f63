"""Learning from items before pairs: all that the model is made of begins the fine-tuning, for every seed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from shopvision.errors import UserError
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.pretraining_items import pretraining_items
from shopvision.matching.fitting.train import MatcherReport, train_matcher
from shopvision.matching.scoring.predict import PairScorer
from shopvision.models.weights import read_tensors
from shopvision.training.config import load_config
from shopvision.training.run import TrainingRun
from tests.unit.matching.matcher_world import World, make_world

PAIRS = 36
QUESTIONS = {
    ("coca", "sum"): ({"contrastive", "caption"}, "caption_layers, words asked"),
    ("coca", "cross_attn"): ({"contrastive", "caption"}, " words asked"),
    ("k3m", "hard"): ({"title", "attributes", "picture", "link"}, "words, parts, relation, tail asked"),
    ("text_one_tower", ""): ({"words", "matching"}, " words asked"),
    ("text_two_tower", ""): ({"words", "matching"}, " words asked"),
}
UNASKED = {"k3m": ("head.", "regions.", "picture_layers.")}
MORE = {"epochs": 6, "valid": 0.3}  # for a few words of short texts


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), pairs=PAIRS)


def config(world: World, family: str = "coca", fusion: str = "sum", **changes: Any) -> MatcherConfig:
    """Of few steps; ``changes`` are fields of the sections' own names."""
    sections = world.sections(family, epochs=1, micro_batch=16)
    if fusion:
        option = "fusion" if family == "coca" else "interactive_fusion"
        sections["model"] |= {"text": world.text, "image": world.image, "grid": 2, option: fusion}
    sections["thresholds"] = {"cross_fit": 0}
    sections["pretraining"] = {"epochs": 2, "batch_size": 16, "lr": 3e-3, "lr_head": 3e-3}
    for name, fields in changes.items():
        sections[name] = sections.get(name, {}) | fields
    return MatcherConfig.model_validate(sections)


def train(wanted: MatcherConfig, output: Path, **options: Any) -> MatcherReport:
    report = train_matcher(wanted, TrainingRun(output=output, **options))
    assert report is not None
    return report


class Enough(Exception):  # noqa: N818 - not an error
    """Ends a training once what is to be seen was seen."""


@pytest.mark.parametrize(("family", "fusion"), QUESTIONS)
def test_nothing_learnt_of_items_is_lost(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, fusion: str
) -> None:
    begun: list[tuple[dict[str, Tensor], set[str]]] = []

    def look(beginning: Any, *_: object, **__: object) -> SimpleNamespace:
        state = {name: tensor.clone() for name, tensor in beginning.model.network.state_dict().items()}
        learns = {name for name, weight in beginning.model.network.named_parameters() if weight.requires_grad}
        begun.append((state, learns))
        if len(begun) == 2:
            raise Enough
        return SimpleNamespace(metrics={"f1": 0.0, "roc_auc": 0.5})

    monkeypatch.setattr("shopvision.matching.fitting.seeds.teach", look)
    with pytest.raises(Enough):
        train(config(world, family, fusion, train={"seeds": 2}, pretraining={} if fusion else MORE), tmp_path)
    learnt = read_tensors(tmp_path / "pretraining/checkpoints/best.safetensors")
    own = {name.removeprefix("network."): tensor for name, tensor in learnt.items() if name.startswith("network.")}
    (first, learns), (second, _) = begun
    for name, tensor in own.items():
        assert torch.equal(first[name], tensor), name
        assert torch.equal(second[name], tensor), name
    # All that fine-tuning learns was learnt before, but for what no question is to reach, which learns now.
    assert {name for name in learns if not name.startswith(UNASKED.get(family, "head."))} == own.keys()
    assert all(any(name.startswith(part) for name in learns) for part in UNASKED.get(family, ()))
    lines = [json.loads(line) for line in (tmp_path / "pretraining/metrics.jsonl").read_text().splitlines()]
    names, _ = QUESTIONS[family, fusion]
    assert {f"loss_{name}" for name in names} <= lines[-1].keys()
    valid = [line["loss"] for line in lines if line["split"] == "valid"]
    assert valid[-1] < valid[0]


def test_a_family_learns_from_items_then_from_pairs_and_scores(world: World, tmp_path: Path) -> None:
    report = train(config(world, "k3m", "soft", train={"epochs": 6}), tmp_path / "run")
    assert report.metrics["roc_auc"] > 0.7  # chance has 0.5
    told = QUESTIONS["k3m", "hard"][1]
    assert any("Learnt from 72 items before" in note and told in note for note in report.notes)
    assert not (tmp_path / "run/pretraining/checkpoints").exists()
    assert PairScorer(report.folder, device="cpu").vector_dimension == 16


def test_a_run_that_was_interrupted_while_it_learnt_from_items_ends_with_the_same_bytes(
    world: World, tmp_path: Path
) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "pretraining" and done > total // 2:
            raise KeyboardInterrupt

    wanted = config(world)
    straight = train(wanted, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(wanted, tmp_path / "resumed", on_stage=stop)
    torch.manual_seed(99)
    resumed = train(wanted, tmp_path / "resumed", resume=True)
    assert resumed.card == straight.card  # the card holds the sha256 of the weights


def test_items_that_cannot_be_learnt_from(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"72 items, of which 0.1 are held out, for batches of 500: give more items"):
        train(config(world, pretraining={"batch_size": 500}), tmp_path / "run")
    file = tmp_path / "m.toml"
    file.write_text('[data]\npairs = "p.csv"\n[model]\nfamily = "text_cnn"\n[pretraining]\nepochs = 1\n')
    able = "coca, k3m, text_one_tower, text_two_tower"
    with pytest.raises(UserError, match=rf"text_cnn does not learn from items alone: .* use one of {able}\."):
        load_config(file, MatcherConfig)


def test_items_come_from_a_file_of_their_own_or_that_of_the_pairs(world: World, tmp_path: Path) -> None:
    lines = Path(world.items).read_text().splitlines()
    (tmp_path / "others.jsonl").write_text("\n".join(lines[:7]) + "\n")
    of_pairs = config(world)
    of_file = config(world, pretraining={"items": str(tmp_path / "others.jsonl")})
    assert len(pretraining_items(of_pairs, {})) == 2 * PAIRS
    assert [item.item_id for item in pretraining_items(of_file, {})] == [
        json.loads(line)["item_id"] for line in lines[:7]
    ]
    assert tmp_path in of_file.picture_folders
