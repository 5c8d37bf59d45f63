"""The stage in which offers of one product come to attract each other."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shopvision.errors import UserError
from shopvision.matching.families.pair_model import begin_training
from shopvision.matching.fitting import cross_fit
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.contrastive_learner import ContrastiveLearner
from shopvision.matching.fitting.labelled_pairs import read_splits
from shopvision.matching.fitting.train import MatcherReport, train_matcher
from shopvision.matching.scoring.predict import PairScorer
from shopvision.models.weights import read_tensors
from shopvision.training.config import load_config
from shopvision.training.contrastive import supervised_contrastive_loss
from shopvision.training.distributed import Process
from shopvision.training.run import TrainingRun
from tests.unit.matching.matcher_world import World, make_world

PAIRS = 36


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), pairs=PAIRS)


def config(world: World, family: str = "text_two_tower", **changes: Any) -> MatcherConfig:
    """Of few steps; ``changes`` are fields of the sections' own names."""
    sections = world.sections(family, epochs=1)
    sections["thresholds"] = {"cross_fit": 0}
    sections["contrastive"] = {"epochs": 2, "batch_size": 16, "lr": 3e-3, "seed": 3}
    for name, fields in changes.items():
        sections[name] = sections.get(name, {}) | fields
    return MatcherConfig.model_validate(sections)


def train(wanted: MatcherConfig, output: Path, **options: Any) -> MatcherReport:
    report = train_matcher(wanted, TrainingRun(output=output, **options))
    assert report is not None
    return report


def test_the_loss_by_hand() -> None:
    """Two offers of one product, one of another, and one of which the second alone is known to differ."""
    vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    products = torch.tensor([0, 0, 1, 2])
    repel = torch.tensor([[0, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 0]], dtype=torch.bool)
    first = math.log(math.exp(1.2) + math.exp(0.0)) - 1.2
    second = math.log(math.exp(1.2) + math.exp(1.6) + math.exp(-1.2)) - 1.2
    found = supervised_contrastive_loss(vectors, products, repel, 0.5)
    assert float(found) == pytest.approx((first + second) / 2)
    alone = supervised_contrastive_loss(vectors.requires_grad_(), torch.arange(4), repel, 0.5)
    assert float(alone.detach()) == 0.0
    alone.backward()  # a step without partners must not stop a training


def test_of_three_offers_of_a_product_the_mean_is_outside_the_logarithm() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(4, 5, generator=torch.manual_seed(1)), dim=1).double()
    products = torch.tensor([0, 0, 0, 1])
    repel = products[:, None] != products
    scores = (vectors @ vectors.T / 0.1).numpy()
    expected = []
    for anchor in range(3):
        others = [place for place in range(4) if place != anchor]
        total = np.log(sum(np.exp(scores[anchor, other]) for other in others))
        expected.append(-np.mean([scores[anchor, other] - total for other in others if other < 3]))
    assert float(supervised_contrastive_loss(vectors, products, repel, 0.1)) == pytest.approx(np.mean(expected))


class Enough(Exception):  # noqa: N818 - not an error
    """Ends a training once what is to be seen was seen."""


@pytest.mark.parametrize(
    ("family", "learnt"), [("text_one_tower", {"text"}), ("text_two_tower", {"text", "projection"})]
)
def test_what_was_learnt_begins_the_pairs_for_every_seed(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, learnt: set[str]
) -> None:
    begun: list[dict[str, Tensor]] = []

    def look(beginning: Any, *_: object, **__: object) -> SimpleNamespace:
        network = beginning.model.network
        assert all(weight.requires_grad for weight in network.parameters())
        begun.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        if len(begun) == 2:
            raise Enough
        return SimpleNamespace(metrics={"f1": 0.0, "roc_auc": 0.5})

    monkeypatch.setattr("shopvision.matching.fitting.seeds.teach", look)
    model = {"projection": 6} if family == "text_two_tower" else {}
    with pytest.raises(Enough):
        train(config(world, family, model=model, train={"seeds": 2}), tmp_path)
    best = read_tensors(tmp_path / "contrastive/checkpoints/best.safetensors")
    assert {name.partition(".")[0] for name in best} == learnt
    for state in begun:
        for name, tensor in best.items():
            assert torch.equal(state[name], tensor), name


def test_vectors_tell_products_apart_before_any_pair_was_learnt_from(world: World, tmp_path: Path) -> None:
    report = train(config(world, contrastive={"epochs": 4}, train={"lr": 1e-12, "lr_head": 1e-12}), tmp_path / "run")
    assert report.metrics["average_precision"] > 0.9  # untaught it has 0.6
    (told,) = (note for note in report.notes if "together before" in note)
    valid = [json.loads(line) for line in (tmp_path / "run/contrastive/metrics.jsonl").read_text().splitlines()]
    best = max(line["average_precision"] for line in valid if line["split"] == "valid")
    assert f"validation pairs have average precision {best:.3f} after epoch" in told
    assert report.metrics["average_precision"] == pytest.approx(best, abs=1e-6)
    assert not (tmp_path / "run/contrastive/checkpoints").exists()
    scorer = PairScorer(report.folder, device="cpu")
    table = read_splits(config(world))["valid"].compact()
    vectors = scorer.item_vectors(table.items, None)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = (vectors[table.left] * vectors[table.right]).sum(1)
    assert np.median(cosines[table.labels == 1]) > np.median(cosines[table.labels == 0])


def test_cross_fitted_models_learn_of_their_own_pairs_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    contrast, teach = cross_fit.contrast, cross_fit.teach

    def watched(beginning: Any, wanted: Any, run: Any, **named: Any) -> Any:
        # Nothing of the first stage, which saw all labels, is where a fold begins.
        original = read_tensors(Path(world.text.removeprefix("local-dir:")) / "model.safetensors")
        begun = beginning.model.network.text.state_dict()
        assert all(torch.equal(begun[name], tensor) for name, tensor in original.items() if name in begun)
        seen.append({item.item_id for item in named["splits"]["train"].used_items()})
        return contrast(beginning, wanted, run, **named)

    def same_pairs(*given: Any, **named: Any) -> Any:
        assert {item.item_id for item in named["splits"]["train"].used_items()} == seen[-1]
        return teach(*given, **named)

    monkeypatch.setattr(cross_fit, "contrast", watched)
    monkeypatch.setattr(cross_fit, "teach", same_pairs)
    asked = {"precision": 0.6, "missed": 0.4, "confidence": 0.6, "cross_fit": 2}
    report = train(config(world, thresholds=asked, contrastive={"epochs": 1}), tmp_path / "run")
    assert len(seen) == 2
    assert report.card.promises is not None
    assert report.card.promises.evidence.cross_fitted > 0


def test_an_interrupted_stage_ends_with_the_same_bytes(world: World, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "contrastive" and done > total // 2:
            raise KeyboardInterrupt

    wanted = config(world)
    straight = train(wanted, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(wanted, tmp_path / "resumed", on_stage=stop)
    torch.manual_seed(99)
    resumed = train(wanted, tmp_path / "resumed", resume=True)
    assert resumed.card == straight.card  # the card holds the sha256 of the weights


def learner_of(wanted: MatcherConfig, **process: Any) -> ContrastiveLearner:
    assert wanted.contrastive is not None
    splits = read_splits(wanted)
    beginning = begin_training(wanted.model, wanted.texts, splits["train"].used_items(), seed=1)
    section = wanted.contrastive.model_copy(update={"precision": "float32"})
    labels = {name: splits[name] for name in ("train", "valid")}
    return ContrastiveLearner(beginning, wanted.model, section, **labels, process=Process(**process))


def test_processes_share_a_step_by_products(world: World) -> None:
    wanted = config(world, contrastive={"batch_size": 32, "hard_negatives": 0})
    shares = [list(learner_of(wanted, rank=rank, world=2).batches(1)) for rank in range(2)]
    assert len(shares[0]) == len(shares[1]) == learner_of(wanted).steps_per_epoch
    first, second = ({int(number) for share in part for number in share.products} for part in shares)
    assert first.isdisjoint(second)
    with pytest.raises(UserError, match=r"9 processes cannot share \[contrastive\] steps of 32 offers: raise"):
        learner_of(wanted, rank=0, world=9)


def test_what_cannot_be_learnt_from(world: World, tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[data]\npairs = "p.csv"\n[model]\nfamily = "text_cnn"\n[contrastive]\nepochs = 1\n')
    with pytest.raises(
        UserError, match=r"text_cnn makes no vectors of texts: .* one of text_one_tower, text_two_tower\."
    ):
        load_config(file, MatcherConfig)
    wanted = config(world)
    splits = read_splits(wanted)
    none = splits["train"].select(splits["train"].labels == 0)
    beginning = begin_training(wanted.model, wanted.texts, none.used_items(), seed=1)
    with pytest.raises(UserError, match=r"learns from offers of one product, and no pair is labelled 1"):
        ContrastiveLearner(
            beginning,
            wanted.model,
            wanted.contrastive,
            train=none,
            valid=splits["valid"],
            process=Process(),  # type: ignore[arg-type] # there is one
        )
    with pytest.raises(UserError, match=r"goes by what each source lists, and no item has a source: fill the field"):
        learner_of(config(world, contrastive={"negatives": "sources"}))
