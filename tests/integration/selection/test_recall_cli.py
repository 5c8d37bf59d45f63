"""``shopvision train recall`` and ``evaluate recall``: from items to a model that serves, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shopvision import models
from shopvision.selection.recall.config import RecallConfig
from shopvision.selection.recall.page import MOST_TEXTS
from shopvision.selection.recall.predict import RecallModel
from shopvision.selection.recall.train import train_recall
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.run import TrainingRun
from tests.conftest import Run
from tests.integration.training_commands import (
    assert_same_first_gradients,
    assert_same_weights,
    save_first_gradients,
    train,
    train_in_two_processes,
    values,
    write_config,
)
from tests.unit.selection.recall_world import World, make_world
from tests.unit.selection.tiny_recall import save_tiny_recall

METHODS = ("fine-tuned", "graph")


def first_gradients(folder: Path, process: Process) -> None:
    """Write the gradients of the first step of ``folder/METHOD.toml`` to ``folder/METHOD-WORLD.pt``."""
    for method in METHODS:
        config = load_config(folder / f"{method}.toml", RecallConfig)
        run = f"{method}-{process.world}"
        save_first_gradients(
            folder / f"{run}.pt", partial(train_recall, config, TrainingRun(output=folder / run, process=process))
        )
        process.wait()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "world", titles=40, dropout=0.0)  # which every process draws for itself


@pytest.mark.usefixtures("database")
def test_from_items_to_a_model_that_serves_and_is_measured(
    world: World, tmp_path: Path, set_environment: Callable[..., None], command_line: Run
) -> None:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    config = write_config(tmp_path / "recall.toml", world.sections(epochs=1))
    report = train("recall", "--config", config, "--output", tmp_path / "run", "--activate", "--force")
    assert report["activated"]
    assert report["counts"] == {
        "validation texts": 10, "texts for train": 30, "unreadable pictures": 0, "pictures searched among": 20,
    }  # fmt: skip
    serving = models.active("image_recall")
    assert isinstance(models.load("image_recall"), RecallModel)
    status, out, err = command_line(
        "evaluate", "recall", serving.spec, "--items", world.items, "--images", world.images, "--json",
        "--output", tmp_path / "out", "--page", tmp_path / "page.html", "--device", "cpu",
    )  # fmt: skip
    assert status == 0, err
    assert json.loads(out)["counts"]["pictures searched among"] == 80
    assert (tmp_path / "out" / "report.html").is_file()
    shown = queries_of((tmp_path / "page.html").read_text())
    assert len(shown["queries"]) == MOST_TEXTS
    assert shown["least"] == pytest.approx(serving.card.thresholds["score"])
    ranks = []
    for query in shown["queries"]:
        assert [row["title"] == query["text"] for row in query["rows"]] == [row["right"] for row in query["rows"]]
        assert (len(query["rows"]), query["left_out"]) == (80, 0)
        ranks.append([row["right"] for row in query["rows"]].index(True))
    assert ranks == sorted(ranks, reverse=True)  # the worst first


def queries_of(page: str) -> dict[str, Any]:
    """What a gallery's script reads."""
    found = re.search(r'<script type="application/json" id="queries">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    told: dict[str, Any] = json.loads(found[1])
    return told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "Say what to evaluate on: --items FILE, --pairs FILE, or --protocol poi500"),
        (["--protocol", "poi500"], "--protocol poi500 and --places FILE belong together"),
        (["--protocol", "poi500", "--places", "x.csv"], "give --images DIR"),
        (["--pairs", "x.csv", "--page", "/nowhere/page.html"], "name a file in a folder that exists"),
        (["--protocol", "poi500", "--pairs", "x.csv"], "--items and --pairs do not go with --protocol"),
        (["--pairs", "/nowhere.csv"], "/nowhere.csv"),
    ],
)
def test_a_mistake_is_one_line_and_a_failure(command_line: Run, tmp_path: Path, options: list[str], words: str) -> None:
    save_tiny_recall(tmp_path / "model")
    status, out, err = command_line("evaluate", "recall", tmp_path / "model", *options)
    assert (status, out) == (1, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_two_processes_learn_what_one_does(world: World, tmp_path: Path) -> None:
    """First step: both encoders with micro-batches, and frozen ones with a graph. Then a whole run by command."""
    write_config(tmp_path / "fine-tuned.toml", world.sections(frozen=False, micro_batch=3))
    write_config(tmp_path / "graph.toml", world.sections(graph=0.3))
    write_config(tmp_path / "frozen.toml", world.sections(epochs=1, graph=0.3))
    two = train_in_two_processes(tmp_path, "recall", "frozen.toml", train_recall, __name__)
    first_gradients(tmp_path, Process())
    for method, tensors in (("fine-tuned", 20), ("graph", 5)):
        assert_same_first_gradients(tmp_path, method, at_least=tensors, rtol=1e-4)
    alone = train("recall", "--config", tmp_path / "frozen.toml", "--output", tmp_path / "one")
    assert values(two) == pytest.approx(values(alone), abs=0.02)
    assert_same_weights(tmp_path)
