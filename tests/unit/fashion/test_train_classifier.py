"""``shopvision train classifier`` and ``evaluate classifier`` on pictures of coloured classes, and their mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shopvision.errors import UserError
from shopvision.fashion.thumbnails.card import load_network
from shopvision.fashion.thumbnails.config import ClassifierConfig
from shopvision.fashion.thumbnails.data import read_labelled
from shopvision.fashion.thumbnails.learner import ClassifierLearner, Inputs, class_weights
from shopvision.fashion.thumbnails.network import ClassifierArguments, ClassifierNetwork
from shopvision.fashion.thumbnails.train import ClassifierReport, train_classifier
from shopvision.images import PictureDoor
from shopvision.models.card import ModelCard
from shopvision.models.kinds import find_kind
from shopvision.models.version_folder import read_card
from shopvision.settings import get_settings
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.pixels import PixelReader
from shopvision.training.precision import MixedPrecision
from shopvision.training.pretrained import fetch_image
from shopvision.training.run import TrainingProgress, TrainingRun
from tests.conftest import Run
from tests.unit.fashion.test_labelled_pictures import pictures
from tests.unit.fashion.thumbnails_world import COLOURS, draw, encoder, folders, table


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOPVISION_CACHE_DIR", str(tmp_path / "cache"))


def make(tmp_path: Path, data: dict[str, Any], *, frozen: bool = True, **train: Any) -> ClassifierConfig:
    image = encoder(tmp_path / "encoder")
    train = {"batch_size": 6, "cross_fit": 0} | train
    sections = {"data": data, "model": {"image": image, "frozen": frozen}, "train": train}
    return ClassifierConfig.model_validate(sections)


def run(tmp_path: Path, config: ClassifierConfig, name: str = "run", *, resume: bool = False) -> ClassifierReport:
    report = train_classifier(config, TrainingRun(output=tmp_path / name, resume=resume))
    assert report is not None
    return report


def test_from_folders_to_a_measured_model(tmp_path: Path, command_line: Run) -> None:
    folders(tmp_path / "shop")
    (tmp_path / "shop" / "bag" / "broken.png").write_bytes(b"no picture")
    file = tmp_path / "classifier.toml"
    file.write_text(
        f'[data]\npictures = "{tmp_path / "shop"}"\nvalid_fraction = 0.25\n'
        f'[model]\nimage = "{encoder(tmp_path / "encoder")}"\n[train]\nepochs = 10\nbatch_size = 6\nlr = 0.05\n'
    )
    output = tmp_path / "run"
    status, stdout, stderr = command_line(
        "train", "classifier", "--config", file, "--output", output, "--device", "cpu", "--json"
    )
    assert status == 0, stderr
    told = json.loads(stdout)
    assert (told["counts"]["validation pictures"], told["counts"]["unreadable pictures"]) == (6, 1)
    assert told["facts"]["training_pictures"] == {"bag": 6, "dress": 6, "shoes": 6}
    assert "broken.png" in (output / "unreadable.jsonl").read_text()
    card = read_card(output / "model", "thumbnail_classifier")
    assert card.metrics["accuracy"] == 1
    assert card.metrics["constant_answer_accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert card.metrics["temperature"] == pytest.approx(card.architecture.arguments["temperature"], abs=1e-6)
    assert not (output / "cross_fit").exists()
    test = folders(tmp_path / "test", each=3, seed=5)
    evaluate = ("evaluate", "classifier", output / "model", "--device", "cpu", "--labels")
    status, stdout, stderr = command_line(
        *evaluate, test, "--resamples", 50, "--json", "--output", tmp_path / "evaluation"
    )
    assert status == 0, stderr
    measured = json.loads(stdout)
    assert measured == json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert {path.name for path in (tmp_path / "evaluation").iterdir()} == {
        "metrics.json", "metrics.png", "classes.png", "report.html",
    }  # fmt: skip
    assert (measured["name"], measured["counts"]["pictures"]) == (card.spec, 9)
    assert measured["metrics"]["accuracy"]["value"] == 1
    baseline = measured["parts"][0]
    assert (baseline["name"], baseline["metrics"]["accuracy"]["value"]) == ("always bag", pytest.approx(1 / 3))
    groups = [part["group"] for part in measured["parts"]]
    assert groups == ["baseline", *["class"] * 3, *["probability from"] * 4]
    (test / "kilt").mkdir()
    shutil.copy(test / "bag" / "0.png", test / "kilt")
    status, _, stderr = command_line(*evaluate, test)
    assert (status, len(stderr.strip().splitlines())) == (1, 1)
    assert "kilt/0.png is of the class 'kilt', which the classifier has not: bag, dress, shoes." in stderr


def test_the_encoder_can_learn_too(tmp_path: Path) -> None:
    config = make(tmp_path, {"pictures": folders(tmp_path / "shop", 6)}, frozen=False, epochs=2, micro_batch=4)
    before = fetch_image(config.model.image).network.state_dict()
    report = run(tmp_path, config)
    assert report.pictures == {"train": 15, "valid": 3}
    after = load_network(report.folder)[0].backbone.state_dict()
    changed = {name.partition(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {"conv1", "layer1", "layer4"} <= changed
    assert torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])


def _stop_in_epoch_3(progress: TrainingProgress) -> None:
    if progress.epoch == 3:
        raise KeyboardInterrupt


def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    config = make(tmp_path, {"pictures": folders(tmp_path / "shop", 4)}, epochs=4, patience=9)
    whole = run(tmp_path, config)
    cut = TrainingRun(output=tmp_path / "cut", on_progress=_stop_in_epoch_3)
    with pytest.raises(KeyboardInterrupt):
        train_classifier(config, cut)
    assert run(tmp_path, config, "cut", resume=True).card == whole.card


def test_layers_that_did_not_see_a_picture_calibrate(tmp_path: Path) -> None:
    """Labels at random: what was learnt by heart is wrong of other pictures, and must not be said with certainty."""
    generator = np.random.default_rng(8)
    folders(tmp_path / "all", 10)
    rows = [
        {"picture": path.relative_to(tmp_path).as_posix(), "label": str(generator.choice(["bag", "dress"]))}
        for path in sorted((tmp_path / "all").rglob("*.png"))
    ]
    data = {"pictures": table(tmp_path / "shop.csv", rows)}
    overfit = {"epochs": 15, "lr": 0.1, "weight_decay": 0.0, "select_by": "last", "patience": 99}
    report = run(tmp_path, make(tmp_path, data, cross_fit=3, **overfit))
    assert report.card.metrics["temperature"] > 2
    assert report.card.metrics["calibration_error"] < report.card.metrics["calibration_error_before"] - 0.05


def test_training_ends_when_it_gets_no_better(tmp_path: Path) -> None:
    data = {"pictures": folders(tmp_path / "shop", 4)}
    report = run(tmp_path, make(tmp_path, data, epochs=50, lr=1e-12, select_by="accuracy", patience=2))
    assert report.best_epoch == 1
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert max(json.loads(line)["epoch"] for line in lines) == 3


def test_bytes_of_two_classes_are_left_out_and_told(tmp_path: Path) -> None:
    shop = folders(tmp_path / "shop", 5)
    shutil.copy(shop / "bag" / "0.png", shop / "dress" / "copy.png")
    report = run(tmp_path, make(tmp_path, {"pictures": shop, "valid_fraction": 0.25}, epochs=1))
    assert sum(report.pictures.values()) == 14
    assert report.notes == ("2 pictures were left out: the same bytes are of two classes (bag/0.png).",)


def test_validation_that_was_learnt_from_is_refused(tmp_path: Path) -> None:
    shop = folders(tmp_path / "shop", 3)
    other = folders(tmp_path / "other", 2, seed=3)
    config = make(tmp_path, {"pictures": shop, "valid": other}, epochs=1)
    assert run(tmp_path, config).pictures == {"train": 9, "valid": 6}
    shutil.copy(shop / "dress" / "1.png", other / "dress" / "same.png")
    with pytest.raises(UserError, match=r"dress/1.png is in training, and in data.valid by its bytes"):
        run(tmp_path, config, "again")


def test_two_classes_of_the_same_pictures_are_none(tmp_path: Path) -> None:
    draw(tmp_path / "shop" / "bag" / "0.png", "bag", np.random.default_rng(0))
    shutil.copytree(tmp_path / "shop" / "bag", tmp_path / "shop" / "copy")
    with pytest.raises(UserError, match=r"the bytes of each picture are of two classes \(bag/0.png\): keep one"):
        run(tmp_path, make(tmp_path, {"pictures": tmp_path / "shop"}))


def test_too_little_to_learn_from(tmp_path: Path) -> None:
    draw(tmp_path / "one" / "bag" / "0.png", "bag", np.random.default_rng(0))
    with pytest.raises(UserError, match="has the class 'bag' alone: a classifier tells two or more apart"):
        run(tmp_path, make(tmp_path, {"pictures": tmp_path / "one"}))
    (tmp_path / "one" / "dress").mkdir()
    (tmp_path / "one" / "dress" / "0.png").write_bytes(b"")
    draw(tmp_path / "one" / "bag" / "1.png", "bag", np.random.default_rng(1))
    with pytest.raises(UserError, match="what is readable leaves too little"):
        run(tmp_path, make(tmp_path, {"pictures": tmp_path / "one"}))
    missing = table(tmp_path / "shop.csv", [{"picture": f"{name}.png", "label": name} for name in COLOURS])
    with pytest.raises(UserError, match="Not one of 3 pictures can be read"):
        run(tmp_path, make(tmp_path, {"pictures": missing}))
    assert not (tmp_path / "run").exists()


def test_more_processes_than_pictures_are_refused(tmp_path: Path) -> None:
    config = make(tmp_path, {"pictures": folders(tmp_path / "shop", each=2)}, batch_size=7)
    with pytest.raises(UserError, match="6 to learn from cannot be shared by 7 processes: lower --nproc-per-node"):
        train_classifier(config, TrainingRun(output=tmp_path / "run", process=Process(world=7)))
    assert not (tmp_path / "run").exists()


def test_micro_batches_and_processes_change_no_gradient(tmp_path: Path) -> None:
    shop = folders(tmp_path / "shop", 4)
    config = make(tmp_path, {"pictures": shop}, frozen=False, class_weights="balanced")
    image = fetch_image(config.model.image)
    data = read_labelled(shop).rows(np.array([0, 1, 2, 4, 5, 8]))

    def gradient(micro_batch: int | None, ranks: list[int], world: int) -> torch.Tensor:
        torch.manual_seed(1)
        arguments = ClassifierArguments(backbone=image.card.architecture, labels=data.classes)
        network = ClassifierNetwork(arguments, image.network)
        train = config.train.model_copy(update={"micro_batch": micro_batch})
        settled = config.model_copy(update={"train": train})
        with PictureDoor(get_settings().with_image_roots([shop])) as door:
            inputs = Inputs(data, PixelReader(door, image.preprocessing))
            for rank in ranks:
                process = Process(rank=rank, world=world)
                learner = ClassifierLearner(
                    network, settled, image.preprocessing, train=inputs, valid=inputs, process=process
                )
                batch = next(iter(learner.batches(1)))
                learner.gradients(batch, MixedPrecision("float32", torch.device("cpu")))
        found = network.head.weight.grad
        assert found is not None
        network.zero_grad()
        return found / world

    whole = gradient(None, [0], 1)
    assert whole.abs().max() > 0
    torch.testing.assert_close(gradient(4, [0], 1), whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient(None, [0, 1], 2), whole, atol=1e-5, rtol=1e-4)


def test_balanced_classes_count_the_same() -> None:
    data = pictures([0, 0, 0, 1])
    assert class_weights(data, "none").tolist() == [1, 1]
    # Three pictures of 2/3 each, one of 2.
    assert class_weights(data, "balanced").tolist() == pytest.approx([2 / 3, 2])


def test_a_classifier_without_skill_is_doubted(tmp_path: Path) -> None:
    kind = find_kind("thumbnail_classifier")

    def card(**metrics: float) -> ModelCard:
        architecture = {"library": "shopvision", "name": "image_classifier"}
        values = {"name": "a", "tag": "1", "kind": kind.name, "source": "x", "files": {}, "architecture": architecture}
        return ModelCard.model_validate(values | {"metrics": metrics})

    assert kind.doubt(card(), kind.name) is None
    assert kind.doubt(card(accuracy=0.5, constant_answer_accuracy=0.4), kind.name) is None
    doubt = kind.doubt(card(accuracy=0.4, constant_answer_accuracy=0.4), kind.name)
    assert doubt == "is right no more often than who always says the most frequent class (0.40 and 0.40)"


def test_the_example_shows_every_default() -> None:
    path = Path(__file__).parents[3] / "docs" / "examples" / "classifier.toml"
    example = load_config(path, ClassifierConfig)
    plain = ClassifierConfig.model_validate({"data": {"pictures": example.data.pictures}})
    assert example == plain
    text = path.read_text()
    for section in (example.data, example.model, example.train):
        for field in type(section).model_fields:
            assert f"{field} = " in text, field
