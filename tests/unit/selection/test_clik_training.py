"""Training CLIK on a small shop: it learns, resumes, reads its cache, leaves out what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.images.preprocessing import Preprocessing, prepare
from shopvision.models.importers import fetch
from shopvision.selection.clik.card import load_clik
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.clik.data import read_table
from shopvision.selection.clik.inputs import RawInputs
from shopvision.selection.clik.learner import ClikLearner
from shopvision.selection.clik.predict import PlanRanker
from shopvision.selection.clik.topic_tokens import TopicTokenizer
from shopvision.selection.clik.train import ClikReport, train_clik
from shopvision.settings import get_settings
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.features import FeatureStore
from shopvision.training.precision import MixedPrecision
from shopvision.training.run import TrainingProgress, TrainingRun
from tests.unit.selection.clik_world import RANDOM_MRR, WORDS, World, make_world, write_picture
from tests.unit.selection.tiny_clik import tiny_tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def small(tmp_path: Path) -> World:
    """A world of its own for a test that spoils it."""
    return make_world(tmp_path / "small", topics=12)


def train(config: ClikConfig, output: Path, **options: Any) -> ClikReport:
    report = train_clik(config, TrainingRun(output=output, **options))
    assert report is not None
    return report


def lines(output: Path, split: str) -> list[dict[str, Any]]:
    return [
        line for line in map(json.loads, (output / "metrics.jsonl").read_text().splitlines()) if line["split"] == split
    ]


def test_it_learns_what_sells_for_a_topic_never_seen(world: World, tmp_path: Path) -> None:
    report = train(world.config(), tmp_path)
    losses = [line["loss"] for line in lines(tmp_path, "train")]
    assert losses[-1] < 0.8 * losses[0]
    assert report.metrics["mrr_random"] == pytest.approx(RANDOM_MRR)
    assert report.metrics["mrr"] > 2.2 * RANDOM_MRR
    assert report.metrics["mrr"] == max(line["mrr"] for line in lines(tmp_path, "valid"))
    assert list((tmp_path / "tensorboard").iterdir())

    ranker, rng = PlanRanker(report.folder), np.random.default_rng(4)
    for words, liked in (((0, 5, 6), 1.0), ((1, 5, 6), 0.0)):
        tints = (0.4, 0.0, 1.0, 0.7)
        pictures = [tmp_path / f"{tint}.png" for tint in tints]
        for picture, tint in zip(pictures, tints, strict=True):
            write_picture(picture, words, tint, rng)
        best = ranker({"name": " ".join(WORDS[word] for word in words), "cat1": "fashion"}, pictures, top_k=1)[0]
        assert tints[best.index] == liked


def test_the_model_folder_can_be_imported(world: World, tmp_path: Path) -> None:
    report = train(world.config(epochs=1), tmp_path / "run")
    card = fetch(f"local-dir:{report.folder}", tmp_path / "import")
    assert (card.name, card.kind) == ("tiny", "plan_ranker")
    assert report.card.training_data.startswith("table.csv, 42 exhibitions, content sha256 ")
    assert report.card.metrics["mrr"] == pytest.approx(report.metrics["mrr"], abs=1e-6)
    assert report.card.architecture.arguments["bank_size"] == 12


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_same_bytes(world: World, tmp_path: Path) -> None:
    def stop(progress: TrainingProgress) -> None:
        if progress.epoch == 1:
            raise KeyboardInterrupt

    config = world.config(epochs=2)
    straight = train(config, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "resumed", on_progress=stop)
    torch.manual_seed(99)
    resumed = train(config, tmp_path / "resumed", resume=True)
    assert resumed.card == straight.card  # the card holds the sha256 of the weights
    last = "checkpoints/epoch-0002/model.safetensors"
    assert (tmp_path / "straight" / last).read_bytes() == (tmp_path / "resumed" / last).read_bytes()


def test_features_are_computed_once(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(world.config(epochs=1), tmp_path / "first")

    def never(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr("shopvision.encoders.image_encoder.ImageEncoder.encode", never)
    monkeypatch.setattr("shopvision.selection.clik.model.TextTower.features", never)
    monkeypatch.setattr("shopvision.images.door.PictureDoor.fetch", never)
    assert train(world.config(epochs=1), tmp_path / "second").card == first.card


def test_rows_that_were_cut_off_are_computed_again(tmp_path: Path) -> None:
    vectors = np.arange(12, dtype=np.float16).reshape(3, 4)
    keys = [bytes([number]) * 32 for number in range(3)]
    store = FeatureStore(tmp_path, 4)
    with store.writing():
        store.append(keys, vectors)
    for file, cut in (("vectors.bin", 3), ("keys.bin", 0)):
        path = tmp_path / file
        path.write_bytes(path.read_bytes()[: -cut or None])
    store = FeatureStore(tmp_path, 4)
    assert [key in store for key in keys] == [True, True, False]
    with store.writing():
        store.append([keys[2]], vectors[:1])
    np.testing.assert_array_equal(store.vectors()[store.rows([keys[2], keys[1]])], vectors[[0, 1]])


@pytest.mark.parametrize("frozen", [True, False])
def test_unreadable_pictures_are_left_out_and_named(small: World, tmp_path: Path, *, frozen: bool) -> None:
    (small.images / "00003.png").write_bytes(b"no picture")
    config = small.config(frozen=frozen, epochs=1, matching_batch=6, groups=2, group_size=5, select_by="last")
    output = tmp_path / "run"
    report = train(config, output)
    assert report.unreadable == 1
    named = json.loads((output / "unreadable.jsonl").read_text())
    assert named["picture"].endswith("/images/00003.png")
    assert "text, not a picture" in named["reason"]


def test_not_one_picture_is_readable(small: World, tmp_path: Path) -> None:
    for picture in small.images.iterdir():
        picture.write_bytes(b"no picture")
    with pytest.raises(UserError, match="Not one of 120 pictures can be read"):
        train(small.config(matching_batch=6), tmp_path / "run")


class Captured(Exception):  # noqa: N818 - not an error
    """Carries the learner out of ``train_clik``."""


def learner_of(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **train_options: Any) -> ClikLearner:
    def capture(learner: ClikLearner, *_: object, **__: object) -> None:
        raise Captured(learner)

    monkeypatch.setattr("shopvision.selection.clik.train.fit", capture)
    with pytest.raises(Captured) as caught:
        train(world.config(frozen=False, **train_options), tmp_path)
    learner: ClikLearner = caught.value.args[0]
    return learner


def step_gradients(learner: ClikLearner) -> dict[str, Tensor]:
    batch = next(iter(learner.batches(1)))
    torch.manual_seed(7)
    learner.gradients(batch, MixedPrecision("float32", torch.device("cpu")))
    return {name: weight.grad for name, weight in learner.clik.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("method", ["clik", "triplet"])
def test_micro_batches_do_not_change_the_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    world = make_world(tmp_path / "world", topics=12, dropout=0.0)
    sizes = {"matching_batch": 6, "groups": 2, "group_size": 5, "method": method, "matching_weight": 1.0}
    whole = step_gradients(learner_of(world, tmp_path / "a", monkeypatch, **sizes, temperature=1.0))
    parts = step_gradients(learner_of(world, tmp_path / "b", monkeypatch, **sizes, temperature=1.0, micro_batch=4))
    assert whole.keys() == parts.keys()
    assert any(name.startswith("img_encoder.enc.") for name in whole)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", ["triplet", "pairwise", "pointwise"])
def test_the_compared_methods_learn_too(world: World, tmp_path: Path, method: str) -> None:
    config = world.config(method=method, epochs=3)
    assert (config.query, config.matching_weight, config.needs_matching) == ("topic", 0.0, False)
    report = train(config, tmp_path)
    losses = [line["loss"] for line in lines(tmp_path, "train")]
    assert losses[-1] < losses[0]
    assert report.metrics["mrr"] > 1.5 * RANDOM_MRR
    assert "matching_loss" not in lines(tmp_path, "train")[0]


def test_the_ablations_learn_too(world: World, tmp_path: Path) -> None:
    sections = world.sections(ranking_loss="listwise", label_temperature=0.3, matching_sampling="weighted", epochs=3)
    sections["model"]["query"] = "fusion"
    report = train(ClikConfig.model_validate(sections), tmp_path)
    losses = [line["ranking_loss"] for line in lines(tmp_path, "train")]
    assert losses[-1] < losses[0]
    assert report.metrics["mrr"] > 1.5 * RANDOM_MRR
    assert load_clik(report.folder).clik.topic_share != 0  # learnt, and kept


def test_a_loss_of_its_own_takes_no_other(world: World) -> None:
    with pytest.raises(
        ValidationError, match=r'method = "triplet" is a loss of its own: leave out train\.ranking_loss'
    ):
        world.config(method="triplet", ranking_loss="listwise")


def test_what_matching_takes_is_configured(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(world, tmp_path, monkeypatch, matching_sampling="sequential")
    data, step = learner._train.data, next(learner._sampler.epoch(1))
    best = [data.exhibitions[number].products[0] for number in step.matching_exhibitions]
    assert step.matching_products.tolist() == best


def test_matching_alone(world: World, tmp_path: Path) -> None:
    config = world.config(groups=0, select_by="topic_to_image", epochs=50, text_augmentation=0.0)
    assert config.query == "topic"
    report = train(config, tmp_path)
    first, *_, last = lines(tmp_path, "train")
    assert "ranking_loss" not in first
    assert last["topic_to_image"] > 4 / 12
    assert report.metrics["topic_to_image"] > 1.5 / 12


def test_training_crops_and_evaluation_does_not(world: World) -> None:
    data = read_table(world.table, label="ctr", images=str(world.images))
    preprocessing = Preprocessing(size=(20, 20), resize_mode="squash")
    settings = get_settings().model_copy(update={"image_roots": (world.images,)})
    with PictureDoor(settings) as door:
        tokenizer = TopicTokenizer(tiny_tokenizer(), season_language="en")
        inputs = RawInputs(data, tokenizer, door, preprocessing, word_dropout=0.5)
        crops = np.array([[0.0, 0.0], [0.999, 0.999], [0.5, 0.0]])
        got = inputs.pictures(np.array([3, 3, 3]), crops).numpy()
        whole = inputs.pictures(np.array([3]), None).numpy()[0]
        encoded = (world.images / "00003.png").read_bytes()
        larger = np.asarray(
            Image.open(world.images / "00003.png").convert("RGB").resize((23, 23), Image.Resampling.BICUBIC)
        )  # int(20 * 1.15)
        np.testing.assert_array_equal(got[0], larger[:20, :20])
        np.testing.assert_array_equal(got[1], larger[3:, 3:])
        np.testing.assert_array_equal(got[2], larger[2:22, :20])
        np.testing.assert_array_equal(whole, prepare(encoded, preprocessing, door.limits))

        numbers, never = np.arange(20), np.zeros(20, bool)
        clean = inputs.topics(numbers, numbers, never, None).input_ids
        dropped = inputs.topics(numbers, numbers, never, np.random.default_rng(1)).input_ids
        again = inputs.topics(numbers, numbers, never, np.random.default_rng(1)).input_ids
        assert torch.equal(dropped, again)
        assert 5 < int((clean != dropped).sum()) < 45  # half of 40 to 60 words


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"groups": 0, "matching_weight": 0}, "leaves nothing to learn"),
        ("data", {"catalogue": True}, "and not both"),
        ("data", {"label": None}, "needs a label"),
    ],
)
def test_configurations_that_make_no_sense(world: World, section: str, changes: dict[str, Any], message: str) -> None:
    sections = world.sections()
    sections[section] |= changes
    with pytest.raises(ValueError, match=message):
        ClikConfig.model_validate(sections)


def test_processes_must_divide_the_batch(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="5 processes cannot share a matching batch of 12"):
        train_clik(world.config(), TrainingRun(output=tmp_path, process=Process(rank=1, world=5)))
    assert not list(tmp_path.iterdir())


def test_the_published_values_are_the_defaults() -> None:
    config = ClikConfig.model_validate({"data": {"table": "t.csv", "label": "ctr"}})
    assert (config.learning_rates, config.query, config.matching_weight) == ((5e-5, 1e-4), "group", 20.0)
    train = config.train
    assert (train.matching_batch, train.groups, train.group_size, train.epochs) == (512, 12, 20, 10)
    assert (train.temperature, train.word_dropout, train.warmup_fraction, train.weight_decay) == (0.07, 0.1, 0.01, 0.01)


def test_the_example_file_shows_every_field_with_its_default() -> None:
    path = Path(__file__).parents[3] / "docs" / "examples" / "clik.toml"
    config = load_config(path, ClikConfig)
    shown = {line.lstrip("# ").split(" = ")[0] for line in path.read_text().splitlines() if " = " in line}
    for section in (config.data, config.model, config.train):
        assert set(type(section).model_fields) <= shown
    assert config.train == ClikConfig.model_validate({"data": {"table": "t.csv", "label": "ctr"}}).train
