"""Learning from a teacher's probabilities, of labelled pairs and of pairs that nobody labelled."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.items.pair_table import PairTable
from shopvision.matching.families.losses import distillation_loss
from shopvision.matching.fitting import distillation
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.distillation import TaughtPairs, ask_teacher
from shopvision.matching.fitting.distillation_config import DistillationConfig
from shopvision.matching.fitting.ensemble_fit import fit_ensemble
from shopvision.matching.fitting.labelled_pairs import read_splits
from shopvision.matching.fitting.train import MatcherReport, train_matcher
from shopvision.matching.scoring.predict import PairScorer
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.precision import MixedPrecision
from shopvision.training.run import TrainingProgress, TrainingRun
from tests.unit.matching.matcher_world import World, make_world
from tests.unit.matching.test_matcher_training import learner_of
from tests.unit.matching.tiny_matcher import COSINE, ONE, arguments, save_tiny

PAIRS = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), pairs=PAIRS)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    save_tiny(folder, arguments("text_two_tower", COSINE))
    return folder


def config(world: World, teacher: Path | str, family: str = "text_one_tower", **changes: Any) -> MatcherConfig:
    sections = world.sections(family, epochs=1)
    sections["distillation"] = {"teacher": str(teacher)}
    for name, fields in changes.items():
        sections[name] = sections.get(name, {}) | fields
    return MatcherConfig.model_validate(sections)


def train(wanted: MatcherConfig, output: Path) -> MatcherReport:
    report = train_matcher(wanted, TrainingRun(output=output))
    assert report is not None
    return report


def ask(wanted: MatcherConfig) -> TaughtPairs:
    assert wanted.distillation is not None
    return ask_teacher(wanted.distillation, read_splits(wanted), Process(), None)


def test_the_loss_by_hand() -> None:
    """log-odds 1, a teacher's 2, temperature 2: 4 * (softplus(0.5) - 0.5 * 0.731059)."""
    found = distillation_loss(torch.tensor([1.0]), torch.tensor([2.0]), 2.0)
    assert float(found) == pytest.approx(4 * (math.log1p(math.exp(0.5)) - 0.5 / (1 + math.exp(-1))))
    assert float(found) == pytest.approx(2.434190, abs=1e-5)
    # At temperature 1 it is the cross entropy with a label between 0 and 1.
    half = distillation_loss(torch.tensor([0.3, -2.0]), torch.tensor([0.0, 0.0]), 1.0)
    expected = [math.log1p(math.exp(z)) - z / 2 for z in (0.3, -2.0)]
    assert float(half) == pytest.approx(sum(expected) / 2, abs=1e-6)


@pytest.mark.parametrize(("family", "positive_weight"), [("text_one_tower", 1.0), ("text_two_tower", 3.0)])
def test_labels_and_teacher_share_the_gradient_and_unlabelled_pairs_have_the_teacher_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, positive_weight: float
) -> None:
    def answer(*_: object) -> TaughtPairs:
        table = read_splits(wanted)["train"]
        labels = table.labels.copy()
        labels[::3] = -1
        said = np.linspace(-3, 3, len(table)).astype(np.float32)
        return TaughtPairs(table.items, table.left, table.right, labels, said)

    wanted = config(
        world, "teacher", family, distillation={"weight": 0.3, "temperature": 2.0},
        model={"dropout": 0.0}, train={"positive_weight": positive_weight, "micro_batch": 5},
    )  # fmt: skip
    monkeypatch.setattr("shopvision.matching.fitting.train.ask_teacher", answer)
    monkeypatch.setattr("shopvision.matching.fitting.train.teacher_version", lambda _: "teacher:1")
    learner = learner_of(wanted, tmp_path, monkeypatch)
    share = next(share for share in learner.batches(1) if {-1.0, 0.0, 1.0} == set(share.labels.tolist()))
    told = learner.gradients(share, MixedPrecision("float32", torch.device("cpu")))["loss"]
    network = learner.network
    found = {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}
    network.zero_grad()
    if family == "text_one_tower":
        logits = network(share.batch)
    else:
        vectors = network.encode(share.items)
        logits = network.pair_logits(vectors[share.left], vectors[share.right])
    losses = []
    for z, y, t in zip(logits.double(), share.labels.tolist(), share.teacher.double(), strict=True):
        soft = 4 * (torch.log1p((z / 2).exp()) - z / 2 * torch.sigmoid(t / 2))
        hard = torch.log1p(z.exp()) - z * y
        losses.append(0.3 * soft + (0.7 * (positive_weight if y == 1 else 1) * hard if y >= 0 else 0))
    loss = torch.stack(losses).mean()
    loss.backward()
    assert float(told) == pytest.approx(float(loss.detach()), abs=1e-5)
    for name, gradient in found.items():
        torch.testing.assert_close(network.get_parameter(name).grad, gradient, rtol=1e-3, atol=1e-5)


def test_a_run_is_not_continued_with_another_teacher_in_the_same_folder(world: World, tmp_path: Path) -> None:
    def stop(progress: TrainingProgress) -> None:
        if progress.epoch == 2:
            raise KeyboardInterrupt

    save_tiny(tmp_path / "teacher", arguments("text_two_tower", COSINE))
    wanted = config(world, tmp_path / "teacher", train={"epochs": 2})
    with pytest.raises(KeyboardInterrupt):
        train_matcher(wanted, TrainingRun(output=tmp_path / "run", on_progress=stop))
    shutil.rmtree(tmp_path / "teacher")
    save_tiny(tmp_path / "teacher", arguments("text_two_tower", COSINE), seed=4)
    with pytest.raises(UserError, match="--resume: teacher differs from the interrupted run"):
        train_matcher(wanted, TrainingRun(output=tmp_path / "run", resume=True))


def test_an_ensemble_teaches_one_model_of_pairs_without_labels_as_well(
    world: World, teacher: Path, tmp_path: Path
) -> None:
    save_tiny(tmp_path / "other", arguments("text_one_tower", ONE), seed=3)
    valid = read_splits(world.config())["valid"]
    fit_ensemble(tmp_path / "ensemble", [teacher, tmp_path / "other"], valid, method="stacking")
    wanted = config(world, tmp_path / "ensemble", distillation={"candidates": 3, "weight": 1.0})
    report = train(wanted, tmp_path / "run")
    asked = ask(wanted)
    assert f"was asked about {len(asked):,} pairs" in report.notes[0]
    assert report.pairs["train"] == len(read_splits(wanted)["train"]) < len(asked)
    assert report.card.promises is not None
    assert report.card.promises.evidence.cross_fitted == 0
    scorer = PairScorer(report.folder, device="cpu")
    probabilities = scorer.score(valid.items, valid.left, valid.right)
    assert np.isfinite(probabilities).all()


def test_the_teacher_is_asked_about_labelled_pairs_first_and_never_about_those_of_validation(
    world: World, teacher: Path
) -> None:
    wanted = config(world, teacher, distillation={"candidates": 5})
    splits = read_splits(wanted)
    asked, train_pairs = ask(wanted), splits["train"]
    count = len(train_pairs)
    assert (asked.labels[:count] == train_pairs.labels).all()
    assert (asked.labels[count:] == -1).all()
    assert len(asked) > count
    assert np.array_equal(asked.item_rows(), train_pairs.item_rows())
    pairs = {
        name: {
            frozenset((table.items[a].item_id, table.items[b].item_id))
            for a, b in zip(table.left.tolist(), table.right.tolist(), strict=True)
        }
        for name, table in {**splits, "further": asked.select(np.arange(count, len(asked)))}.items()
    }
    assert pairs["further"].isdisjoint(pairs["train"] | pairs["valid"])
    assert len(pairs["further"]) == len(asked) - count
    probabilities = PairScorer(teacher, device="cpu").score(asked.items, asked.left, asked.right)
    np.testing.assert_allclose(1 / (1 + np.exp(-asked.teacher)), probabilities, atol=1e-4)
    some = asked.select(np.array([3, 1]))
    assert (some.teacher == asked.teacher[[3, 1]]).all()


def test_a_sure_teacher_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = np.array([[0, 0], [1, 1]], np.int32)
    table = PairTable((Item("a", "x"), Item("b", "y")), *sides, np.ones(2, np.int8))
    monkeypatch.setattr(distillation, "load_scorer", lambda *_, **__: None)
    monkeypatch.setattr(distillation, "teacher_folder", Path)
    monkeypatch.setattr(distillation, "score_readable", lambda *_: (np.ones(2, bool), np.array([0.0, 1.0])))
    said = ask_teacher(DistillationConfig(teacher="t"), {"train": table}, Process(), None).teacher
    np.testing.assert_allclose(said, [-13.8155, 13.8155], atol=1e-3)


def test_teachers_that_cannot_be_asked(world: World, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"distillation\.teacher: no/such is no folder: name that of a model version"):
        ask(config(world, "no/such"))
    table = read_splits(config(world, teacher))["train"].compact()
    number = table.items[table.left[4]].item_id[1:]
    items = tuple(Item(item.item_id) if item.item_id == f"a{number}" else item for item in table.items)
    with pytest.raises(UserError, match=rf"cannot read the training pair 'a{number}' and 'b{number}': leave it out"):
        ask_teacher(DistillationConfig(teacher=str(teacher)), {"train": replace(table, items=items)}, Process(), None)
    file = tmp_path / "m.toml"
    file.write_text(
        '[data]\npairs = "p.csv"\n[model]\nfamily = "text_two_tower"\nloss = "mnr"\n[distillation]\nteacher = "e:1"\n'
    )
    with pytest.raises(UserError, match="The loss mnr knows no probabilities that a teacher could correct"):
        load_config(file, MatcherConfig)
