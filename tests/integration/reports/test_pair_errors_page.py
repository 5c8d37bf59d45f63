"""The page of a pair model's mistakes in a real browser: what it shows, its filter, and how large it gets."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.items.item import Item
from shopvision.matching.fitting.error_page import write_error_page
from shopvision.matching.fitting.evaluate import MatchingReport, evaluate_matcher
from shopvision.settings import get_settings
from tests.unit.matching.pair_world import GivenScorer, table_of, world

HOSTILE = "Cable </script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture
def report(tmp_path: Path, set_environment: Callable[..., None]) -> MatchingReport:
    """Two wrong pairs, one missed and one right by a hair, in three scripts; one picture is gone."""
    set_environment(SHOPVISION_IMAGE_ROOTS=str(tmp_path))
    for name, colour in (("red", "#b3261e"), ("blue", "#1e49b3"), ("grey", "#888888")):
        Image.new("RGB", (300, 400), colour).save(tmp_path / f"{name}.jpg")
    address = {name: (tmp_path / f"{name}.jpg").as_uri() for name in ("red", "blue", "grey", "gone")}
    attributes = {"colour": ("blue",), "size": ("42", "43")}
    items = [
        Item("a1", "Nike Air Max 90 red", "Shoes", "Nike", "119.00", attributes={"colour": ("red",), "size": ("42",)},
             picture=address["red"]),
        Item("b1", "NIKE Air-Max 95 (blue)", "Shoes", "Nike", "129.00", "A running shoe.", attributes, address["blue"]),
        Item("a2", HOSTILE, "Cables", attributes={"<b>length</b>": ("1 m",)}),
        Item("b2", "Cable 2 m", "Cables", attributes={"length": ("2 m",)}),
        Item("a3", "초록 셔츠 L", "Tops", picture=address["grey"]),
        Item("b3", "绿色 衬衫 L", "Tops", picture=address["gone"]),
        Item("a4", "Watch 38mm", "Watches"),
        Item("b4", "Watch 38 mm, new", "Watches"),
        Item("a5", "Lamp", "Home"),
        Item("b5", "Lamp", "Home"),
    ]  # fmt: skip
    table = table_of(items, [(0, 1, 0), (2, 3, 0), (4, 5, 1), (6, 7, 1), (8, 9, 1)])
    probabilities = {("a1", "b1"): 0.97, ("a2", "b2"): 0.61, ("a3", "b3"): 0.05, ("a4", "b4"): 0.52, ("a5", "b5"): 0.99}
    return evaluate_matcher(GivenScorer(probabilities), table, resamples=0)


def write(report: MatchingReport, output: Path) -> str:
    with PictureDoor(get_settings()) as door:
        write_error_page(output, report, door)
    return output.read_text(encoding="utf-8")


def test_the_page_holds_all_it_shows(report: MatchingReport, tmp_path: Path) -> None:
    text = write(report, tmp_path / "errors.html")
    assert text.count("data:image/jpeg;base64,") == 3
    assert not re.search(r'(?:src|href)\s*=\s*"(?:https?:|//|file:)', text)
    write_error_page(tmp_path / "bare.html", report)
    assert "data:image/jpeg" not in (tmp_path / "bare.html").read_text()


def test_a_browser_shows_both_sides_marks_words_and_filters(
    report: MatchingReport, tmp_path: Path, browser_page: Page
) -> None:
    output = tmp_path / "errors.html"
    write(report, output)
    browser_page.goto(output.as_uri())
    assert browser_page.title() == "Pairs that the model gets wrong"
    headings = browser_page.locator("h2")
    assert [re.sub(r"\s+", " ", text) for text in headings.all_inner_texts()] == [
        "Called the same item, labelled different 2",
        "Called different, labelled the same item 1",
        "Right, but nearest to the threshold 2",
    ]
    scores = browser_page.locator(".pair .score").all_inner_texts()
    assert scores == ["0.9700", "0.6100", "0.0500", "0.5200", "0.9900"]
    first = browser_page.locator("section.pair").first
    marked = "90 red | 95 blue | 119 | 129 | red | blue | 43".replace("| ", "").split()
    assert first.locator("mark").all_inner_texts() == marked
    expect(first.locator("img[src^='data:image/jpeg']")).to_have_count(2)
    assert first.locator("img").first.evaluate("picture => picture.naturalWidth") > 1
    text = browser_page.locator("main").inner_text()
    for words in ("초록 셔츠", "绿色 衬衫", HOSTILE, "<b>length</b>", "verdict: review", "A running shoe."):
        assert words in text
    expect(browser_page.locator("#shown")).to_have_text("5 of 5")
    for typed, count in (
        ("missed", 1),
        ("wrong same", 1),
        ("nike 95", 1),
        ("tops", 1),
        ("borderline", 2),
        ("zebra", 0),
    ):
        browser_page.locator("#filter").fill(typed)
        expect(browser_page.locator("section.pair:visible")).to_have_count(count)


def test_without_mistakes_it_says_so(report: MatchingReport, tmp_path: Path, browser_page: Page) -> None:
    nothing = replace(report, table=report.table.select(np.zeros(0, int)), probabilities=np.zeros(0))
    write_error_page(tmp_path / "errors.html", nothing)
    browser_page.goto((tmp_path / "errors.html").as_uri())
    assert "No pair is wrong." in browser_page.locator("main").inner_text()


def test_a_folder_that_is_not_there_is_named(report: MatchingReport, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none/errors\.html cannot be written"):
        write_error_page(tmp_path / "none" / "errors.html", report)


@pytest.mark.slow
def test_more_than_a_thousand_mistakes(
    tmp_path: Path, set_environment: Callable[..., None], browser_page: Page
) -> None:
    """2,400 mistakes with pictures and attributes: the page loads only what is in view and says what it leaves out."""
    set_environment(SHOPVISION_IMAGE_ROOTS=str(tmp_path))
    generator = np.random.default_rng(1)
    for number in range(200):
        blots = Image.fromarray(generator.integers(0, 255, (9, 9, 3), dtype=np.uint8))
        blots.resize((180, 180), Image.Resampling.BILINEAR).save(tmp_path / f"{number}.jpg")
    table, _ = world(4000)
    attributes = {f"key {number}": ("value one", "value two") for number in range(8)}
    items = tuple(
        replace(item, picture=(tmp_path / f"{row % 200}.jpg").as_uri(), attributes=attributes)
        for row, item in enumerate(table.items)
    )
    wrong = {(f"a{row}", f"b{row}"): 0.9 - 0.8 * label for row, label in enumerate(table.labels.tolist())}
    report = evaluate_matcher(GivenScorer(wrong), replace(table, items=items), resamples=0)
    output = tmp_path / "errors.html"
    with PictureDoor(get_settings()) as door:
        write_error_page(output, report, door, most=600)
    assert output.stat().st_size < 30e6
    browser_page.goto(output.as_uri())
    expect(browser_page.locator("#shown")).to_have_text("1200 of 1200")
    missed = int(table.labels.sum())
    assert f"600 shown, {missed - 600} more left out" in browser_page.locator("h2").last.inner_text()
    assert browser_page.locator("img[src]").count() < 200
    browser_page.locator("#filter").fill("missed model watches")
    expect(browser_page.locator("#shown")).not_to_have_text("1200 of 1200")
