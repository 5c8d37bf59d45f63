"""From items to a knowledge graph, to pair models that read graphs, to an ensemble of them that serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from shopvision import models
from shopvision.errors import UserError
from shopvision.items.item import Item
from tests.integration.training_commands import train, write_config
from tests.unit.matching.matcher_world import make_world
from worker.cli.models import app as model_commands


@pytest.mark.usefixtures("database")
def test_a_graph_teaches_models_that_serve_together(tmp_path: Path, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    world = make_world(tmp_path / "world", pairs=60)
    graph = write_config(
        tmp_path / "graph.toml",
        {
            "data": {"items": str(world.items), "held_out": 0.05},
            "model": {"name": "shop", "dimension": 8},
            "train": {"epochs": 2, "batch_size": 64},
        },
    )
    told = train("graph", "--config", graph, "--output", tmp_path / "graph")
    assert told["counts"]["entities in all"] == 120 + 5  # two categories, three sizes
    assert told["counts"]["relations in all"] == 2
    assert told["metrics"]["hits_1"]["random"] == pytest.approx(0.2, abs=0.05)  # of these five values
    with pytest.raises(UserError, match="holds a run: continue it with --resume"):
        train("graph", "--config", graph, "--output", tmp_path / "graph")
    command = ["import", f"local-dir:{told['model']}", "--tag", "1", "--json"]
    imported = json.loads(CliRunner().invoke(model_commands, command, catch_exceptions=False).stdout)
    assert imported["spec"] == "shop:1"
    with pytest.raises(UserError, match="knowledge_graph"):
        models.activate("pair_scorer", "shop:1")

    members = []
    for family, options in (("pkgm", {"graph": "shop:1", "keys": 4}), ("gcn", {"hidden": 8, "neighbours": 4})):
        sections = world.sections(family, model={"text": world.text, **options}, epochs=1)
        sections["thresholds"] = {"cross_fit": 0}
        config = write_config(tmp_path / f"{family}.toml", sections)
        members += ["--member", train("matcher", "--config", config, "--output", tmp_path / family)["model"]]
    pairs = ["--pairs", world.pairs, "--items", world.items, "--output", tmp_path / "both"]
    told = train("ensemble", *members, *pairs, "--activate", "--force")
    served = models.local_copy(models.active("pair_scorer"))
    scorer = models.kinds.find_kind("pair_scorer").load(served, device="cpu")
    items = [Item("n", "red watch", category="watch"), Item("m", "watch red", category="watch")]
    assert 0 <= scorer.score(items, np.array([0]), np.array([1]))[0] <= 1
