"""Training a click ranker on a shop whose audience is known, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import comb
from scipy.stats import binom
from torch.nn import functional

from shopvision.errors import JobError, UserError
from shopvision.images import PictureDoor
from shopvision.models.loaded import load
from shopvision.models.version_folder import read_card
from shopvision.selection.click.config import ClickConfig
from shopvision.selection.click.context import Entity
from shopvision.selection.click.evaluate import PairScores, evaluate_click_ranker, measure_clicks
from shopvision.selection.click.losses import counts_loss, difference_loss, list_loss, margin_loss
from shopvision.selection.click.predict import ImageRanker
from shopvision.selection.click.splits import read_splits
from shopvision.selection.click.train import ClickReport, train_click_ranker
from shopvision.settings import get_settings
from shopvision.training.run import TrainingRun
from tests.unit.selection.click_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("click-world"))


def config(world: Path, model: dict[str, Any] | None = None, **train: Any) -> ClickConfig:
    return ClickConfig.model_validate(
        {
            "data": {"clicks": world / "log.csv", "kind": "clicks", "fractions": (0.75, 0.25, 0)},
            "model": {"recall": "tiny", **(model or {})},
            "train": {"epochs": 8, "batch": 8, "lr": 0.01, "dropout": 0.1, "seed": 1, **train},
        }
    )


def train(world: Path, output: Path, settled: ClickConfig) -> ClickReport:
    report = train_click_ranker(settled, TrainingRun(output=output), recall_folder=world / "recall")
    assert report is not None
    return report


def test_a_ranker_learns_what_the_audience_likes_and_serves_it(world: Path, tmp_path: Path) -> None:
    settled = config(world, loss="difference")  # which leans least on recall, that is random here
    report = train(world, tmp_path, settled)
    assert report.metrics["pair_accuracy"] > 0.8  # of 24 pairs: guessing gives so many once in a thousand times
    assert report.card.metrics["pair_accuracy"] == pytest.approx(report.metrics["pair_accuracy"], abs=1e-6)
    recall = read_card(world / "recall")
    assert report.card.architecture.arguments["recall"] == recall.spec
    splits = read_splits(settled.data)
    assert splits.valid is not None
    with PictureDoor(get_settings().with_image_roots((world,))) as door:
        found = evaluate_click_ranker(report.folder, splits.valid, splits.table, door, device="cpu", resamples=50)
    # Computed as serving computes it: what training measured, but for half precision of stored vectors.
    assert found.metrics["pair_accuracy"].value == pytest.approx(report.metrics["pair_accuracy"], abs=0.03)
    assert found.metrics["consistency"].value == 1
    assert found.metrics["mrr"].low <= found.metrics["mrr"].value
    assert set(found.baselines) == {"always the first", "always the second", "by recall's score", "without entities"}
    share = splits.valid.comparisons.first_wins.mean()
    assert found.baselines["always the second"]["pair_accuracy"].value == pytest.approx(1 - share)
    assert list(found.tiers) == ["1000 to 10000"]
    title = found.summary().title
    assert title.startswith(f"{report.card.spec} on {len(splits.valid.comparisons)} pairs, 4 items")

    ranker = load(report.folder, device="cpu")
    assert isinstance(ranker, ImageRanker)
    pictures = [np.full((32, 32, 3), colour, np.uint8) for colour in ((230, 40, 30), (30, 60, 220))]
    vectors = ranker.encode(np.stack(pictures))
    context = ranker.context(ranker.text_of("summer dress", ["summer"]), [])
    red, blue = ranker.scores(vectors, context)
    assert red > blue
    blue_first = ranker.scores(vectors, ranker.context(ranker.text_of("autumn dress", ["autumn"]), []))
    assert blue_first[1] > blue_first[0]
    # One by one, many items at once and in another order: the same scores.
    other = ranker.context("autumn dress", [Entity("sale", "sale", "entity", vectors[0], vectors[1])] * 300)
    assert other.entities.shape == (5, 16)
    both = ranker.scores_of_items([vectors, vectors[1:], vectors[:0]], [context, other, context])
    assert [len(scores) for scores in both] == [2, 1, 0]
    np.testing.assert_allclose(both[0], (red, blue), rtol=1e-5)
    np.testing.assert_allclose(both[1], ranker.scores(vectors[1:], other), rtol=1e-5)
    assert ranker.scores_of_items([], []) == []


def test_empty_contexts_are_exactly_zeros_and_foreign_vectors_are_refused(world: Path, tmp_path: Path) -> None:
    report = train(world, tmp_path, config(world, epochs=1))
    ranker = ImageRanker(report.folder, device="cpu")
    nothing = ranker.context(ranker.text_of(" ", []), [])
    assert not nothing.text.any()
    assert nothing.entities.shape == (0, 16)
    assert np.isfinite(ranker.scores(np.zeros((1, 8), np.float32), nothing)).all()
    ranker.require_vectors_of(ranker.vectors_of)
    with pytest.raises(JobError, match=r"reads vectors of tiny-recall:\w+, not of other:1"):
        ranker.require_vectors_of("other:1")
    with pytest.raises(JobError, match=r"reads vectors \(n, 8\), not \(3, 4\)"):
        ranker.scores(np.zeros((3, 4), np.float32), nothing)
    four = np.zeros(4, np.float32)
    with pytest.raises(JobError, match=r"The brand 'Puma' has vectors of \(4,\) and \(4,\), not \(8,\)"):
        ranker.context("", [Entity("1", "Puma", "brand", four, four)])


@pytest.mark.parametrize(
    ("model", "how"),
    [
        ({"variant": "published", "text": "entities"}, {"loss": "difference"}),
        ({}, {"loss": "list"}),
        ({}, {"loss": "margin"}),
        ({"tower": "tuned", "entities": 2}, {"micro_batch": 7, "batch": 12, "lr_tower": 1e-4, "epochs": 2}),
    ],
    ids=["published", "list", "margin", "tuned"],
)
def test_every_way_learns(world: Path, tmp_path: Path, model: dict[str, Any], how: dict[str, Any]) -> None:
    report = train(world, tmp_path, config(world, model, **how))
    assert report.metrics["pair_accuracy"] > 0.75
    arguments = report.card.architecture.arguments
    inside, given = read_card(report.folder / "recall"), read_card(world / "recall")
    if model.get("tower") == "tuned":
        assert arguments["recall"] is None
        assert inside.files["model.safetensors"] != given.files["model.safetensors"]
        assert ImageRanker(report.folder, device="cpu").vectors_of == report.card.spec
    else:
        assert inside == given
    if model.get("variant") == "published":  # whose batch statistics are learnt
        statistics = ImageRanker(report.folder, device="cpu")._network.state_dict()
        assert statistics["attention.dice.norm.num_batches_tracked"] > 0


def test_an_interrupted_run_ends_with_the_same_weights(world: Path, tmp_path: Path) -> None:
    settled = config(world, epochs=2)
    whole = train(world, tmp_path / "whole", settled)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(progress: Any) -> None:
        if progress.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train_click_ranker(
            settled, TrainingRun(output=tmp_path / "part", on_progress=stop), recall_folder=world / "recall"
        )
    run = TrainingRun(output=tmp_path / "part", resume=True)
    again = train_click_ranker(settled, run, recall_folder=world / "recall")
    assert again is not None
    assert again.card.files == whole.card.files


def test_what_is_left_out_is_told(world: Path, tmp_path: Path) -> None:
    lines = (world / "log.csv").read_text() + "i0,gone.png,1,1000,summer dress,sale\ni0,0-0.png,x,1,summer dress,sale\n"
    (world / "broken.csv").write_text(
        lines.replace("i0,", "i99,").replace(",summer dress,summer", ",summer dress,sale")
    )
    settled = config(world, epochs=1)
    data = settled.data.model_copy(update={"clicks": world / "broken.csv", "fractions": (1, 0, 0)})
    settled = settled.model_copy(update={"data": data, "train": settled.train.model_copy(update={"select_by": "last"})})
    report = train(world, tmp_path, settled)
    assert report.unreadable == 1
    assert "gone.png" in (tmp_path / "unreadable.jsonl").read_text()
    (line,) = (tmp_path / "left_out.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"].endswith("clicks is 'x'; write a number that is not negative")
    assert "1 broken records were left out." in report.notes


def test_a_picture_of_unknown_place_and_no_pair_end_the_run(world: Path, tmp_path: Path) -> None:
    settled = config(world)
    (tmp_path / "x.csv").write_text(
        "item_id,image,clicks,impressions\na,1.jpg,1,9\na,2.jpg,2,9\nb,3.jpg,1,9\nb,4.jpg,2,9\n"
    )
    data = settled.data.model_copy(update={"clicks": tmp_path / "x.csv", "fractions": (0.5, 0.5, 0)})
    with pytest.raises(UserError, match="Not one of 2 pictures can be read"):
        train(world, tmp_path / "run", settled.model_copy(update={"data": data}))


def test_where_nobody_counted_clicks_the_winners_are_learnt_from(world: Path, tmp_path: Path) -> None:
    (world / "rates.csv").write_text("item_id,image_a,image_b,ctr_a,ctr_b\ni0,0-0.png,0-1.png,0.1,0.2\n")
    settled = config(world, epochs=1, select_by="last")
    data = {"clicks": world / "rates.csv", "kind": "pairs", "fractions": (1, 0, 0)}
    settled = settled.model_copy(update={"data": settled.data.model_copy(update=data)})
    assert train(world, tmp_path / "run", settled).pairs["train"] == 1
    counts = settled.model_copy(update={"train": settled.train.model_copy(update={"loss": "counts"})})
    with pytest.raises(UserError, match=r'but not how often: take train.loss = "difference"'):
        train(world, tmp_path / "other", counts)


def test_losses_are_those_of_their_definitions() -> None:
    first, second = torch.tensor([1.0, -0.2, 3.0]).double(), torch.tensor([0.5, 0.4, -1.0]).double()
    wins = torch.tensor([True, True, False])
    published = functional.binary_cross_entropy(torch.sigmoid(first - second), wins.double(), reduction="none")
    torch.testing.assert_close(difference_loss(first, second, wins), published)
    library = torch.nn.MarginRankingLoss(margin=0.5, reduction="none")
    torch.testing.assert_close(margin_loss(first, second, wins, 0.5), library(first, second, wins.double() * 2 - 1))
    scores = torch.tensor([[1.0, 2.0, 9.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]).double()
    rates = torch.tensor([[1.0, 3.0, 7.0], [2.0, 1.0, 1.0], [0.0, 0.0, 0.0]]).double()
    there = torch.tensor([[True, True, False], [True, True, True], [True, True, True]])
    one = -(0.25 * np.log(1 / (1 + np.e)) + 0.75 * np.log(np.e / (1 + np.e)))
    two = -(np.array([0.5, 0.25, 0.25]) * np.log(np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum())).sum()
    np.testing.assert_allclose(list_loss(scores, rates, there).numpy(), [one, two, 0], rtol=1e-9)
    clicks, views = torch.tensor([[7, 2], [0, 5], [3, 3]]).double(), torch.tensor([[100, 50], [9, 90], [8, 8]]).double()
    wanted = torch.stack([first.exp(), second.exp()], dim=1) * views  # clicks, but for a factor of the pair
    shares = wanted / wanted.sum(dim=1, keepdim=True)
    told = binom.logpmf(clicks[:, 0], clicks.sum(1), shares[:, 0]) - np.log(comb(clicks.sum(1), clicks[:, 0]))
    np.testing.assert_allclose(counts_loss(first, second, clicks, views).numpy(), -told, rtol=1e-9)


def test_metrics_by_hand(world: Path) -> None:
    (data,) = read_splits(config(world).data.model_copy(update={"fractions": (1, 0, 0)})).by_name.values()
    rates = np.zeros((len(data.items), len(data.pictures)), np.float32)
    rates[data.shown.items, data.shown.pictures] = data.shown.rates
    perfect = measure_clicks(
        data, PairScores.of(data, lambda items, pictures: rates[items, pictures], swap=True), resamples=0
    )
    assert [perfect[name].value for name in ("pair_accuracy", "roc_auc", "mrr", "top1", "consistency")] == [1] * 5
    worst = measure_clicks(data, PairScores.of(data, lambda items, pictures: -rates[items, pictures]), resamples=0)
    assert [worst[name].value for name in ("pair_accuracy", "roc_auc", "top1")] == [0] * 3
    equal = measure_clicks(data, PairScores.of(data, lambda items, pictures: 0 * rates[items, pictures]), resamples=0)
    assert equal["pair_accuracy"].value == pytest.approx(0.5)
    assert equal["mrr"].value == pytest.approx(equal["mrr"].random) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
