"""The recipe of eight members, as the example file has it: one command trains them all, another predicts."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from shopvision.matching.families.registry import find_family
from shopvision.matching.fitting.config import DEFAULT_FAMILY
from tests.integration.training_commands import train
from tests.unit.matching.matcher_world import World, make_world
from worker.cli.evaluate import app as evaluations
from worker.cli.pairs import app as pair_commands

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "ensemble.toml"
PAIRS = 24


def tiny_recipe(world: World) -> dict[str, Any]:
    """The example with encoders of a few thousand weights, and as little to learn as there can be."""
    recipe = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    recipe["data"] = {"pairs": str(world.pairs), "items": str(world.items), "fractions": [0.5, 0.5, 0.0]}
    recipe["train"] |= {"epochs": 1, "precision": "float32"}
    recipe["pretraining"] |= {"epochs": 1, "batch_size": 24}
    for member in recipe["members"]:
        model = member["model"]
        options = find_family(model.setdefault("family", DEFAULT_FAMILY)).options.model_fields
        tiny = {"text": world.text, "image": world.image, "grid": 2, "fields": {"title": 24, "attributes": 16}}
        model |= {name: value for name, value in tiny.items() if name in options}
        if "fields" not in options and "text" in options:
            member["text"] = member.get("text", {}) | {"max_length": 40}
    return recipe


def as_toml(recipe: dict[str, Any]) -> str:
    """JSON is TOML for what stands here, but for inline tables."""

    def value(one: Any) -> str:
        if isinstance(one, dict):
            return "{ " + ", ".join(f"{key} = {value(inner)}" for key, inner in one.items()) + " }"
        return json.dumps(one)

    lines = [f"{name} = {value(section)}" for name, section in recipe.items() if name != "members"]
    for member in recipe["members"]:
        lines += ["[[members]]", *(f"{name} = {value(one)}" for name, one in member.items())]
    return "\n".join(lines) + "\n"


@pytest.fixture
def world(tmp_path: Path, set_environment: Callable[..., None]) -> World:
    set_environment(SHOPVISION_HOME=str(tmp_path / "home"))
    made = make_world(tmp_path / "shop", pairs=PAIRS)
    # Pictures are named as from the file of items.
    items = [json.loads(line) for line in made.items.read_text().splitlines()]
    made.items.write_text("".join(json.dumps(item | {"image": f"images/{item['image']}"}) + "\n" for item in items))
    return made


def test_one_file_trains_eight_members_and_one_command_predicts(world: World, tmp_path: Path) -> None:
    (tmp_path / "ensemble.toml").write_text(as_toml(tiny_recipe(world)))
    output = tmp_path / "run"
    told = train("ensemble", "--config", tmp_path / "ensemble.toml", "--output", output)
    names = [member["name"] for member in tiny_recipe(world)["members"]]
    assert len(names) == 8
    for kind in ("member", "without"):
        assert [part["name"] for part in told["parts"] if part["group"] == kind] == names
    assert told["facts"]["decided alike"][names[0]].keys() == set(names[1:])
    assert (output / "members.png").is_file()
    for name in ("coca", "k3m"):
        assert any(note.startswith(f"{name}: ") and "Learnt from" in note for note in told["notes"])

    arguments = [str(world.pairs), "--items", str(world.items), "--model", str(output / "model")]
    command = ["score", *arguments, "--output", str(tmp_path / "scores.csv"), "--json"]
    scored = json.loads(CliRunner().invoke(pair_commands, command, catch_exceptions=False).stdout)
    assert (scored["scored"], scored["refused"]) == (PAIRS, 0)
    with (tmp_path / "scores.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == PAIRS
    assert all(0 < float(row["probability"]) < 1 for row in rows)

    command = ["matcher", "--model", str(output / "model"), "--pairs", *arguments[:3], "--output", str(tmp_path / "e")]
    result = CliRunner().invoke(evaluations, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "e" / "report.html").read_text().count("data:image/png") == 3
