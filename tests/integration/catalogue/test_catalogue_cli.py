"""The commands as a person or a cron job runs them: output, exit status, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from shopvision.catalogue import delete_items
from shopvision.database import connect
from shopvision.settings import get_settings
from tests.integration.meanwhile import right_after
from worker.cli import catalogue, plans

pytestmark = pytest.mark.usefixtures("database")


def shop(app: Any, *arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_import_show_stats(tmp_path: Path) -> None:
    file, errors = tmp_path / "items.jsonl", tmp_path / "errors.txt"
    records = [{"item_id": "1", "images": ["a.jpg"], "category": "Men/Tops"}, {"item_id": "2", "images": ["../a.jpg"]}]
    file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")

    result = shop(catalogue.app, "import", file, "--errors", errors)
    assert result.exit_code == 1
    assert "2 rows: 1 new, 0 changed, 0 unchanged, 1 refused; 0 deleted" in result.stdout
    line = f"{file}:2: images[0]: file '../a.jpg' is not inside the picture folder; give a path below it"
    assert line in result.stderr
    assert errors.read_text(encoding="utf-8") == line + "\n"

    file.write_text(json.dumps(records[0]), encoding="utf-8")
    result = shop(catalogue.app, "import", file, "--json")
    assert (result.exit_code, json.loads(result.stdout)["unchanged"]) == (0, 1)

    shown = json.loads(shop(catalogue.app, "show", "1", "--json").stdout)
    assert shown["images"][0]["uri"] == (tmp_path / "a.jpg").as_uri()
    assert "Men/Tops" in shop(catalogue.app, "show", "1").stdout
    stats = json.loads(shop(catalogue.app, "stats", "--json").stdout)
    assert (stats["items"], stats["pictures"], stats["categories"]) == (1, 1, {"Men": 1})
    assert "pictures" in shop(catalogue.app, "stats").stdout


def test_what_is_shown_was_there_at_one_moment(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps({"item_id": "1", "images": ["a.jpg"], "category": "Men"}), encoding="utf-8")
    shop(catalogue.app, "import", file)

    def delete() -> None:
        with connect() as connection:
            delete_items(connection, ["1"])

    with right_after("FROM items", delete):
        shown = json.loads(shop(catalogue.app, "show", "1", "--json").stdout)
    assert len(shown["images"]) == 1
    shop(catalogue.app, "import", file)
    with right_after("FROM items", delete):
        stats = json.loads(shop(catalogue.app, "stats", "--json").stdout)
    assert (stats["items"], stats["categories"]) == (1, {"Men": 1})


def test_workers_of_a_local_stack_may_read_what_was_imported(tmp_path: Path) -> None:
    from shopvision.images import allowed_image_roots

    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps({"item_id": "1", "images": ["a.jpg"]}), encoding="utf-8")
    assert "SHOPVISION_IMAGE_ROOTS" in shop(catalogue.app, "import", file).stderr
    home = get_settings().home
    home.mkdir(parents=True, exist_ok=True)
    (home / "environment.json").write_text("{}", encoding="utf-8")
    assert shop(catalogue.app, "import", file, "--dry-run").stderr == ""
    assert tmp_path not in allowed_image_roots(get_settings())
    assert shop(catalogue.app, "import", file).stderr == ""
    assert tmp_path in allowed_image_roots(get_settings())


def test_plans_through_a_mapping(tmp_path: Path) -> None:
    (tmp_path / "plans.csv").write_text("nr;campaign;words\n7;Spring;sun / sea\n8;;x\n", encoding="utf-8")
    (tmp_path / "map.toml").write_text(
        '[columns]\nplan_id = "nr"\nname = "campaign"\nkwds = "words"\n[separators]\nkwds = "/"\n', encoding="utf-8"
    )
    arguments = ["import", tmp_path / "plans.csv", "--map", tmp_path / "map.toml", "--json"]
    result = shop(plans.app, *arguments)
    report = json.loads(result.stdout)
    assert (result.exit_code, report["inserted"]) == (1, 1)
    assert report["errors"] == [{"line": 3, "message": "name: missing; every record needs it"}]
