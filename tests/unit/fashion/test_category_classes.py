"""The file that ties the shop's categories to a detector's classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from shopvision.errors import UserError
from shopvision.fashion.composition.categories import read_categories, require_classes


def test_json_and_toml(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"Men/Shoes": "shoes", " Women / Bags ": "bag"}')
    (tmp_path / "c.toml").write_text('"Men/Shoes" = "shoes"\n"Women/Bags" = "bag"\n')
    expected = {"Men/Shoes": "shoes", "Women/Bags": "bag"}
    assert read_categories(tmp_path / "c.json") == read_categories(tmp_path / "c.toml") == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", "{", "c.json is no JSON"),
        ("c.toml", "Men/Shoes = 'shoes'", "c.toml is no TOML"),
        ("c.json", "[]", "must map category paths to classes"),
        ("c.json", "{}", "must map category paths to classes"),
        ("c.json", '{"Men": 3}', "the class of the category 'Men' must be a name"),
        ("c.toml", "[Men]\nShoes = 'shoes'", "put paths with / into quotes"),
        ("c.json", '{"Men//Shoes": "shoes"}', "has an empty part"),
        ("c.json", '{"Men": "top", "Men": "shoes"}', "'Men' stands there twice"),
        ("c.json", '{"Men/Tops": "top", "Men / Tops": "outer"}', "'Men/Tops' stands there twice, as top and as outer"),
    ],
)
def test_files_that_say_something_else(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_categories(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_categories(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'{"H\xfcte": "hat"}')
    with pytest.raises(UserError, match="no UTF-8 text"):
        read_categories(tmp_path / "latin.json")


def test_unknown_classes_are_listed_with_those_there_are() -> None:
    require_classes({"Men": "top"}, ("top", "bag"), "finder:1")
    with pytest.raises(UserError, match=r"finder:1 knows no class 'boot' \(Men/Shoes\): it knows bag, top\."):
        require_classes({"Men/Shoes": "boot", "Men": "top"}, ("top", "bag"), "finder:1")
