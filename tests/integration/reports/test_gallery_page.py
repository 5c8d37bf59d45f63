"""The page of all pictures that were scored for a text, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from shopvision.errors import UserError
from shopvision.reports.gallery import GalleryPicture, GalleryQuery, require_place, write_gallery

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture
def pictures(tmp_path: Path, set_environment: Callable[..., None]) -> list[str]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(50):
        Image.new("RGB", (60, 40), (5 * number, 200 - 4 * number, 90)).save(folder / f"{number}.png")
    set_environment(SHOPVISION_IMAGE_ROOTS=str(folder))
    return [(folder / f"{number}.png").as_uri() for number in range(50)]


@pytest.mark.slow
def test_five_thousand_pictures(pictures: list[str], tmp_path: Path, browser_page: Page) -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(0.1, 0.66, 5_000)
    vectors = random.standard_normal((5_000, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.argsort(-scores)
    vectors[order[1]] = vectors[order[4_999]] = vectors[order[0]]  # copies of the best: one near, one far behind
    shown = [GalleryPicture(pictures[n % 50], float(scores[n]), f"item {n:04}", f"id-{n}") for n in range(5_000)]
    output = tmp_path / "gallery.html"
    write_gallery(output, [GalleryQuery("普陀山", shown, vectors)], facts=[("model", "recall:1")], least=0.4)
    assert output.stat().st_size < 20e6
    browser_page.goto(output.as_uri())
    expect(browser_page.locator("#text")).to_have_text("普陀山")
    folded = int(str(browser_page.locator("#shown").text_content()).split(" of ")[0])
    assert folded <= 4_998
    cards = browser_page.locator("#grid figure")
    expect(cards).to_have_count(120)
    first = cards.first
    expect(first).to_contain_text(f"{scores.max():.3f} item {order[0]:04}")
    expect(first).to_contain_text("nearly the same")
    assert browser_page.locator("img").count() == 120
    assert first.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 60
    browser_page.locator("#order").click()
    expect(cards.first).not_to_contain_text(f"item {order[4_999]:04}")  # it is folded behind the best
    browser_page.locator("#fold").uncheck()
    expect(cards.first).to_contain_text(f"item {order[4_999]:04}")
    expect(browser_page.locator("#shown")).to_have_text("5000 of 5000")
    expect(browser_page.locator("#page")).to_have_text("page 1 of 42")
    browser_page.locator("#next").click()
    expect(browser_page.locator("#page")).to_have_text("page 2 of 42")
    bars = browser_page.locator("#buckets button")
    assert sum(int(text.split()[0]) for text in bars.evaluate_all("all => all.map(one => one.title)")) == 5_000
    assert browser_page.locator("#buckets .enough").count() < bars.count()
    bars.first.click()
    many = int(bars.first.get_attribute("title").split()[0])  # type: ignore[union-attr]
    expect(browser_page.locator("#shown")).to_have_text(f"{many} of 5000")
    bars.first.click()
    browser_page.locator("#filter").fill("id-4321")
    expect(cards).to_have_count(1)


def test_several_texts_marks_and_hostile_words(pictures: list[str], tmp_path: Path, browser_page: Page) -> None:
    output = tmp_path / "gallery.html"
    broken = (tmp_path / "pictures" / "none.png").as_uri()
    queries = [
        GalleryQuery("first", [GalleryPicture(pictures[0], 0.5, HOSTILE, HOSTILE, is_right=True)]),
        GalleryQuery(HOSTILE, [GalleryPicture(broken, 2.0, "broken", is_right=False)], left_out=7),
        GalleryQuery("nothing", []),
    ]
    write_gallery(output, queries)
    assert not re.search(r'(?:src|href)\s*=\s*"(?:https?:|//|file:)', output.read_text())
    browser_page.goto(output.as_uri())
    expect(browser_page.locator("#grid figure.right")).to_contain_text(HOSTILE)
    browser_page.locator("#query").select_option(index=1)
    expect(browser_page.locator("#text")).to_have_text(HOSTILE)
    expect(browser_page.locator("#grid figure.wrong")).to_contain_text("broken")
    expect(browser_page.locator("#remark")).to_contain_text("7 pictures between the best and the worst")
    browser_page.locator("#query").select_option(index=2)
    expect(browser_page.locator("#shown")).to_have_text("0 of 0")
    assert browser_page.title() == "Pictures for a text"
    browser_page.set_viewport_size({"width": 390, "height": 800})
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    for output in (tmp_path / "none" / "page.html", tmp_path):
        with pytest.raises(UserError, match="cannot be written: name a file in a folder that exists"):
            require_place(output)
