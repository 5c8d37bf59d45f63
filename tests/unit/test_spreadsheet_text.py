"""Texts that spreadsheets would run, and files that hold them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from shopvision.reports.row_writer import record_writer
from shopvision.reports.spreadsheet_text import neutralised, original


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+49 30", "-x", "+-1", "-1.5x", "'+49", "@home", "\tx", "\rx", "'=1", "''-", "'home'", "", "a=b", "'"],
)
def test_what_is_neutralised_comes_back(text: str) -> None:
    assert original(neutralised(text)) == text
    assert neutralised(text)[:1] not in {"=", "+", "-", "@", "\t", "\r"}


@pytest.mark.parametrize("text", ["-1", "+49", "-0.5", "'-1", "12"])
def test_numbers_run_nothing(text: str) -> None:
    assert neutralised(text) == original(text) == text


def test_texts_of_a_csv_file_run_nothing_and_its_numbers_stay(tmp_path: Path) -> None:
    columns = {"item_id": "string", "title": "string", "score": "float32"}
    with record_writer(tmp_path / "a.csv", columns) as write:  # type: ignore[arg-type] # literals
        write([("-1", "=cmd|' /C calc'!A0", -0.5), ("@b", None, 1.0)])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1:] == [["-1", "'=cmd|' /C calc'!A0", "-0.5"], ["'@b", "", "1.0"]]
