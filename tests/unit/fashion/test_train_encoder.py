"""``shopvision train encoder`` and ``evaluate encoder`` on made products, and their mistakes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shopvision.encoders.image_encoder import load_image_encoder
from shopvision.errors import UserError
from shopvision.fashion.composition.arguments import CompositionArguments
from shopvision.fashion.encoding.by_category import choose_categories
from shopvision.fashion.encoding.config import EncoderConfig
from shopvision.fashion.encoding.start import block_of
from shopvision.fashion.encoding.train import read_splits, train_encoder
from shopvision.fashion.kinds import COMPOSED_KIND
from shopvision.models.card import ModelCard
from shopvision.models.importers import fetch
from shopvision.models.kinds import find_kind
from shopvision.models.version_folder import read_card
from shopvision.models.weights import read_tensors
from shopvision.training.config import load_config
from shopvision.training.run import TrainingRun
from tests.conftest import Run
from tests.unit.fashion.pairs_world import backbone, write_items, write_pairs
from tests.unit.fashion.tiny_members import save_tiny_detector

TRAIN = {"epochs": 2, "batch_size": 8, "views": 2, "patience": 5}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    return backbone(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_HOME=str(tmp_path / "home"))


def write_config(folder: Path, **sections: dict[str, Any]) -> Path:
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    (folder / "encoder.toml").write_text("\n".join(lines) + "\n")
    return folder / "encoder.toml"


def make(image: str, data: dict[str, Any], model: dict[str, Any] | None = None, **train: Any) -> EncoderConfig:
    return EncoderConfig.model_validate(
        {"data": data, "model": {"image": image, "dimension": 8} | (model or {}), "train": TRAIN | train}
    )


def test_from_pairs_to_a_measured_model(image: str, tmp_path: Path, command_line: Run) -> None:
    pairs = write_pairs(tmp_path / "shop", 24, views=2)
    data = {"pairs": str(pairs), "valid_fraction": 0.25, "test_fraction": 0.2}
    config = write_config(tmp_path, data=data, model={"image": image, "dimension": 8}, train=TRAIN)
    arguments = ("train", "encoder", "--config", config, "--output", tmp_path / "run", "--device", "cpu", "--json")
    status, stdout, stderr = command_line(*arguments)
    assert status == 0, stderr
    report = json.loads(stdout)
    assert report["metrics"].keys() == {"recall_1", "recall_5", "recall_10", "map"}
    assert [part["group"] for part in report["parts"]] == ["before training", "test"]
    assert report["counts"]["validation pairs"] == 12
    card = read_card(tmp_path / "run" / "model", "image_encoder")
    assert (card.architecture.name, card.dimension) == ("projected", 8)
    for name in ("recall_1", "map"):
        measured, frozen = report["metrics"][name], report["parts"][0]["metrics"][name]
        assert card.metrics[name] == pytest.approx(measured["value"], abs=1e-6)
        assert card.metrics[f"random_{name}"] == pytest.approx(measured["random"], abs=1e-6)
        assert card.metrics[f"frozen_{name}"] == pytest.approx(frozen["value"], abs=1e-6)
    unseen = write_pairs(tmp_path / "test", 6, first=50)
    items = write_items(tmp_path / "more", 6)
    plain = fetch(image, tmp_path / "plain")
    status, stdout, stderr = command_line(
        "evaluate", "encoder", tmp_path / "run" / "model", "--pairs", unseen, "--gallery-from", items, "--json",
        "--against", tmp_path / "plain", "--resamples", 20, "--output", tmp_path / "out", "--device", "cpu",
    )  # fmt: skip
    assert status == 0, stderr
    measured = json.loads(stdout)
    assert measured == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.json", "metrics.png", "report.html"}
    assert measured["counts"] == {
        "products": 6, "queries": 6, "pictures searched among": 12, "unreadable pictures left out": 0
    }  # fmt: skip
    assert measured["metrics"]["recall_1"]["random"] == pytest.approx(1 / 12)
    assert {part["name"] for part in measured["parts"] if part["group"] == "category"} == {"bag", "shoes"}
    other, ahead = measured["parts"][:2]
    assert [(part["group"], part["name"]) for part in (other, ahead)] == [
        ("baseline", plain.spec), ("ahead of", plain.spec)
    ]  # fmt: skip
    for name, difference in ahead["metrics"].items():
        expected = measured["metrics"][name]["value"] - other["metrics"][name]["value"]
        assert difference["value"] == pytest.approx(expected)
        assert difference["low"] <= difference["value"] <= difference["high"]
    status, _, stderr = command_line(*arguments)
    assert status == 1
    assert "holds a run: continue it with --resume" in stderr


def test_features_that_are_kept_give_the_vectors_that_serve(image: str, tmp_path: Path) -> None:
    """What was measured over kept features is what the model version gives for the pictures themselves."""
    pairs = write_pairs(tmp_path / "shop", 24)
    config = make(image, {"pairs": pairs}, epochs=1)
    report = train_encoder(config, TrainingRun(output=tmp_path / "run"))
    assert report is not None
    encoder = load_image_encoder(report.folder, device="cpu", precision="float32", compile_mode="never")
    valid = read_splits(config)["valid"]
    gallery = valid.gallery()
    vectors = encoder([one.view.uri.removeprefix("file://") for one in gallery])
    queries = encoder([pair.anchor.uri.removeprefix("file://") for pair in valid.measured])
    nearest = (queries @ vectors.T).argmax(axis=1)
    hits = [gallery[place].product == pair.product for place, pair in zip(nearest, valid.measured, strict=True)]
    assert np.mean(hits) == pytest.approx(report.valid["recall_1"].value)


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_same_bytes(image: str, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "shop", 12)
    model = {"fine_tune": "last", "blocks": 1}
    whole = make(image, {"pairs": pairs}, model, learn_temperature=True, batch_size=4, micro_batch=3)
    train_encoder(whole, TrainingRun(output=tmp_path / "whole"))

    def stop(progress: Any) -> None:
        if progress.epoch == 2 and progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_encoder(whole, TrainingRun(output=tmp_path / "cut", on_progress=stop))
    train_encoder(whole, TrainingRun(output=tmp_path / "cut", resume=True))
    one, other = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()
    start = read_tensors_of(image, tmp_path)
    learnt = {name for name, tensor in read_tensors(one).items() if not torch.equal(tensor, start.get(name, tensor))}
    assert {block_of(name.removeprefix("backbone.")) for name in learnt} <= {"blocks.4.0", None}
    assert any(name.startswith("backbone.blocks.4.0") for name in learnt)
    changed = whole.model_copy(update={"train": whole.train.model_copy(update={"lr": 1.0})})
    with pytest.raises(UserError, match=r"--resume: train\.lr differs"):
        train_encoder(changed, TrainingRun(output=tmp_path / "cut", resume=True))


def read_tensors_of(image: str, folder: Path) -> dict[str, torch.Tensor]:
    fetch(image, folder / "plain")
    return {f"backbone.{name}": of for name, of in read_tensors(folder / "plain" / "model.safetensors").items()}


def test_training_stops_when_validation_does_not_rise(image: str, tmp_path: Path) -> None:
    epochs: list[int] = []
    run = TrainingRun(output=tmp_path / "run", on_progress=lambda progress: epochs.append(progress.epoch))
    config = make(image, {"pairs": write_pairs(tmp_path / "shop", 24)}, epochs=50, patience=2, lr=1e-12)
    report = train_encoder(config, run)
    assert report is not None
    assert report.best_epoch == 1
    assert max(epochs) == 3


def test_encoders_of_categories_beside_the_common_one(image: str, tmp_path: Path, command_line: Run) -> None:
    pairs = write_pairs(tmp_path / "shop", 40)
    lines = [json.loads(line) for line in pairs.read_text().splitlines()]
    for line in lines[:6]:
        line["category"] = "hat"
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {"pairs": str(pairs), "valid_fraction": 0.3, "per_category": True, "least_products": 8}
    config = write_config(tmp_path, data=data, model={"image": image, "dimension": 4}, train=TRAIN | {"epochs": 1})
    status, stdout, stderr = command_line(
        "train", "encoder", "--config", config, "--output", tmp_path / "run", "--device", "cpu", "--json"
    )
    assert status == 0, stderr
    report = json.loads(stdout)
    assert report["facts"]["encoders"].keys() == {"bag", "shoes"}
    for name, folder in report["facts"]["encoders"].items():
        assert read_card(Path(folder), "image_encoder").name == f"encoder-{name}"
    names = [part["name"] for part in report["parts"] if part["group"] == "category"]
    assert sorted(names)[:3] == ["bag, common encoder", "bag, own encoder", "bag, own minus common"]
    notes = "\n".join(report["notes"])
    assert re.search("^hat is left to the common encoder: . products of training, fewer than 8", notes, re.MULTILINE)
    assert "shopvision models compose --name encoder-by-category" in notes


def test_small_categories_of_any_name_have_encoders(image: str, tmp_path: Path) -> None:
    """Names without a letter that folders may have, and fewer pictures than vectors have numbers."""
    files = {"pairs": write_pairs(tmp_path / "train", 8), "valid": write_pairs(tmp_path / "valid", 4, first=100)}
    for file in files.values():
        file.write_text(file.read_text().replace('"bag"', '"包"').replace('"shoes"', '"鞋"'))
    config = make(image, {**files, "per_category": True, "least_products": 4}, epochs=1)
    report = train_encoder(config, TrainingRun(output=tmp_path / "run"))
    assert report is not None
    folders = {result.name: result.folder for result in report.categories}
    assert folders.keys() == {"包", "鞋"}
    assert len({read_card(folder).name for folder in folders.values()}) == 2


def test_with_a_detector_one_version_routes_by_category(image: str, tmp_path: Path) -> None:
    """Where it knows a class of each category's name; where not, that is said before anything is trained."""
    files = {"pairs": write_pairs(tmp_path / "train", 8), "valid": write_pairs(tmp_path / "valid", 4, first=100)}
    config = make(image, {**files, "per_category": True, "least_products": 4}, epochs=1)
    finder = save_tiny_detector(tmp_path / "finder")
    report = train_encoder(config, TrainingRun(output=tmp_path / "run"), detector=finder)
    assert report is not None
    assert report.composed is not None
    card = read_card(report.composed, COMPOSED_KIND)
    assert card.name == "encoder-by-category"
    arguments = CompositionArguments.model_validate(card.architecture.arguments)
    assert arguments.detector == read_card(finder).spec
    assert arguments.encoder == report.card.spec
    assert arguments.by_class == {one.name: read_card(one.folder).spec for one in report.categories}
    assert arguments.by_class.keys() == {"bag", "shoes"}
    for file in files.values():
        file.write_text(file.read_text().replace('"shoes"', '"clogs"'))
    with pytest.raises(UserError, match=r"'clogs' .the encoder for clogs.*: it knows bag, dress, shoes"):
        train_encoder(config, TrainingRun(output=tmp_path / "other"), detector=finder)
    assert not (tmp_path / "other").exists()


def test_categories_count_the_products_that_are_learnt_from(image: str, tmp_path: Path) -> None:
    """Pairs that are not trained on make no category large enough: that shows before anything is trained."""
    bag = "Shop/bag/Small"
    valid = write_pairs(tmp_path / "valid", 4, first=100, category=bag)
    data = {"items": write_items(tmp_path, 48), "valid": valid, "per_category": [bag], "least_products": 15}
    config = make(image, data)
    splits = read_splits(config)
    assert choose_categories(config, splits["train"], splits["valid"], 1)[0] == (bag,)
    with pytest.raises(UserError, match="No category has 15 products of training"):
        choose_categories(make(image, data, single_pictures=False), splits["train"], splits["valid"], 1)


def test_categories_whose_pairs_processes_cannot_share_are_left_out(image: str, tmp_path: Path) -> None:
    files = {"pairs": write_pairs(tmp_path / "train", 7), "valid": write_pairs(tmp_path / "valid", 4, first=100)}
    config = make(image, {**files, "per_category": True, "least_products": 2}, batch_size=6)
    splits = read_splits(config)
    assert choose_categories(config, splits["train"], splits["valid"], 1)[0] == ("bag", "shoes")
    note = "shoes is left to the common encoder: 3 pairs of training are too few to share."
    assert choose_categories(config, splits["train"], splits["valid"], 2) == (("bag",), (note,))
    with pytest.raises(UserError, match="products of training, two pairs for each of 3 processes and a pair of val"):
        choose_categories(config, splits["train"], splits["valid"], 3)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {}}, "data: give pairs or items, one of the two"),
        ({"data": {"pairs": "x", "product": "style"}}, "product belongs to items; a file of pairs"),
        ({"data": {"pairs": "/nowhere.jsonl"}}, "/nowhere.jsonl: there is no such file"),
        ({"model": {"blocks": 3}}, 'blocks belongs to fine_tune = "last"'),
        ({"model": {"dimension": 100000}}, "model.dimension 100000 is more than the"),
        ({"train": {"batch_size": 500}}, "pairs of training are fewer than a step of 500"),
        ({"train": {"temperature": 3}}, "train.temperature: Input should be less than or equal to 1"),
        ({"train": {"select_by": "mrr"}}, "select_by: Input should be 'map', 'recall_1'"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    sections: dict[str, dict[str, Any]], message: str, image: str, tmp_path: Path, command_line: Run
) -> None:
    whole = {
        "data": {"pairs": str(write_pairs(tmp_path / "shop", 12))},
        "model": {"image": image, "dimension": 8} | sections.get("model", {}),
        "train": TRAIN | sections.get("train", {}),
    }
    if "data" in sections:
        whole["data"] = sections["data"]
    config = write_config(tmp_path, **whole)
    status, _, stderr = command_line("train", "encoder", "--config", config, "--output", tmp_path / "run")
    assert status == 1
    assert len(stderr.strip().splitlines()) == 1, stderr
    assert message in stderr
    assert not (tmp_path / "run").exists()


def test_unreadable_pictures_are_done_without_and_named(image: str, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "shop", 24)
    (tmp_path / "shop" / "3-0.png").write_bytes(b"no picture")
    report = train_encoder(make(image, {"pairs": pairs}), TrainingRun(output=tmp_path / "run"))
    assert report is not None
    assert report.unreadable == 1
    assert sum(report.pairs.values()) == 23
    assert "3-0.png" in (tmp_path / "run" / "unreadable.jsonl").read_text()


def test_the_example_file_shows_every_field_with_its_default() -> None:
    path = Path(__file__).parents[3] / "docs" / "examples" / "encoder.toml"
    config = load_config(path, EncoderConfig)
    shown = {line.lstrip("# ").split(" = ")[0] for line in path.read_text().splitlines() if " = " in line}
    for section in (config.data, config.model, config.train):
        assert set(type(section).model_fields) <= shown
    assert config == EncoderConfig.model_validate({"data": {"items": config.data.items}})


def test_an_encoder_that_learnt_nothing_is_doubted() -> None:
    kind = find_kind("image_encoder")

    def doubt(**metrics: float) -> str | None:
        card = ModelCard.model_validate(
            {"name": "e", "tag": "1", "kind": kind.name, "architecture": {"name": "x"}, "source": "s", "files": {},
             "metrics": metrics}
        )  # fmt: skip
        return kind.doubt(card, "catalogue_encoder")

    assert doubt() is None
    assert doubt(map=0.4, frozen_map=0.3, random_map=0.01) is None
    assert doubt(map=0.3, frozen_map=0.3, random_map=0.01) == (
        "finds products no better than the image encoder did before training (mAP 0.30 against 0.30)"
    )
    assert doubt(map=0.01, random_map=0.01) == "finds products no better than chance (mAP 0.01)"


@pytest.mark.parametrize(
    ("parameter", "block"),
    [
        ("blocks.6.0.conv_pw.weight", "blocks.6.0"),
        ("blocks.11.mlp.fc1.weight", "blocks.11"),
        ("layers.3.blocks.1.attn.qkv.weight", "layers.3.blocks.1"),
        ("model.encoder.layers.3.blocks.1.mlp.fc1.weight", "model.encoder.layers.3.blocks.1"),
        ("layer4.1.conv1.weight", "layer4.1"),
        ("conv_head.weight", None),
    ],
)
def test_blocks_are_told_by_their_numbers(parameter: str, block: str | None) -> None:
    assert block_of(parameter) == block
