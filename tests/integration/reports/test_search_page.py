"""The page of a search by photo in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Page, expect

from shopvision.errors import UserError
from shopvision.images import Decoded
from shopvision.search.page import SearchPage
from shopvision.search.results import FoundItem, Garment, PhotoFailure, PhotoResult

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
SIZE = (300, 400)
BOXES = {"top": (60.0, 40.0, 240.0, 200.0), "bag": (180.0, 150.0, 235.0, 195.0), "shoes": (80.0, 330.0, 200.0, 390.0)}
COLOURS = ("crimson", "seagreen", "royalblue", "goldenrod", "slategray", "orchid", "teal", "sienna")


@pytest.fixture
def pictures(tmp_path: Path, set_environment: Callable[..., None]) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, colour in enumerate(COLOURS):
        picture = Image.new("RGB", (300, 360), "white")
        ImageDraw.Draw(picture).rounded_rectangle((60, 40, 240, 320), 30, fill=colour)
        picture.save(folder / f"{number}.jpg")
    set_environment(SHOPVISION_IMAGE_ROOTS=str(folder))
    return folder


def photo() -> Decoded:
    picture = Image.new("RGB", SIZE, "#d8d2c8")
    pen = ImageDraw.Draw(picture)
    for colour, box in zip(COLOURS, BOXES.values(), strict=False):
        pen.rounded_rectangle(box, 14, fill=colour)
    return Decoded(picture, SIZE, (0.0, 0.0, *map(float, SIZE)))


def found(pictures: Path, number: int, *, fits: bool = True, title: str = "초록 리넨 셔츠") -> FoundItem:
    return FoundItem(
        item_id=f"item-{number}",
        title=title,
        brand="Acme",
        category="Men/Tops",
        price=Decimal("1E+2") if number == 1 else Decimal("19.90"),
        currency="EUR",
        image_id=number,
        region=0,
        uri=(pictures / f"{number % len(COLOURS)}.jpg").as_uri(),
        score=0.9 - number / 50,
        style=None,
        fits=fits,
        colour_difference=12.4 if number == 2 else None,
        variants=("item-98", "item-99") if number == 0 else (),
        is_comparable=number != 5,
    )


def result(pictures: Path, name: str, count: int = 6) -> PhotoResult:
    garments = tuple(
        Garment(number, box, label, 0.95 - number / 10, tuple(found(pictures, n, fits=n < 4) for n in range(count)))
        for number, (label, box) in enumerate(BOXES.items(), 1)
    )
    return PhotoResult(name, SIZE, garments, (), "indexes/c/generations/toy@1/20261129T1-ab", "toy:1", "finder:1")


def test_box_and_row_belong_together(pictures: Path, tmp_path: Path, browser_page: Page) -> None:
    output = tmp_path / "search.html"
    page = SearchPage(output)
    page.add(result(pictures, "street/outfit.jpg"), photo())
    hostile = Garment(0, (0.0, 0.0, 300.0, 400.0), None, None, (found(pictures, 0, title=HOSTILE),), (HOSTILE,))
    page.add(PhotoResult(HOSTILE, SIZE, (hostile,), ("No garment was found.",), "g/x", "toy:1", None), photo())
    page.write([PhotoFailure(HOSTILE, "truncated", "The picture ends too early.")])
    assert not re.search(r'(?:src|href)\s*=\s*"(?:https?:|//|file:)', output.read_text())
    browser_page.goto(output.as_uri())
    assert browser_page.title() == "Found by photo"
    text = browser_page.locator("main").inner_text()
    for words in (
        HOSTILE, "초록 리넨 셔츠", "100 EUR", "19.90 EUR", "does not fit", "stands for 2 more", "differs by 12",
        "cannot be compared", "No garment was found.", "truncated", "the whole photo",
    ):  # fmt: skip
        assert words in text, words
    expect(browser_page.locator("#shown")).to_have_text("2 of 2")
    expect(browser_page.locator("img[src^='data:image/jpeg']")).to_have_count(1 + 3 + 3 * 6 + 1 + 1)
    boxes, rows = browser_page.locator("button.box"), browser_page.locator("article.garment")
    expect(boxes).to_have_count(3)
    frame, bag = browser_page.locator(".frame").first.bounding_box(), boxes.nth(1).bounding_box()
    assert frame is not None
    assert bag is not None
    scale = frame["width"] / SIZE[0]
    assert bag["x"] - frame["x"] == pytest.approx(180 * scale, abs=1.5)
    assert bag["height"] == pytest.approx(45 * scale, abs=1.5)
    boxes.nth(1).hover()  # it lies within a larger one
    expect(rows.nth(1)).to_have_class(re.compile("lit"))
    expect(rows.nth(0)).not_to_have_class(re.compile("lit"))
    rows.nth(2).hover()
    expect(boxes.nth(2)).to_have_class(re.compile("lit"))
    expect(boxes.nth(1)).not_to_have_class(re.compile("lit"))
    boxes.nth(0).focus()
    browser_page.keyboard.press("Enter")
    expect(rows.nth(0)).to_be_focused()
    browser_page.set_viewport_size({"width": 390, "height": 800})
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
def test_two_hundred_photos(pictures: Path, tmp_path: Path, browser_page: Page) -> None:
    output = tmp_path / "search.html"
    page = SearchPage(output)
    for number in range(200):
        page.add(result(pictures, f"photo-{number:03}.jpg", 10), photo())
    page.write()
    assert output.stat().st_size < 20e6
    browser_page.goto(output.as_uri())
    expect(browser_page.locator("#shown")).to_have_text("200 of 200")
    assert browser_page.locator("img[src]").count() < 400
    browser_page.locator("#filter").fill("photo-123 shoes")
    expect(browser_page.locator("#shown")).to_have_text("1 of 200")
    expect(browser_page.locator("section.photo:visible .whole img")).to_have_attribute(
        "src", re.compile("^data:image/jpeg")
    )


def test_a_page_without_a_place_is_refused_before_the_search(tmp_path: Path) -> None:
    for output in (tmp_path / "none" / "page.html", tmp_path):
        with pytest.raises(UserError, match="cannot be written: name a file in a folder that exists"):
            SearchPage(output)
