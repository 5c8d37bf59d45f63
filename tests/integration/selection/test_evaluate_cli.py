"""``shopvision evaluate ranker``: table, JSON, files, and what a mistake looks like."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Run
from tests.unit.selection.clik_world import World, make_world
from tests.unit.selection.tiny_clik import arguments, save_tiny


@pytest.fixture
def run(command_line: Run) -> Run:
    return partial(command_line, "evaluate", "ranker")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), topics=20)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, arguments("test_resnet"))
    return folder


@pytest.fixture(scope="module")
def config(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "clik.toml"
    sections = world.sections() | {"refine": world.sections()["refine"] | {"fractions": [0.5, 0.2, 0.3]}}
    lines = []
    for name, section in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    file.write_text("\n".join(lines))
    return file


def test_a_table_is_evaluated_whole(run: Run, world: World, model: Path, tmp_path: Path) -> None:
    status, out, err = run(
        model, "--table", world.table, "--images", world.images, "--label", "ctr", "--output", tmp_path / "out",
        "--device", "cpu",
    )  # fmt: skip
    assert status == 0, err
    for word in ("metric", "95 % interval", "random", "mrr", "top5_top5", "ndcg_10", "category fashion: mrr"):
        assert word in out
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["counts"]["exhibitions"] == 20
    assert f"{written['metrics']['mrr']['value']:.4f}" in out
    assert written["metrics"]["mrr"]["low"] < written["metrics"]["mrr"]["value"] < written["metrics"]["mrr"]["high"]
    with Image.open(tmp_path / "out" / "metrics.png") as plot:
        assert min(plot.size) > 400


def test_a_configuration_gives_its_test_split(run: Run, config: Path, model: Path) -> None:
    status, out, err = run(model, "--config", config, "--json", "--device", "cpu")
    assert status == 0, err
    test = json.loads(out)
    status, out, _ = run(model, "--config", config, "--split", "train", "--json", "--device", "cpu")
    train = json.loads(out)
    assert (test["counts"]["exhibitions"], train["counts"]["exhibitions"]) == (6, 10)
    assert test["data"] != train["data"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "Say what to evaluate on: --config FILE, or --table FILE --label COLUMN"),
        (["--table", "TABLE"], "--table needs --label"),
        (["--table", "TABLE", "--label", "ctr", "--split", "test"], "--split belongs to --config"),
        (["--table", "TABLE", "--label", "clicks"], "clicks"),
        (["--config", "CONFIG", "--label", "ctr"], "--images and --label belong to --table"),
        (["--config", "CONFIG", "--split", "dev"], "There is no split 'dev': choose train, valid or test."),
        (["--config", "/nowhere.toml"], "/nowhere.toml cannot be read"),
        (["--table", "TABLE", "--label", "ctr", "--images", "IMAGES", "--output", "TABLE"], "cannot be made"),
        (["--table", "TABLE", "--label", "ctr", "--images", "IMAGES", "--device", "tpu7"], "Device 'tpu7' is unknown"),
    ],
)
def test_a_mistake_is_one_line_and_a_failure(
    run: Run, world: World, config: Path, model: Path, options: list[str], words: str
) -> None:
    places = {"TABLE": world.table, "IMAGES": world.images, "CONFIG": config}
    status, out, err = run(model, *(places.get(option, option) for option in options))
    assert (status, out) == (1, "")
    assert words in err
    assert err.strip().count("\n") == 0, err


def test_a_model_that_is_none_is_named(run: Run, world: World, tmp_path: Path) -> None:
    of = ("--table", world.table, "--images", world.images, "--label", "ctr")
    assert "holds no card.json" in run(tmp_path, *of)[2]
    assert f"{tmp_path / 'gone'} is no folder" in run(tmp_path / "gone", *of)[2]
