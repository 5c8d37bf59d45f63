"""``shopvision search`` over a published index; models that see colours stand in for networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from shopvision.search import VisualSearch
from tests.conftest import Run
from tests.integration.search.conftest import load
from tests.integration.search.test_visual_search import OUTFIT, WARDROBE
from tests.integration.search.world import ShopItem


@pytest.fixture
def run(
    shop: Callable[[list[ShopItem]], VisualSearch], finder: str, monkeypatch: pytest.MonkeyPatch, command_line: Run
) -> Run:
    shop(WARDROBE)
    monkeypatch.setattr("shopvision.models.load", load)
    return partial(command_line, "search")


def test_photos_are_answered_for_people_programs_and_browsers(run: Run, tmp_path: Path) -> None:
    photo, broken, page = tmp_path / "outfit.png", tmp_path / "broken.png", tmp_path / "found.html"
    photo.write_bytes(OUTFIT)
    broken.write_bytes(b"no picture")
    status, out, _ = run(photo, "-k", "1", "--brand", "Nobody", "--output", page)
    assert status == 0
    for words in (
        str(photo), "1: top (0.90) at 40,10,60,50", "2: shoes", "sneaker", "59.9 EUR", "does not fit",
        "No item fits: brand Nobody.", str(page),
    ):  # fmt: skip
        assert words in out, words
    assert "Red tee" in page.read_text()
    status, out, err = run(photo, broken, tmp_path / "none.png", "-k", "2", "--class", "shoes", "--json")
    told = json.loads(out)
    assert (status, err) == (1, "")
    ((garment,),) = (one["garments"] for one in told["photos"])
    assert [one["item_id"] for one in garment["items"]] == ["sneaker", "boot"]
    assert [one["code"] for one in told["failures"]] == ["text", "not_found"]
    assert set(told["photos"][0]["seconds"]) >= {"read", "detect", "embed", "index", "facts"}
    status, _, err = run(photo, broken)
    assert (status, f"{broken}: " in err) == (1, True)


def test_items_too(run: Run) -> None:
    status, out, _ = run("--item", "tee", "-k", "2", "--collapse", "category", "--json")
    assert (status, [one["item_id"] for one in json.loads(out)["items"]]) == (0, ["tee-rose", "shirt"])
    status, out, _ = run("--item", "tee", "--price-to", "1", "--hard")
    assert (status, "No item fits: price up to 1." in out) == (0, True)


def test_mistakes_are_one_line(run: Run, tmp_path: Path) -> None:
    photo = tmp_path / "outfit.png"
    photo.write_bytes(OUTFIT)
    for arguments, message in (
        ((), "Say what to look for"),
        ((photo, "--item", "tee"), "Say what to look for"),
        ((photo, "-k", "0"), "k is 0"),
        ((photo, "--hard"), "--hard needs something to fit"),
        ((photo, "--price-to", "cheap"), "'cheap' is no price"),
        ((photo, "--box", "1,2,3"), "'1,2,3' is no box"),
        ((photo, "--box", "500,0,9,9"), "lies outside the photo of 160 x 120 pixels"),
        ((photo, "--class", "hat"), "finder:1 knows no class 'hat'"),
        ((photo, "--garment", "3"), "no garment 3: 2 were found"),
        ((photo, "--output", tmp_path / "none" / "page.html"), "cannot be written"),
        (("--item", "tee", "--garment", "1"), "belong to photos"),
        (("--item", "nothing"), "has no picture in the index"),
        ((tmp_path / "none.png",), "No such file"),
    ):
        status, _, err = run(*arguments)
        assert (status, message in " ".join(err.split()), "Traceback" in err) == (1, True, False), (arguments, err)
