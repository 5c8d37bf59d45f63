"""The report in a real browser: what it shows, what its filter does, and that a hostile title stays text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from sqlalchemy import insert

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.search.report import Neighbour, ReportItem, Row, _items, write_report

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture
def pictures(tmp_path: Path, set_environment: Callable[..., None]) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue")):
        buffer = io.BytesIO()
        Image.new("RGB", (400, 300), colour).save(buffer, "JPEG")
        (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
    set_environment(SHOPVISION_IMAGE_ROOTS=str(folder))
    return folder


def page(pictures: Path, output: Path, rows: int = 3) -> str:
    items = [
        ReportItem(
            f"item-{number}",
            number % 3,
            (HOSTILE, "초록 셔츠", "蓝色 衬衫")[number % 3],
            "Tops",
            f"file://{pictures}/{number % 3}.jpg",
        )
        for number in range(rows)
    ]
    shown = [Row(item, [Neighbour(other, 0.5) for other in items[:4] if other is not item]) for item in items]
    failure = {"item_key": "9", "code": "truncated", "message": "The picture ends too early."}
    write_report(output, shown, facts=[("model", "tiny")], failures=[failure])
    return output.read_text(encoding="utf-8")


def test_the_page_is_self_contained_and_each_picture_is_in_it_once(pictures: Path, tmp_path: Path) -> None:
    text = page(pictures, tmp_path / "report.html", rows=60)
    assert text.count("data:image/jpeg;base64,") == 3
    assert not re.search(r'(?:src|href)\s*=\s*"(?:https?:|//|file:)', text)
    assert not list(tmp_path.glob("*.part"))


def test_a_missing_picture_leaves_a_blank(pictures: Path, tmp_path: Path) -> None:
    (pictures / "1.jpg").unlink()
    assert page(pictures, tmp_path / "report.html").count("data:image/jpeg;base64,") == 2


def test_a_folder_that_is_not_there_is_named(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none/report\.html cannot be written"):
        page(pictures, tmp_path / "none" / "report.html")


def test_a_browser_shows_pictures_filters_rows_and_runs_nothing_hostile(
    pictures: Path, tmp_path: Path, browser_page: Page
) -> None:
    output = tmp_path / "report.html"
    page(pictures, output)
    browser_page.goto(output.as_uri())
    assert browser_page.title() == "What looks alike"
    assert HOSTILE in browser_page.locator("main").inner_text()
    shown = browser_page.locator("img[src^='data:image/jpeg']")
    expect(shown).to_have_count(9)
    assert shown.first.evaluate("picture => picture.naturalWidth") > 1
    expect(browser_page.locator("#shown")).to_have_text("3 of 3")
    browser_page.locator("#filter").fill("초록 tops")
    expect(browser_page.locator("#shown")).to_have_text("1 of 3")
    expect(browser_page.locator("section.row:visible")).to_have_count(1)


def test_pictures_far_below_are_loaded_when_they_come_into_view(
    pictures: Path, tmp_path: Path, browser_page: Page
) -> None:
    output = tmp_path / "report.html"
    page(pictures, output, rows=200)
    browser_page.goto(output.as_uri())
    last = browser_page.locator("section.row").last.locator("img").first
    expect(browser_page.locator("section.row img[src]").first).to_be_visible()
    assert last.get_attribute("src") is None
    last.scroll_into_view_if_needed()
    expect(last).to_have_attribute("src", re.compile("^data:image/jpeg"))


def test_items_come_with_their_leading_picture(database: None) -> None:
    with connect() as connection:
        connection.execute(
            insert(Item),
            [
                {"item_id": key, "category": category, "content_hash": b""}
                for key, category in (("b", "X"), ("a", "Y"), ("c", None))
            ],
        )
        connection.execute(
            insert(ItemImage),
            [
                {"item_id": key, "position": position, "uri": f"file:///{key}{position}.jpg"}
                for key in "ab"
                for position in (1, 0)
            ],
        )
    assert [(item.item_id, item.uri) for item in _items().values()] == [
        ("b", "file:///b0.jpg"),
        ("a", "file:///a0.jpg"),
    ]
