"""Plans that look for pictures in the library, and the ways to rank them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from shopvision.database import connect
from shopvision.models import activate
from shopvision.selection.report import latest_job, plans_of, write_report
from shopvision.selection.tables import PlanRanking
from tests.integration.selection.item_shop import ItemShop, add_version, open_shop

RED, GREEN, BLUE, WINE, ORANGE = (250, 0, 0), (0, 250, 0), (0, 0, 250), (120, 0, 30), (250, 100, 0)


@pytest.fixture
def season(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> ItemShop:
    """A plan for red without members and one with a blue member, over a published library."""
    shop = open_shop(tmp_path, monkeypatch, set_environment)
    activate("plan_ranker", add_version("ranker", "plan_ranker"))
    for name, colour in {"tee": RED, "copy": RED, "skirt": GREEN, "scarf": WINE, "boot": ORANGE, "jeans": BLUE}.items():
        shop.add(name, name, colour)
    shop.publish()
    shop.add_plan("empty", "red sale")
    shop.add_plan("full", "red sale", "jeans")
    return shop


def sources(plan_id: str) -> dict[int, tuple[str, float | None]]:
    with connect() as connection:
        rows = connection.execute(
            select(PlanRanking.rank, PlanRanking.source, PlanRanking.recall_score).where(PlanRanking.plan_id == plan_id)
        )
        return {row.rank: (row.source, row.recall_score) for row in rows}


def test_a_plan_without_members_gets_what_shows_its_words(season: ItemShop) -> None:
    job = season.run()
    assert (job.state, job.done, job.failed) == ("succeeded", 2, 0)
    assert [item for _, item, _ in season.ranking("empty")] == ["tee", "scarf", "boot"]  # equal bytes once
    assert [item for _, item, _ in season.ranking("full")] == ["jeans"]
    assert {source for source, _ in sources("empty").values()} == {"library"}
    assert all(score is not None and score > 0.8 for _, score in sources("empty").values())
    assert sources("full") == {1: ("member", None)}
    assert job.result is not None
    assert (job.result["method"], job.result["found"], season.state("empty").found) == ("plan_ranker", 3, 3)
    assert season.run().total == 0
    season.add("cap", "cap", (250, 60, 0))
    season.publish()
    job = season.run()
    assert (job.total, job.done) == (1, 1)
    assert "cap" in [item for _, item, _ in season.ranking("empty")]


def test_with_recall_members_and_the_library_compete(season: ItemShop) -> None:
    season.run(recall=True, most_found=2)
    assert [item for _, item, _ in season.ranking("full")] == ["tee", "scarf", "jeans"]
    assert [sources("full")[rank][0] for rank in (1, 2, 3)] == ["library", "library", "member"]
    season.run(recall=True, least_score=0.99)
    assert [item for _, item, _ in season.ranking("full")] == ["tee", "jeans"]
    season.add_plan("full", "red sale", "tee", "jeans")
    season.run(recall=True)
    assert "copy" not in [item for _, item, _ in season.ranking("full")]  # the member's equal


def test_the_models_kind_is_the_method(season: ItemShop) -> None:
    job = season.run(model="recall:1", recall=True)
    assert job.result is not None
    assert (job.result["method"], season.recall.texts) == ("image_recall", ["red sale", "red sale"])
    rows = season.ranking("full", "recall")
    assert [item for _, item, _ in rows] == ["tee", "scarf", "boot", "jeans"]
    assert rows[0][2] == pytest.approx(sources("full")[1][1], abs=1e-6)
    add_version("clicks", "image_ranker")
    job = season.run(model="clicks:1", recall=True)
    assert job.result is not None
    assert (job.result["method"], job.result["embedded"]) == ("image_ranker", 4)
    assert season.ranking("full", "clicks")[0][1] == "scarf"  # the darkest
    assert season.clicks.told == [("red sale", [])] * 2


def test_where_the_library_cannot_be_looked_at(season: ItemShop) -> None:
    activate("image_recall", add_version("other", "image_recall", thresholds={"score": 0.5}))
    season.models["other:1"] = season.recall
    job = season.run()
    assert (job.done, job.failed) == (1, 1)  # as before there was a library
    job = season.run(recall=True)
    assert "'catalogue-text' holds vectors of recall:1, not of other:1" in str(job.error)
    activate("image_recall", add_version("raw", "image_recall"))
    assert "raw:1 has no calibrated score" in str(season.run(recall=True).error)


def test_the_page_says_why(season: ItemShop, tmp_path: Path) -> None:
    season.run(recall=True)
    plans = {str(plan.topic.plan_id): plan for plan in plans_of(latest_job())}
    best = plans["full"].best
    assert [reason.rpartition(" ")[0] for reason in best[1].reasons[:2]] == ["fits the topic", "shows the words"]
    assert best[1].reasons[2] == "found in the library"
    assert best[-1].reasons[1:] == ("a member's",)
    write_report(tmp_path / "plans.html", list(plans.values()))
    assert "3 of them found in the library" in (tmp_path / "plans.html").read_text()
