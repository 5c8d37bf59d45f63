"""The page of training pairs in a real browser: what it shows, and that decisions made in it hold for good."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from shopvision.fashion.pair_file import read_training_pairs
from shopvision.fashion.posts.page import PairsPage, ShownPair, write_report
from shopvision.models import activate
from tests.conftest import Run
from tests.integration.posts.post_shop import PostShop, add_version, open_shop, pairs

HOSTILE = "</script><script>document.title='taken'</script>"


@pytest.fixture
def shop(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> PostShop:
    return open_shop(tmp_path, monkeypatch, set_environment)


@pytest.fixture
def run(command_line: Run) -> Run:
    return partial(command_line, "posts")


def label(shop: PostShop) -> None:
    hostile = shop.post("p,1", "top", "bag", seed=1)
    hostile["products"][0] |= {"title": HOSTILE}
    job = shop.label(
        hostile, shop.post("p2", "top", seed=2),
        {"post_id": "gone", "photo": "gone.png", "products": shop.thumbnails("top")},
        {"post_id": "bare", "photo": "p2.png"},
    )  # fmt: skip
    assert (job.done, job.failed) == (3, 1)


def test_wrong_pairs_are_marked_in_the_page_and_stay_out(
    shop: PostShop, tmp_path: Path, run: Run, browser_page: Page
) -> None:
    label(shop)
    output = tmp_path / "posts.html"
    status, out, _ = run("report", "--latest", "--output", output, "--json")
    assert (status, json.loads(out)["pairs"]) == (0, 3)
    assert not re.search(r'(?:src|href)\s*=\s*"(?:https?:|//|file:)', output.read_text())
    browser_page.goto(output.as_uri())
    assert browser_page.title() == "Training pairs from posts"
    text = browser_page.locator("main").inner_text()
    for words in (HOSTILE, "A bag", "3 of 3 that nobody has decided", "no_products", "not_found", "gone.png"):
        assert words in text
    expect(browser_page.locator("img[src^='data:image/jpeg']")).to_have_count(9)
    # The box lies where the garment is: pixels 30 to 50 of 120, and 20 to 40 of 160.
    second = browser_page.locator("section[data-product=bag]")
    frame, box = second.locator(".frame").bounding_box(), second.locator(".frame i").bounding_box()
    assert frame is not None
    assert box is not None
    assert frame["width"] / frame["height"] == pytest.approx(120 / 160, abs=0.01)
    assert (box["x"] - frame["x"]) / frame["width"] == pytest.approx(30 / 120, abs=0.01)
    assert (box["y"] - frame["y"]) / frame["height"] == pytest.approx(20 / 160, abs=0.01)
    assert box["width"] / frame["width"] == pytest.approx(20 / 120, abs=0.01)
    download = browser_page.locator("#download")
    expect(download).to_be_disabled()
    second.get_by_text("Wrong").click()
    first = browser_page.locator("section[data-post=p2]")
    first.get_by_text("Wrong").click()
    first.get_by_text("Wrong").click()  # taken back
    expect(download).to_have_text("Download 1 decision (CSV)")
    browser_page.locator("#reviewer").fill("Kim")
    with browser_page.expect_download() as found:
        download.click()
    path = tmp_path / "reviews.csv"
    found.value.save_as(path)
    assert path.read_text().splitlines() == ["post_id,product_id,verdict,reviewer", '"p,1",bag,wrong,Kim']

    status, out, _ = run("review", path, "--json")
    assert (status, json.loads(out)["written"]) == (0, 1)
    kept = {("p,1", "top"): "kept", ("p,1", "bag"): "person", ("p2", "top"): "kept"}
    assert pairs() == kept
    shop.run(scope="all")
    assert pairs() == kept
    activate("fashion_detector", add_version("other", "fashion_detector"))
    shop.models["other:1"] = shop.models["detector:1"]
    shop.run()
    assert run("export", "--output", tmp_path / "pairs.jsonl")[0] == 0
    assert [(row.post_id, row.product_id) for row in read_training_pairs(tmp_path / "pairs.jsonl")] == [
        ("p,1", "top"), ("p2", "top"),
    ]  # fmt: skip


@pytest.mark.slow
def test_two_hundred_pairs_can_be_looked_through(tmp_path: Path, database: None, browser_page: Page) -> None:
    shown = [
        ShownPair(
            f"post {number}", f"product {number}", f"title {number}", "top", "file:///gone.jpg", "file:///gone.jpg",
            (0.0, 0.0, 10.0, 10.0), (20, 40), 0.9, 0.8, is_new=number < 10,
        )
        for number in range(200)
    ]  # fmt: skip
    reasons = {"posts": {"kept": 200}, "pairs": {"kept": 200}}
    write_report(tmp_path / "page.html", PairsPage(shown, 200, reasons))
    browser_page.goto((tmp_path / "page.html").as_uri())
    for words, count in (("new", 10), ("title 123", 1), ("nothing such", 0)):
        browser_page.locator("#filter").fill(words)
        expect(browser_page.locator("#shown")).to_have_text(f"{count} of 200")


@pytest.mark.usefixtures("database")
def test_before_anything_was_labelled(run: Run) -> None:
    for arguments, message in (
        (("report", "--latest"), "No post has been labelled yet: `shopvision jobs submit label_posts --wait` does it."),
        (("report",), "either its id or --latest"),
        (("counts",), "No model serves the role fashion_detector"),
        (("export", "--output", "pairs.jsonl"), "No model serves the role fashion_detector"),
    ):
        status, _, err = run(*arguments)
        assert (status, message in " ".join(err.split()), "Traceback" in err) == (1, True, False), arguments
