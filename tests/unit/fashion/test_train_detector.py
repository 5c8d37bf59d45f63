"""``shopvision train detector`` and ``evaluate detector`` on pictures with coloured boxes, and their mistakes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from shopvision.errors import UserError
from shopvision.fashion.detection.config import DetectorConfig
from shopvision.fashion.detection.learner import DetectorLearner
from shopvision.fashion.detection.samples import SampleReader
from shopvision.fashion.detection.train import _start, read_splits, train_detector
from shopvision.images import PictureDoor
from shopvision.models.card import ModelCard
from shopvision.models.kinds import find_kind
from shopvision.models.version_folder import read_card
from shopvision.settings import get_settings
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.precision import MixedPrecision
from shopvision.training.run import TrainingRun
from tests.conftest import Run
from tests.unit.fashion.boxes_world import coco, world, write
from tests.unit.fashion.tiny_detectors import save_tiny

TRAIN = {"epochs": 2, "batch_size": 4, "scale": [1.0, 1.0]}


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    torch.manual_seed(1)
    network = timm.create_model("test_efficientnet", num_classes=7)
    timm.models.save_for_hf(network, tmp_path / "backbone", safe_serialization=True)
    return f"local-dir:{tmp_path / 'backbone'}"


def small(backbone: str) -> dict[str, Any]:
    return {"image": backbone, "longest_side": 64, "channels": 64, "head_convs": 1}


def write_config(folder: Path, **sections: dict[str, Any]) -> Path:
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    (folder / "detector.toml").write_text("\n".join(lines) + "\n")
    return folder / "detector.toml"


def test_from_boxes_to_a_measured_model(backbone: str, tmp_path: Path, command_line: Run) -> None:
    boxes = world(tmp_path / "photos")
    data = {"boxes": str(boxes), "valid_fraction": 0.25}
    config = write_config(tmp_path, data=data, model=small(backbone), train=TRAIN)
    arguments = ("train", "detector", "--config", config, "--output", tmp_path / "run", "--device", "cpu", "--json")
    status, stdout, stderr = command_line(*arguments)
    assert status == 0, stderr
    report = json.loads(stdout)
    assert report["metrics"].keys() == {"map", "map_50", "map_75", "mar_100"}
    assert report["counts"]["validation pictures"] == 3
    assert report["facts"]["training_boxes"].keys() == {"bag", "dress"}
    card = read_card(tmp_path / "run" / "model", "fashion_detector")
    assert card.architecture.arguments["labels"] == ["bag", "dress"]
    assert card.metrics == pytest.approx({name: of["value"] for name, of in report["metrics"].items()}, abs=1e-6)
    assert report["facts"]["thresholds"] == card.thresholds
    if card.thresholds:  # regions above this score fit best; a detector this small may find none that fits
        assert 0 < card.thresholds["score"] < 1
        assert report["facts"]["regions"]["f1"] > 0
    test = world(tmp_path / "test", 4, seed=9)
    status, stdout, stderr = command_line(
        "evaluate", "detector", tmp_path / "run" / "model", "--boxes", test, "--resamples", 3, "--json",
        "--output", tmp_path / "evaluation", "--device", "cpu",
    )  # fmt: skip
    assert status == 0, stderr
    measured = json.loads(stdout)
    assert measured == json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert {path.name for path in (tmp_path / "evaluation").iterdir()} == {"metrics.json", "metrics.png", "report.html"}
    assert measured["name"] == card.spec
    assert (measured["counts"]["pictures"], measured["counts"]["boxes"]) == (4, 6)
    assert sum(measured["facts"]["boxes"].values()) == 6
    map_50 = measured["metrics"]["map_50"]
    assert 0 <= map_50["low"] <= map_50["high"] <= 1
    assert {(part["group"], *part["metrics"]) for part in measured["parts"]} == {("class", "map", "map_50", "mar_100")}
    status, _, stderr = command_line(*arguments)
    assert status == 1
    assert "holds a run: continue it with --resume" in stderr
    status, stdout, stderr = command_line(
        "evaluate", "detector", tmp_path / "run" / "model", "--boxes", test, "--resamples", 3
    )
    assert status == 0, stderr
    assert "map_50" in stdout
    assert "class bag: map_50" in stdout
    refused(("evaluate", "detector", tmp_path / "run" / "model", "--boxes"), tmp_path, command_line)


def refused(command: tuple[object, ...], folder: Path, command_line: Run) -> None:
    """What cannot be measured on is one line."""
    renamed, turned = coco({}, images=1), coco({}, images=1)
    renamed["categories"][0]["name"] = "kilt"
    boxes = write(folder / "turned", turned)
    turned["images"][0] |= {"width": 80, "height": 100}
    boxes.write_text(json.dumps(turned))
    for file, message in (
        (write(folder / "empty", coco()), "There is no box on 2 pictures to measure on: choose another file."),
        (write(folder / "kilts", renamed), "category 'kilt' is unknown to the detector, which has bag, dress."),
        (write(folder / "wide", coco({"bbox": [0, 0, 500, 10]})), "lies outside of the picture (100 x 80)"),
        (boxes, "is 100 x 80 upright, its file of boxes says 80 x 100: boxes would lie elsewhere."),
    ):
        status, _, stderr = command_line(*command, file)
        assert status == 1
        assert len(stderr.strip().splitlines()) == 1, stderr
        assert message in stderr


def make(folder: Path, boxes: Path, model: dict[str, Any], **train: Any) -> tuple[DetectorConfig, TrainingRun]:
    config = DetectorConfig.model_validate(
        {"data": {"boxes": boxes, "valid_fraction": 0.25}, "model": model, "train": TRAIN | train}
    )
    return config, TrainingRun(output=folder, process=Process())


def test_both_sides_have_boxes(tmp_path: Path) -> None:
    """Where validation has none, each epoch measures as nothing, and the first one would be kept."""
    full, empty = world(tmp_path / "photos", 4, first=10), write(tmp_path / "empty", coco())
    lonely = write(tmp_path / "lonely", coco({}, images=4))
    for data, message in (
        ({"boxes": full, "valid": empty}, f"{empty}: none of 2 pictures to validate on has a box, so that no epoch"),
        ({"boxes": empty, "valid": full}, f"{empty}: no picture to learn from has a box"),
        ({"boxes": empty, "valid_fraction": 0.5}, "no picture to learn from has a box"),
        ({"boxes": lonely, "valid_fraction": 0.25}, f"{lonely}: n(o picture to learn|one of 1 pictures to validate)"),
    ):
        with pytest.raises(UserError, match=message):
            read_splits(DetectorConfig.model_validate({"data": data}))


def test_more_processes_than_pictures_are_refused(backbone: str, tmp_path: Path) -> None:
    config, run = make(tmp_path / "run", world(tmp_path / "photos", 8), small(backbone), batch_size=14)
    with pytest.raises(UserError, match="6 to learn from cannot be shared by 7 processes: lower --nproc-per-node"):
        train_detector(config, replace(run, process=Process(world=7)))
    with pytest.raises(UserError, match=r"train\.batch_size 14 is not shared out evenly among 3\."):
        train_detector(config, replace(run, process=Process(world=3)))
    assert not run.output.exists()


@pytest.mark.parametrize("family", ["conditional_detr", "rt_detr_v2", "yolos"])
def test_detectors_of_transformers_learn_other_classes(family: str, tmp_path: Path) -> None:
    base = f"local-dir:{save_tiny(family, tmp_path / 'base')}"
    config, run = make(tmp_path / "run", world(tmp_path / "photos", 8), {"base": base, "name": "mine"}, epochs=1)
    report = train_detector(config, run)
    assert report is not None
    assert report.card.name == "mine"
    assert report.card.architecture.arguments["config"]["id2label"] == {"0": "bag", "1": "dress"}
    assert find_kind("fashion_detector").load(report.folder, device="cpu").labels == ("bag", "dress")


def test_it_finds_garments_in_photos_that_it_has_not_learnt_from(backbone: str, tmp_path: Path) -> None:
    """With a backbone that begins at random, from six photos; after one step it finds nothing."""
    photos = world(tmp_path / "photos", 8)
    model = small(backbone) | {"frozen_stride": 0}
    config, run = make(tmp_path / "run", photos, model, epochs=8, lr=3e-3, batch_size=3)
    report = train_detector(config, run)
    assert report is not None
    assert report.metrics["map_50"] > 0.5
    config, run = make(tmp_path / "short", photos, model, epochs=1, lr=3e-3, batch_size=6)
    short = train_detector(config, run)
    assert short is not None
    assert short.metrics["map_50"] < 0.1


def test_micro_batches_change_no_gradient(backbone: str, tmp_path: Path) -> None:
    """Of a loss that is a mean over pictures: the weights of parts are their shares of the step."""
    boxes = world(tmp_path / "photos", 8)
    gradients = []
    for micro in (None, 1):
        config, _ = make(tmp_path / "run", boxes, small(backbone), micro_batch=micro)
        train, valid = read_splits(config)
        network = _start(config, train.classes).network
        network.loss = lambda inputs, _, network=network: network.fcos.backbone(  # type: ignore[method-assign]
            inputs["pixels"].permute(0, 3, 1, 2).float()
        )["0"].mean()
        with PictureDoor(get_settings().with_image_roots(config.data.picture_folders)) as door:
            reader = SampleReader(door, network.target)
            learner = DetectorLearner(network, config, reader, train=train, valid=valid, process=Process())
            batch = next(iter(learner.batches(1)))
            torch.manual_seed(4)
            learner.gradients(batch, MixedPrecision("float32", torch.device("cpu")))
        gradients.append([one.grad.clone() for one in network.parameters() if one.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 10
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"base": "local-dir:/nowhere", "channels": 64}}, "channels belongs to a detector for laptops"),
        ({"model": {"channels": 32}}, "channels: Input should be greater than or equal to 64"),
        ({"train": {"scale": [2.0, 1.0]}}, "scale wants the smaller number first"),
        ({"train": {"select_by": "mrr"}}, "select_by: Input should be 'map', 'map_50'"),
        ({"data": {"boxes": "/nowhere.json"}}, r"/nowhere.json cannot be read \(No such file"),
        ({"model": {"base": "zip:x"}}, "Detector source 'zip:x' is unknown"),
        ({"model": {"image": "local-dir:/nowhere"}}, "/nowhere holds neither card.json nor a timm config.json"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    sections: dict[str, dict[str, Any]], message: str, tmp_path: Path, command_line: Run
) -> None:
    whole: dict[str, dict[str, Any]] = {"data": {"boxes": str(world(tmp_path / "photos", 8))}}
    config = write_config(tmp_path, **(whole | sections))
    status, _, stderr = command_line("train", "detector", "--config", config, "--output", tmp_path / "run")
    assert status == 1
    assert len(stderr.strip().splitlines()) == 1
    assert re.search(message, stderr), stderr
    assert not (tmp_path / "run").exists()


def test_the_example_file_shows_every_field_with_its_default() -> None:
    path = Path(__file__).parents[3] / "docs" / "examples" / "detector.toml"
    config = load_config(path, DetectorConfig)
    shown = {line.lstrip("# ").split(" = ")[0] for line in path.read_text().splitlines() if " = " in line}
    for section in (config.data, config.model, config.train):
        assert set(type(section).model_fields) <= shown
    assert config == DetectorConfig.model_validate({"data": {"boxes": config.data.boxes}})
    assert config.learning_rates == (2e-4, 1e-3)


def test_photos_of_training_are_not_measured_on(tmp_path: Path) -> None:
    boxes = world(tmp_path / "photos", 8)
    config = DetectorConfig.model_validate({"data": {"boxes": boxes, "valid": boxes}})
    with pytest.raises(UserError, match=r"is in training and validation \(8 such photos\)"):
        read_splits(config)


def test_a_detector_that_finds_nothing_is_doubted() -> None:
    kind = find_kind("fashion_detector")

    def doubt(**metrics: float) -> str | None:
        card = ModelCard.model_validate(
            {"name": "d", "tag": "1", "kind": kind.name, "architecture": {"name": "x"}, "source": "s", "files": {},
             "metrics": metrics}
        )  # fmt: skip
        return kind.doubt(card, kind.name)

    assert doubt() is None
    assert doubt(map_50=0.3) is None
    assert doubt(map_50=0.04) == "finds hardly any garment where it is (mAP50 0.04)"
