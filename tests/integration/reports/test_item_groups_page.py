"""The page of groups in a real browser: what it shows, and that decisions made in it can be imported."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from shopvision.catalogue import delete_items
from shopvision.database import connect
from shopvision.items.item import Item
from shopvision.matching.groups.group_update import update_groups
from shopvision.matching.groups.page import MatchingPage, ShownGroup, ShownPair, matching_page, write_report
from shopvision.matching.groups.reviews import import_reviews
from tests.conftest import Run
from tests.integration.matching.pairs import HOSTILE, JOB, add_job, fill_shop
from tests.integration.meanwhile import right_after


@pytest.fixture
def version(database: None, tmp_path: Path, set_environment: Callable[..., None]) -> int:
    folder = tmp_path / "pictures"
    folder.mkdir()
    set_environment(SHOPVISION_IMAGE_ROOTS=str(folder))
    return fill_shop(folder)


def test_groups_say_what_their_items_share_and_where_they_differ(version: int) -> None:
    page = matching_page(version, JOB, decision=0.6)
    linen, cotton = page.groups
    assert [item.item_id for item in linen.items] == ["a1", "a2", "a3"]
    assert linen.common == [("category", "Shirts"), ("brand", "Myn"), ("price", "20"), ("size", "M")]
    assert linen.differing == [[("colour", "blue", True)], [("colour", "navy", True)], []]
    assert [{name: value for name, value, _ in one}["fabric"] for one in cotton.differing] == [
        "cotton", "cotton, 5%",
    ]  # fmt: skip
    assert [(pair.left.item_id, pair.right.item_id) for pair in page.borderline] == [('c"1', "c,2"), ("a1", "b1")]
    assert [(pair.left.item_id, pair.right.item_id, pair.reason) for pair in page.conflicts] == [
        ("a3", "b1", "different")
    ]
    assert (linen.kept_by, linen.lends) == ("id", [[], [("pictures", "1")], [("pictures", "1")]])
    assert (cotton.kept_by, cotton.exact) == ("id", [["picture"], ["picture"]])
    assert [pair.exact for pair in page.borderline] == [["code"], ()]
    assert page.totals == {"groups": 2, "items in groups": 5, "pairs for review": 2, "conflicts": 1}
    assert [group.is_changed for group in matching_page(version, uuid.UUID(int=9)).groups] == [False, False]
    limited = matching_page(version, JOB, most_groups=1, most_pairs=1)
    assert (len(limited.groups), len(limited.borderline), limited.totals["groups"]) == (1, 1, 2)


def test_items_that_are_deleted_while_the_page_is_read_are_on_it(version: int) -> None:
    def delete() -> None:
        with connect() as connection:
            delete_items(connection, ["a1"])

    with right_after("FROM item_group_members", delete):
        page = matching_page(version, JOB, decision=0.6)
    assert [item.item_id for item in page.groups[0].items] == ["a1", "a2", "a3"]
    assert len(page.borderline) == 2


def test_a_reviewer_decides_in_the_page_and_the_file_is_imported(
    version: int, tmp_path: Path, browser_page: Page
) -> None:
    output = tmp_path / "groups.html"
    failure = {"item_key": '["x","y"]', "code": "no_text", "message": "Item 'x' has no title."}
    write_report(output, matching_page(version, JOB, decision=0.6), facts=[("model", "matcher:1")], failures=[failure])
    assert not re.search(r'(?:src|href)\s*=\s*"(?:https?:|//|file:)', output.read_text())
    browser_page.set_viewport_size({"width": 1400, "height": 5000})
    browser_page.goto(output.as_uri())
    assert browser_page.title() == "Items that are the same product"
    text = browser_page.locator("main").inner_text()
    for words in (
        "초록 리넨 셔츠", "棉 T恤 红", HOSTILE, "colour", "items of their groups differ", "no_text",
        "no rule tells them apart", "The one to keep lacks:", "pictures: 1", "same picture", "same code",
    ):  # fmt: skip
        assert words in text
    expect(browser_page.locator("img[src^='data:image/jpeg']")).to_have_count(5 + 1 + 2 + 2)
    assert browser_page.locator(".group mark").all_inner_texts() == ["blue", "navy", "cotton", "cotton, 5%"]
    expect(browser_page.locator(".badge")).to_have_count(2 + 2)
    download = browser_page.locator("#download")
    expect(download).to_be_disabled()
    first, second, conflict = browser_page.locator("section.pair").all()
    first.get_by_text("Different").click()
    first.get_by_text("Same product").click()
    second.get_by_text("Same product").click()
    second.get_by_text("Same product").click()  # taken back
    conflict.get_by_text("Different").click()
    expect(download).to_have_text("Download 2 decisions (CSV)")
    browser_page.locator("[data-item=a3]").check()
    expect(download).to_have_text("Download 4 decisions (CSV)")
    browser_page.locator("#reviewer").fill('Kim, "빛나"')
    with browser_page.expect_download() as found:
        download.click()
    assert found.value.suggested_filename == "reviews.csv"
    path = tmp_path / "reviews.csv"
    found.value.save_as(path)
    name = '"Kim, ""빛나"""'
    assert path.read_bytes().decode() == "".join(
        f"{line}\r\n"
        for line in (
            "left_item_id,right_item_id,verdict,reviewer",
            f'"c""1","c,2",same,{name}',
            f"a3,b1,different,{name}",
            f"a3,a1,different,{name}",
            f"a3,a2,different,{name}",
        )
    )
    report = import_reviews(path)
    assert (report.written, report.refused) == (4, [])
    update_groups(version, JOB)
    page = matching_page(version, JOB)
    assert sorted([item.item_id for item in group.items] for group in page.groups) == [
        ["a1", "a2"],
        ["b1", "b2"],
        ['c"1', "c,2"],
    ]
    assert page.conflicts == []


def test_the_filter_finds_groups_and_pairs(version: int, tmp_path: Path, browser_page: Page) -> None:
    output = tmp_path / "groups.html"
    write_report(output, matching_page(version, JOB))
    browser_page.goto(output.as_uri())
    expect(browser_page.locator("#shown")).to_have_text("5 of 5")
    for words, count in (("초록", 2), ("conflict", 1), ("review wool", 1), ("new or changed", 2), ("nothing such", 0)):
        browser_page.locator("#filter").fill(words)
        expect(browser_page.locator("#shown")).to_have_text(f"{count} of 5")


@pytest.mark.slow
def test_five_hundred_groups(tmp_path: Path, set_environment: Callable[..., None], browser_page: Page) -> None:
    """1,500 items: the page loads only what is in view."""
    set_environment(SHOPVISION_IMAGE_ROOTS=str(tmp_path))
    generator = np.random.default_rng(1)
    items = []
    for number in range(300):
        blots = Image.fromarray(generator.integers(0, 255, (9, 9, 3), dtype=np.uint8))
        blots.resize((180, 180), Image.Resampling.BILINEAR).save(tmp_path / f"{number}.jpg")
    for number in range(1500):
        picture = (tmp_path / f"{number % 300}.jpg").as_uri()
        items.append(Item(f"item-{number}", f"title {number}", "Shirts", picture=picture, attributes={"size": ("M",)}))
    groups = [
        ShownGroup(
            uuid.UUID(int=number), 3, is_changed=False, items=items[3 * number : 3 * number + 3],
            common=[("size", "M")], differing=[[("colour", "red", True)]] * 3, kept_by="complete",
            lends=[[], [], [("fabric", "linen")]], exact=[["picture"], ["picture"], []],
        )
        for number in range(500)
    ]  # fmt: skip
    pairs = [ShownPair(items[2 * number], items[2 * number + 1], 0.5, "") for number in range(200)]
    output = tmp_path / "groups.html"
    totals = {"groups": 500, "pairs for review": 200, "conflicts": 0}
    write_report(output, MatchingPage(groups, pairs, [], totals))
    assert output.stat().st_size < 20e6
    browser_page.goto(output.as_uri())
    expect(browser_page.locator("#shown")).to_have_text("700 of 700")
    assert browser_page.locator("img[src]").count() < 200
    browser_page.locator("#filter").fill("item-77 ")
    browser_page.locator("#filter").fill("title 1234")
    expect(browser_page.locator("#shown")).to_have_text("1 of 700")


@pytest.fixture
def run(command_line: Run) -> Run:
    return partial(command_line, "pairs", "report")


def test_the_command_writes_the_page(version: int, tmp_path: Path, run: Run) -> None:
    add_job({"scope": "changed"}, uuid.UUID("22222222-0000-0000-0000-000000000000"))  # no model served then
    output = tmp_path / "page.html"
    status, out, _ = run("--latest", "--output", str(output), "--json")
    told = json.loads(out)
    assert (status, told["groups"], told["job_id"], told["report"]) == (0, 2, str(JOB), str(output))
    assert "matcher:1" in output.read_text()
    assert run("1111", "--output", str(output))[0] == 0
    for arguments, message in (
        ((), "either its id or --latest"),
        (("1111", "--latest"), "either its id or --latest"),
        (("ffff",), "There is no job 'ffff'"),
        (("2222",), "Job 2222 scored no pairs"),
        (("1111", "--output", str(tmp_path / "none" / "page.html")), "cannot be written"),
    ):
        status, _, err = run(*arguments)
        assert (status, message in " ".join(err.split()), "Traceback" in err) == (1, True, False), arguments


@pytest.mark.usefixtures("database")
def test_before_anything_was_scored(run: Run) -> None:
    status, _, err = run("--latest")
    assert (status, "No pair has been scored yet" in " ".join(err.split())) == (1, True)
