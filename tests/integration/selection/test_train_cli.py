"""``shopvision train clik`` end to end, its mistakes, and several processes against one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from shopvision import models
from shopvision.errors import UserError
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.clik.predict import PlanRanker
from shopvision.selection.clik.train import train_clik
from shopvision.training.config import load_config
from shopvision.training.distributed import Process
from shopvision.training.run import TrainingRun
from tests.integration.training_commands import (
    assert_same_first_gradients,
    assert_same_weights,
    save_first_gradients,
    train,
    train_in_two_processes,
    values,
    write_config,
)
from tests.unit.selection.clik_world import RANDOM_MRR, World, make_world

METHODS = ("clik", "triplet")


def first_gradients(folder: Path, process: Process) -> None:
    """Write the gradients of the first step of ``folder/METHOD.toml`` to ``folder/METHOD-WORLD.pt``."""
    for method in METHODS:
        config = load_config(folder / f"{method}.toml", ClikConfig)
        run = f"{method}-{process.world}"
        save_first_gradients(
            folder / f"{run}.pt", partial(train_clik, config, TrainingRun(output=folder / run, process=process))
        )
        process.wait()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "world", dropout=0.0)


@pytest.mark.usefixtures("database")
def test_from_a_table_to_a_model_that_ranks_plans(
    world: World, tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    config = write_config(tmp_path / "clik.toml", world.sections(epochs=2))
    report = train("clik", "--config", config, "--output", tmp_path / "run", "--activate")
    assert report["activated"]
    assert report["counts"] == {
        "validation exhibitions": 18, "exhibitions for train": 42, "exhibitions for test": 0, "unreadable pictures": 0,
    }  # fmt: skip
    assert report["metrics"]["mrr"]["value"] > 1.5 * RANDOM_MRR
    serving = models.active("plan_ranker")
    assert serving.spec == report["name"]
    ranked = PlanRanker(models.local_copy(serving))({"name": "summer sale"}, sorted(world.images.iterdir())[:5])
    assert len(ranked) == 5
    with pytest.raises(UserError, match="holds a run: continue it with --resume"):
        train("clik", "--config", config, "--output", tmp_path / "run")
    assert train("clik", "--config", config, "--output", tmp_path / "run", "--resume")["name"] == report["name"]


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("train", {"epoch": 2}, r"clik\.toml: train\.epoch is unknown; there are epochs, weight_decay"),
        ("data", {"label": "sales"}, "sales"),
        ("model", {"text": "local-dir:/nowhere"}, "/nowhere holds no config.json"),
        ("model", {"image": "wheel:none"}, "no importer for the wheel 'none'"),
        ("refine", {"min_products": 11, "candidates": 11}, "No exhibition is left for train"),
        ("train", {"select_by": "f1"}, r'select_by = "f1" is unknown; there are mrr'),
        ("model", {"max_length": 600}, "max_length 600 is "),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    world: World, tmp_path: Path, section: str, changes: dict[str, Any], message: str
) -> None:
    sections = world.sections()
    sections[section] |= changes
    config = write_config(tmp_path / "clik.toml", sections)
    with pytest.raises(UserError, match=message) as caught:
        train("clik", "--config", config, "--output", tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # their gradients are those of one in test_clik_distributed
def test_two_processes_learn_what_one_does(world: World, tmp_path: Path) -> None:
    """Full fine-tuning, first step: both encoders, crops, the bank, micro-batches. Frozen: a whole run by command."""
    for method in METHODS:
        sections = world.sections(
            frozen=False, method=method, matching_weight=1.0, temperature=0.5, word_dropout=0.0, groups=2, micro_batch=5
        )
        write_config(tmp_path / f"{method}.toml", sections)
    write_config(tmp_path / "frozen.toml", world.sections(epochs=1))
    two = train_in_two_processes(tmp_path, "clik", "frozen.toml", train_clik, __name__)
    first_gradients(tmp_path, Process())
    for method in METHODS:
        assert_same_first_gradients(tmp_path, method, at_least=50, rtol=1e-5)
    alone = train("clik", "--config", tmp_path / "frozen.toml", "--output", tmp_path / "one")
    assert values(two) == pytest.approx(values(alone), abs=0.02)
    assert_same_weights(tmp_path, but_not=["memory_bank"])  # the same rows in another order
