"""The report in a real browser: what it shows, what its filter does, and that a hostile title stays text."""

from __future__ import annotations

import html
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import insert

from shopvision.database import connect
from shopvision.database.tables import Item, ItemImage
from shopvision.errors import UserError
from shopvision.search.report import Neighbour, ReportItem, Row, _items, write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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


def rendered(output: Path, tmp_path: Path) -> str:
    """The page's DOM after its scripts have run."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'browser'}",
            "--window-size=1400,1200", "--virtual-time-budget=2000", "--dump-dom", output.as_uri(),
        ],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout


def test_the_page_is_self_contained_and_each_picture_is_in_it_once(pictures: Path, tmp_path: Path) -> None:
    text = page(pictures, tmp_path / "report.html", rows=60)
    assert text.count("data:image/jpeg;base64,") == 3
    assert not re.search(r'(?:src|href)\s*=\s*"(?:https?:|//|file:)', text)
    assert not list(tmp_path.glob("*.part"))


def test_a_missing_picture_leaves_a_blank(pictures: Path, tmp_path: Path) -> None:
    (pictures / "1.jpg").unlink()
    assert page(pictures, tmp_path / "report.html").count("data:image/jpeg;base64,") == 2


def test_a_folder_that_is_not_there_is_named(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be written to .*none/report\.html"):
        page(pictures, tmp_path / "none" / "report.html")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: install Debian's package chromium")
def test_a_browser_shows_pictures_filters_rows_and_runs_nothing_hostile(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    page(pictures, output)
    dom = rendered(output, tmp_path)
    assert "<title>What looks alike</title>" in dom
    assert html.escape(HOSTILE, quote=False) in dom
    assert len(re.findall(r'<img data-picture="\d" [^>]*src="data:image/jpeg', dom)) == 9
    assert "3 of 3" in dom
    # The filter, typed into by a script added at the end of the page
    typed = """<script>
        const box = document.getElementById("filter");
        box.value = "초록 tops";
        box.dispatchEvent(new Event("input"));
        </script></body>"""
    output.write_text(output.read_text(encoding="utf-8").replace("</body>", typed), encoding="utf-8")
    filtered = rendered(output, tmp_path)
    assert "1 of 3" in filtered
    assert len(re.findall(r'<section class="row"[^>]* hidden=""', filtered)) == 2


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
