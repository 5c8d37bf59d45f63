"""The docs name only what exists, and everything that must be named."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined
from typer.main import get_command

from shopvision.catalogue.column_mapping import Mapping
from shopvision.catalogue.record_schema import Item
from shopvision.fashion.detection.config import DetectorConfig
from shopvision.fashion.encoding.config import EncoderConfig
from shopvision.fashion.thumbnails.config import ClassifierConfig
from shopvision.graph.config import GraphConfig
from shopvision.images.reasons import REASONS
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.models.kinds import all_roles, all_schemes
from shopvision.selection.click.config import ClickConfig
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.recall.config import RecallConfig
from shopvision.settings import Settings
from shopvision.training.config import load_config
from worker.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("**/*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md"))])
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
NOT_SETTINGS = {"SHOPVISION_TEST_DATA", "SHOPVISION_TEST_HOME"}
TO_BE_WRITTEN = {"tasks/measure_pictures.py", "migrations/versions/NNNN_what_it_does.py"}  # by the reader

every_page = pytest.mark.parametrize("page", TEXTS)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)


def slugs(text: str) -> set[str]:
    """Anchors as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def table_rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def commands(text: str) -> Iterator[list[str]]:
    lines = [line.strip().removeprefix("$ ") for block in blocks(text, "console") for line in block.splitlines()]
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    for code in [*lines, *re.findall(r"`([^`\n]+)`", prose)]:
        if code.startswith("shopvision "):
            yield shlex.split(code, comments=True)[1:]


COMMAND = get_command(app)  # made once: it costs a third of a second


@every_page
def test_commands_exist(page: str) -> None:
    for words in commands(TEXTS[page]):
        command: Any = COMMAND
        rest = list(words)
        while rest and hasattr(command, "commands"):
            assert rest[0] in command.commands, f"shopvision {' '.join(words)}"
            command = command.commands[rest.pop(0)]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
        assert given <= options, f"shopvision {' '.join(words)}"
        # A command alone is only named; one with an option is meant to be typed.
        needed = [parameter.opts for parameter in command.params if parameter.required] if given else []
        assert all(given & set(names) for names in needed if names[0].startswith("-")), f"shopvision {' '.join(words)}"


@every_page
def test_links_resolve(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in slugs(path.read_text(encoding="utf-8")), target


@every_page
def test_settings_exist(page: str) -> None:
    known = {f"SHOPVISION_{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    assert set(re.findall(r"\bSHOPVISION_[A-Z0-9_]*[A-Z0-9]", TEXTS[page])) <= known


@every_page
def test_examples_can_be_read(page: str, tmp_path: Path) -> None:
    for code in blocks(TEXTS[page], "python"):
        ast.parse(code)
    for lines in blocks(TEXTS[page], "json"):
        for line in lines.splitlines():
            Item.model_validate(json.loads(line))
    for number, text in enumerate(blocks(TEXTS[page], "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        if "[data]" in text:
            by_page = {
                "click-ranker": ClickConfig, "ranker": ClikConfig, "detector": DetectorConfig, "encoder": EncoderConfig,
                "classifier": ClassifierConfig, "recall": RecallConfig, "training-a-graph": GraphConfig,
            }  # fmt: skip
            load_config(file, next((config for word, config in by_page.items() if word in page), MatcherConfig))
        else:
            assert Mapping.load(file, Item).columns["item_id"] == "sku"


@every_page
def test_what_examples_import_exists(page: str) -> None:
    for code in blocks(TEXTS[page], "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in {"shopvision", "worker"}:
                module = importlib.import_module(str(node.module))
                assert {name.name for name in node.names} <= {*dir(module)}, node.module


@every_page
def test_files_that_are_named_exist(page: str) -> None:
    named = re.findall(r"`((?:tests|shopvision|worker|migrations|tasks)/[\w./]+\.py)`", TEXTS[page])
    assert {name for name in named if not (ROOT / name).is_file()} <= TO_BE_WRITTEN


def test_every_setting_stands_with_its_default() -> None:
    rows = {row[0].strip("`"): row[1] for row in table_rows(TEXTS["docs/configuration.md"])}
    assert set(rows) == {f"SHOPVISION_{name.upper()}" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        default = field.default
        assert default is not PydanticUndefined
        if name == "schedules":
            continue  # two jobs do not fit into a cell
        if isinstance(default, tuple):
            default = ",".join(map(str, default)) or None
        written = json.dumps(default) if isinstance(default, bool) else str(default)
        expected = "none" if default is None else f"`{written.removesuffix('.0')}`"
        assert rows[f"SHOPVISION_{name.upper()}"] == expected


def test_every_reason_code_stands_and_exists() -> None:
    section = TEXTS["docs/catalogue.md"].split("## Reason codes")[1]
    documented = {row[0].strip("`") for row in table_rows(section)}
    source = "".join(path.read_text() for room in ("shopvision", "worker") for path in (ROOT / room).rglob("*.py"))
    raised = set(re.findall(r'\b(?:ItemError|ItemFailed|Failed)\(\s*(?:[\w.\[\]]+,\s*)?"(\w+)"', source))
    assert "poison" in raised
    assert documented == raised | set(REASONS)


def test_metrics_exist() -> None:
    named = set(re.findall(r"`(shopvision_\w+)", TEXTS["docs/operating.md"]))
    source = (ROOT / "worker" / "metrics.py").read_text()
    assert named
    assert all(f'"{re.sub("_(total|sum|count)$", "", name)}"' in source for name in named)


def test_log_events_exist() -> None:
    (sentence,) = re.findall(r"Events to look for: (.*?)\.", TEXTS["docs/operating.md"], flags=re.DOTALL)
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "worker").rglob("*.py"))
    assert "job_failed" in sentence
    assert all(f'"{event}"' in source for event in re.findall(r"`(\w+)`", sentence))


def test_every_role_and_import_scheme_stands_and_exists() -> None:
    page = TEXTS["docs/adding-a-model.md"]
    roles = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[1])) for row in table_rows(page.split("## Roles")[1])}
    assert roles == {role: set(kinds) for role, kinds in all_roles().items()}
    sources = [row[0].strip("`").partition(":")[0] for row in table_rows(page.split("## The card")[0])]
    assert sorted(sources) == sorted(all_schemes())


def test_the_example_of_a_kind_of_model_works(tmp_path: Path) -> None:
    from torch import nn, save

    (code,) = (code for code in blocks(TEXTS["docs/adding-a-model.md"], "python") if "KINDS" in code)
    space: dict[str, Any] = {"__name__": "example"}
    exec(code, space)
    (kind,) = space["KINDS"]
    save(nn.Linear(1280, 3).state_dict(), tmp_path / "colours.pt")
    kind.schemes[0].fetch(str(tmp_path / "colours.pt"), tmp_path / "model", classes="3")
    kind.validate(tmp_path / "model")
    assert kind.load(tmp_path / "model").out_features == 3
