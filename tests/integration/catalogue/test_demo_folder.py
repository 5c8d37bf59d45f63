"""What the demo takes for a catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select

from shopvision.catalogue.tables import Item
from shopvision.database import connect
from shopvision.errors import UserError
from worker.demo.catalogue_folder import import_folder
from worker.demo.guide import Guide

pytestmark = pytest.mark.usefixtures("database")


def importing(folder: Path) -> list[str]:
    """What is said meanwhile."""
    said: list[str] = []
    unused: Any = None
    import_folder(Guide(said.append, unused, unused, unused), folder)
    return said


def titles() -> dict[str, tuple[str | None, str | None]]:
    with connect() as connection:
        rows = connection.execute(select(Item.item_id, Item.title, Item.category)).all()
    return {row.item_id: (row.title, row.category) for row in rows}


def test_a_folder_of_pictures_is_a_catalogue_of_one_item_each(tmp_path: Path) -> None:
    (tmp_path / "shoes").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "shoes" / "red_high-heel.jpg")
    assert importing(tmp_path) == [f"imported 1 items from {tmp_path}: 1 new, 0 changed, 0 unchanged, 0 refused"]
    assert titles() == {"shoes/red_high-heel.jpg": ("red high heel", "shoes")}


def test_a_table_comes_before_pictures_and_its_refused_rows_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "items.csv").write_text("item_id,title,images\n1,[bold] shoe,a.jpg\n,nameless,a.jpg\n")
    first, second = importing(tmp_path)
    assert "1 new, 0 changed, 0 unchanged, 1 refused" in first
    assert second.startswith("  line 3: ")
    assert titles()["1"][0] == "[bold] shoe"


def test_nothing_to_import_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it holds no items and no pictures"):
        importing(tmp_path)
    with pytest.raises(UserError, match="There is no folder"):
        importing(tmp_path / "gone")
