"""Training recall models on a small shop: they learn, also from a graph, resume, and leave out what is broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shopvision.encoders.text_sources import fetch_text
from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.models.importers import fetch
from shopvision.selection.recall import preparation
from shopvision.selection.recall.config import RecallConfig
from shopvision.selection.recall.evaluate import evaluate_recall
from shopvision.selection.recall.inputs import RawInputs
from shopvision.selection.recall.learner import RecallLearner, SearchRows, TrainingRows
from shopvision.selection.recall.preparation import fetch_encoders
from shopvision.selection.recall.train import RecallReport, read_splits, train_recall
from shopvision.settings import get_settings
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.precision import MixedPrecision
from shopvision.training.run import TrainingProgress, TrainingRun
from tests.unit.selection.recall_world import World, make_world
from tests.unit.selection.tiny_clik import PREPROCESSING


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), titles=84)


def train(config: RecallConfig, output: Path, **options: Any) -> RecallReport:
    report = train_recall(config, TrainingRun(output=output, **options))
    assert report is not None
    return report


@pytest.mark.usefixtures("in_float32")
def test_texts_never_seen_find_pictures_never_seen(world: World, tmp_path: Path) -> None:
    config = world.config(epochs=15, lr=2e-2)
    report = train(config, tmp_path)
    valid = report.valid
    assert report.texts == {"train": 63, "valid": 21}
    assert report.gallery == 42
    # Two of 42 are right: 1 - C(40, 5) / C(42, 5).
    assert valid["hit_rate_5"].random == pytest.approx(1 - 37 * 36 / (42 * 41), abs=1e-6)
    assert report.metrics["mrr"] > 1.4 * valid["mrr"].random
    assert report.score.kept > report.score.passed
    assert "right pairs above the score" in dict(report.report().fact_rows())

    card = fetch(f"local-dir:{report.folder}", tmp_path / "import")
    assert (card.name, card.kind, card.thresholds) == ("tiny", "image_recall", {"score": round(report.score.value, 6)})
    assert card.training_data.startswith("items.jsonl, 63 texts, content sha256 ")
    assert card.metrics["random_hit_rate_5"] == pytest.approx(valid["hit_rate_5"].random, abs=1e-6)
    with PictureDoor(get_settings().with_image_roots((world.images,))) as door:
        found = evaluate_recall(tmp_path / "import", read_splits(config)["valid"], door, device="cpu", resamples=0)
    assert found.metrics["mrr"].value == pytest.approx(report.metrics["mrr"], abs=0.03)


def test_a_graph_is_learnt_beside_and_its_relations_are_kept(world: World, tmp_path: Path) -> None:
    report = train(world.config(graph=0.1, epochs=2), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["graph_loss"] for line in lines if line["split"] == "train"]
    assert losses[-1] < losses[0]
    total = [line["contrastive_loss"] + 0.1 * line["graph_loss"] for line in lines if line["split"] == "train"]
    assert [line["loss"] for line in lines if line["split"] == "train"] == pytest.approx(total, abs=1e-5)
    # Of each title its category, attribute and leading picture, and of its category the title.
    assert report.triples == 4 * 63
    arguments = report.card.architecture.arguments
    assert arguments["relations"] == ["has_category", "has_picture", "has_title", "has_attribute"]


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_same_bytes(world: World, tmp_path: Path) -> None:
    def stop(progress: TrainingProgress) -> None:
        if progress.epoch == 1:
            raise KeyboardInterrupt

    config = world.config(epochs=2, graph=0.1, other_texts=0.5, model={"image_stages": True})
    straight = train(config, tmp_path / "straight")
    assert straight.card.architecture.arguments["image"]["name"] == "stage_pooling"
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "resumed", on_progress=stop)
    torch.manual_seed(99)
    assert train(config, tmp_path / "resumed", resume=True).card == straight.card


def test_encoders_learn_too_and_micro_batches_give_the_same_gradients(world: World) -> None:
    gradients = []
    texts, pictures = ["summer dress", "sale women", "shoe men"], sorted(world.images.glob("*.png"))[:3]
    for micro_batch in (None, 2):
        model = {"text_layers": 1, "pooling": "cls", "image_head": "two_linear", "scale": "plain", "start_scale": 1.0}
        config = world.config(frozen=False, micro_batch=micro_batch, batch_size=3, model=model)
        encoders = fetch_encoders(config, ())
        assert encoders.arguments.text_config["num_hidden_layers"] == 1
        rows = [np.array([row]) for row in range(3)]
        with PictureDoor(get_settings().with_image_roots((world.images,))) as door:
            addresses = [path.as_uri() for path in pictures]
            learner = RecallLearner(
                encoders.network,
                config,
                RawInputs(texts, addresses, encoders.tokenizer, door, PREPROCESSING),
                PREPROCESSING,
                train=TrainingRows(rows, rows, np.arange(3), [""] * 3),
                valid=SearchRows(np.arange(3), np.arange(3), [[0], [1], [2]]),
                graph=None,
                process=Process(),
            )
            batch = next(iter(learner.batches(1)))
            learner.network.eval()  # dropout draws anew for every cut
            learner.gradients(batch, MixedPrecision("float32", torch.device("cpu")))
        gradients.append({name: one.grad for name, one in encoders.network.named_parameters() if one.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() >= {"logit_scale", "image.head.second.weight"}
    for part in ("image.network.", "text.network."):
        assert any(name.startswith(part) for name in gradients[0]), part
    for name, whole in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], whole, atol=1e-5, rtol=1e-3, msg=name)


def test_before_texts_stands_what_stood_there_when_their_encoder_was_trained(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = replace(fetch_text(world.text), prefix="query: ")
    monkeypatch.setattr(preparation, "fetch_text", lambda _: trained)
    assert fetch_encoders(world.config(), ()).arguments.text_prefix == "query: "
    assert fetch_encoders(world.config(model={"text_prefix": ""}), ()).arguments.text_prefix == ""


def test_pictures_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    small = make_world(tmp_path / "small", titles=40)
    (small.images / "000-0.png").write_bytes(b"no picture")
    (small.images / "001-0.png").unlink()
    (small.images / "001-1.png").unlink()
    report = train(small.config(epochs=1), tmp_path / "run")
    assert report.unreadable == 3
    assert sum(report.texts.values()) == 39


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 64}, "63 pairs of training are fewer than a step of 64"),
        ({"model": {"text_layers": 3}}, "has 2 layers, and the first 3 cannot be had"),
        ({"model": {"max_length": 200}}, "max_length 200 is more than the encoder's 128 tokens"),
    ],
)
def test_what_cannot_be_trained_is_refused(world: World, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(world.config(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_the_example_configuration_holds_the_defaults() -> None:
    path = Path(__file__).parents[3] / "docs" / "examples" / "recall.toml"
    assert load_config(path, RecallConfig) == RecallConfig.model_validate({"data": {"items": "items.jsonl"}})


def test_a_graph_needs_something_that_it_is_made_of() -> None:
    with pytest.raises(ValueError, match=r"graph\.weight needs graph\.triples"):
        RecallConfig.model_validate({"data": {"pairs": "pairs.csv"}, "graph": {"weight": 1.0}})
    with pytest.raises(ValueError, match="give items or pairs, one of the two"):
        RecallConfig.model_validate({"data": {}})
