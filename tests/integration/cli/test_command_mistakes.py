"""What nobody can work with is one line, and no traceback, whatever the command."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.fixture
def place(tmp_path: Path, database: None, set_environment: Callable[..., None]) -> Path:
    """A folder with broken files: {0} in the arguments below."""
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    (tmp_path / "list.toml").write_text("[data\n")
    (tmp_path / "empty.toml").write_text("")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    (tmp_path / "version").mkdir()
    (tmp_path / "pictures" / "bag").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train encoder --config {0}/none.toml", r"none\.toml cannot be read \(No such file"),
        ("train encoder --config {0}/list.toml", r"list\.toml is not TOML"),
        ("train encoder --config {0}/empty.toml", r"empty\.toml: data: Field required"),
        ("train classifier --config {0}", r"cannot be read \(Is a directory\)"),
        ("train classifier --config {0}/empty.toml", r"empty\.toml: data: Field required"),
        ("train classifier --config {0}/rows.csv", r"rows\.csv is not TOML"),
        ("evaluate encoder {0}/nowhere --pairs {0}/rows.csv", "nowhere is no folder: name the folder"),
        ("evaluate encoder {0}/version --pairs {0}/none.csv", r"none\.csv: there is no such file"),
        ("evaluate encoder nobody:1 --pairs {0}/rows.csv", "There is no model version nobody:1"),
        ("evaluate detector {0}/version --boxes {0}/rows.csv", "version.*card.json"),
        ("evaluate detector fashion_detector --boxes {0}/rows.csv", "No model .*fashion_detector"),
        ("evaluate classifier {0}/version --labels {0}/pictures", "version.*card.json"),
        ("evaluate classifier name --labels {0}/rows.csv", "name"),
        ("posts import {0}/none.csv", r"none\.csv: there is no such file"),
        ("posts import {0}/rows.xlsx", "unknown format"),
        ("posts import {0}/broken.parquet", r"broken\.parquet"),
        ("posts export --output {0}/pairs.csv --detector nobody:1", "There is no model version nobody:1"),
        ("posts report --latest", "No post has been labelled yet"),
        ("posts review {0}/empty.csv", r"empty\.csv"),
        ("models compose --name a/b --detector {0}/version --encoder {0}/version", "a/b"),
        ("models compose --name a --encoder {0}/version", "No model .*fashion_detector"),
        ("models compose --name a --detector {0}/version --encoder {0}/version", "version.*card.json"),
        ("models compose --name a --detector {0}/version --encoder x --categories {0}/rows.csv", r"rows\.csv"),
        ("search", "Say what to look for: photos, --item ID, or --text WORDS"),
        ("search {0}/no.jpg", "was never published: run a refresh_embeddings job first"),
        ("search {0}/no.jpg --box 1,2", "box"),
        ("search --item a --garment 1", "belong to photos: an item has none"),
        ("search --item a --price-to much", "'much' is no price"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(place: Path, command: str, message: str, command_line: Run) -> None:
    status, stdout, stderr = command_line(
        *command.format(place).split(), *(["--output", place / "out"] if command.startswith("train") else [])
    )
    assert (status, stdout) == (1, "")
    assert len(stderr.strip().splitlines()) == 1, stderr
    assert re.search(message, stderr), stderr
    assert not (place / "out").exists()
