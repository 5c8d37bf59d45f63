"""The page of a ranking job: what it shows, in a real browser, and how large it gets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from sqlalchemy import text

from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.selection.report import RankedPicture, RankedPlan, latest_job, plans_of, write_report
from tests.conftest import Run
from tests.integration.meanwhile import right_after
from tests.integration.selection.conftest import RankingShop

HOSTILE = "red </script><script>document.title='taken'</script>"


@pytest.fixture
def season(shop: RankingShop) -> RankingShop:
    """Three plans in three scripts over twelve pictures, one of which is broken; two plans got another top picture."""
    for number in range(12):
        shop.add_item(f"i{number:02}", (20 * number, 240 - 20 * number, 60))
    (shop.folder / "i05-0.png").write_bytes(b"")
    members = [f"i{number:02}" for number in range(12)]
    shop.add_plan("1", "red 빨간 힐", *members, desc="가을 신상", date="2026-10-01", cat1="패션", kwds=["힐", "가을"])
    shop.add_plan("2", "green 绿色 连衣裙", *members, cat1="Women", cat2="Dresses", kwds=["夏季"])
    shop.add_plan("3", HOSTILE, "i01", desc="<b>bold</b>")
    shop.run()
    shop.add_plan("1", "red 빨간 힐", *members[:-1], desc="가을 신상", date="2026-10-01", cat1="패션", kwds=["힐"])
    shop.add_plan("2", "green 绿色 连衣裙", *members[1:], cat1="Women", cat2="Dresses", kwds=["夏季"])
    shop.add_plan("3", HOSTILE, "i02", desc="<b>bold</b>")
    shop.run()
    return shop


def test_plans_come_with_their_best_and_worst_pictures(season: RankingShop) -> None:
    plans = plans_of(latest_job())
    red, green, hostile = sorted(plans, key=lambda plan: str(plan.topic.plan_id))
    assert [(picture.item_id, picture.rank) for picture in red.best] == [
        ("i10", 1), ("i09", 2), ("i08", 3), ("i07", 4), ("i06", 5), ("i04", 6),
    ]  # fmt: skip
    assert [(picture.item_id, picture.rank) for picture in red.worst] == [("i02", 8), ("i01", 9), ("i00", 10)]
    assert (red.candidates, red.unreadable, red.is_new_top) == (11, 1, True)
    assert red.former is not None
    assert (red.former.item_id, red.former.rank) == ("i11", None)
    assert green.former is not None
    assert green.former.item_id == "i00"
    assert ([picture.item_id for picture in hostile.best], hostile.worst) == (["i02"], [])


def test_a_job_shows_the_plans_that_no_later_one_ranked(season: RankingShop) -> None:
    second = latest_job()
    season.run(plan_ids=["1"])
    assert {plan.topic.plan_id for plan in plans_of(second)} == {"2", "3"}
    [only] = plans_of(latest_job())
    assert (only.is_new_top, only.former) == (False, None)


def test_what_a_job_ranks_while_the_page_is_read_comes_on_the_next_page(shop: RankingShop) -> None:
    shop.add_item("a", (250, 0, 0))
    shop.add_plan("1", "red", "a")
    shop.run()
    job_id = latest_job()

    def rank_another() -> None:
        shop.add_plan("2", "green", "a")
        with connect() as connection:
            for table, values in (
                (
                    "plan_ranking_states",
                    "'2', model_version_id, job_id, ranked_at, candidates, unreadable, unreadable_pictures",
                ),
                ("plan_rankings", "'2', model_version_id, image_id, rank, score, job_id"),
            ):
                columns = values.replace("'2'", "plan_id")
                connection.execute(text(f"INSERT INTO {table} ({columns}) SELECT {values} FROM {table}"))

    with right_after("FROM plans", rank_another):
        assert [plan.topic.plan_id for plan in plans_of(job_id)] == ["1"]


def test_a_former_picture_that_left_the_catalogue_is_said(season: RankingShop, tmp_path: Path) -> None:
    from shopvision.catalogue import delete_items

    with connect() as connection:
        delete_items(connection, ["i11"])
    plans = plans_of(latest_job())
    write_report(tmp_path / "page.html", plans)
    assert (tmp_path / "page.html").read_text().count("no longer in the catalogue") == 1


@pytest.fixture
def run(command_line: Run) -> Run:
    return partial(command_line, "plans", "report")


def test_the_command_writes_the_page(season: RankingShop, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "page.html"
    status, out, _ = run("--latest", "--output", str(output), "--json")
    assert status == 0
    told = json.loads(out)
    assert (told["plans"], told["report"]) == (3, str(output))
    assert "ranker:1" in output.read_text()
    assert run(told["job_id"][:8], "--output", str(output))[0] == 0
    for arguments, words in (
        ((), "either its id or --latest"),
        (("abc", "--latest"), "either its id or --latest"),
        (("ffff",), "There is no job 'ffff'"),
    ):
        status, _, err = run(*arguments)
        assert (status, words in " ".join(err.split())) == (1, True)
    empty = season.run()
    with pytest.raises(UserError, match=f"No plan bears the ranking of job {empty.job_id}"):
        plans_of(empty.job_id)


@pytest.mark.usefixtures("shop")
def test_before_anything_was_ranked() -> None:
    with pytest.raises(UserError, match="No plan has been ranked yet"):
        latest_job()


def test_a_browser_shows_topics_pictures_and_marks(season: RankingShop, tmp_path: Path, browser_page: Page) -> None:
    output = tmp_path / "plans.html"
    failure = {"item_key": "9", "code": "no_candidates", "message": "None of its items has a picture."}
    write_report(output, plans_of(latest_job()), facts=[("model", "ranker:1")], failures=[failure])
    assert not re.search(r'(?:src|href)\s*=\s*"(?:https?:|//|file:)', output.read_text())
    browser_page.goto(output.as_uri())
    assert browser_page.title() == "Pictures for promotion plans"
    text = browser_page.locator("main").inner_text()
    for words in ("绿色 连衣裙", "빨간 힐", "2026-10-01", "Women / Dresses", HOSTILE, "<b>bold</b>", "no_candidates"):
        assert words in text
    expect(browser_page.locator(".badge")).to_have_count(3)
    expect(browser_page.locator("img[src^='data:image/jpeg']")).to_have_count(6 + 3 + 1 + 6 + 3 + 1 + 1 + 1)
    assert browser_page.locator("img").first.evaluate("picture => picture.naturalWidth") > 1
    browser_page.locator("details").first.click()
    expect(browser_page.locator("details[open]")).to_contain_text("empty")
    browser_page.locator("#filter").fill("힐 패션")
    expect(browser_page.locator("#shown")).to_have_text("1 of 3")
    expect(browser_page.locator("section.plan:visible")).to_have_count(1)


def test_new_top_pictures_come_first(season: RankingShop) -> None:
    season.add_plan("2", "green zebra", *(f"i{number:02}" for number in range(1, 12)))
    season.add_plan("1", "red again", "i03")
    season.run()
    assert [(plan.topic.plan_id, plan.is_new_top) for plan in plans_of(latest_job())] == [("1", True), ("2", False)]


@pytest.mark.slow
def test_a_hundred_plans(tmp_path: Path, set_environment: Callable[..., None], browser_page: Page) -> None:
    """900 pictures: the page loads only what is in view."""
    set_environment(SHOPVISION_IMAGE_ROOTS=str(tmp_path))
    generator = np.random.default_rng(1)
    for number in range(300):  # soft blots, about as heavy as photos
        blots = Image.fromarray(generator.integers(0, 255, (9, 9, 3), dtype=np.uint8))
        blots.resize((180, 180), Image.Resampling.BILINEAR).save(tmp_path / f"{number}.jpg")
    words = {"description": "words " * 50, "date": None, "cat1": "Women", "cat2": None, "cat3": None, "cat4": None}
    plans = []
    for number in range(100):
        topic = SimpleNamespace(plan_id=f"p{number}", name=f"plan {number}", keywords=["sale"], **words)
        shown = [
            RankedPicture(one, f"i{one}", None, (tmp_path / f"{one % 300}.jpg").as_uri(), place + 1, 0.5)
            for place, one in enumerate(range(9 * number, 9 * number + 9))
        ]
        plans.append(RankedPlan(topic, 50, 0, [], is_new_top=False, best=shown[:6], worst=shown[6:]))
    output = tmp_path / "plans.html"
    write_report(output, plans)
    assert output.stat().st_size < 8e6
    browser_page.goto(output.as_uri())
    expect(browser_page.locator("#shown")).to_have_text("100 of 100")
    assert browser_page.locator("img[src]").count() < 200
    browser_page.locator("#filter").fill("p77")
    expect(browser_page.locator("#shown")).to_have_text("1 of 100")
