"""Real workers rank the plans of a catalogue, and one that is published meanwhile does not wait for the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, text

from shopvision.catalogue import delete_plans, upsert_plans
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.index.tables import Embedding
from shopvision.models.tables import ModelRole, ModelVersion
from shopvision.selection.tables import PlanRanking, PlanRankingState
from tests.acceptance.shop import Shop, eventually
from tests.made_catalogue import PLANS
from tests.unit.selection.tiny_clik import arguments, save_tiny
from worker.ledger import jobs
from worker.ledger.progress import job_progress, recent_jobs

pytestmark = pytest.mark.acceptance


@pytest.fixture
def ranker(shop: Shop, tmp_path: Path) -> Iterator[str]:
    """A tiny CLIK serves the role plan_ranker, and the catalogue's own plans are imported."""
    save_tiny(tmp_path / "tiny", arguments())
    shop.cli("plans", "import", str(shop.folder / "catalogue" / "plans.jsonl"))
    spec = str(shop.cli("models", "import", f"local-dir:{tmp_path / 'tiny'}", "--activate", "plan_ranker")["spec"])
    yield spec
    with connect() as connection:
        connection.execute(text("TRUNCATE plans CASCADE"))
        connection.execute(delete(ModelRole).where(ModelRole.role == "plan_ranker"))
        version = select(ModelVersion.model_version_id).where(
            func.concat(ModelVersion.name, ":", ModelVersion.tag) == spec
        )
        connection.execute(delete(Embedding).where(Embedding.model_version_id.in_(version)))


def rankings(plan_id: str) -> int:
    with connect() as connection:
        return int(connection.scalar(select(func.count()).where(PlanRanking.plan_id == plan_id)) or 0)


def test_every_plan_is_ranked_once_and_shown(shop: Shop, ranker: str, tmp_path: Path) -> None:
    job = shop.cli("jobs", "submit", "rank_plans", "--wait")
    assert (job["state"], job["total"], job["done"], job["urgent"]) == ("succeeded", PLANS, PLANS, False)
    assert job["params"]["model"] == ranker
    members = job["counters"]["candidates"]
    assert 0 < job["counters"]["embedded"] <= len(shop.images) < members  # many plans share their pictures
    again = shop.cli("jobs", "submit", "rank_plans", "scope=all", "--wait")
    assert (again["done"], again["counters"]["embedded"], again["counters"]["shared"]) == (PLANS, 0, 0)
    told = shop.cli("plans", "report", "--latest", "--output", str(tmp_path / "plans.html"))
    assert (told["plans"], told["job_id"]) == (PLANS, again["job_id"])
    assert (tmp_path / "plans.html").read_text().count("data:image/jpeg;base64,") > 50
    with connect() as connection:
        assert connection.scalar(select(func.count()).select_from(PlanRankingState)) == PLANS


@pytest.mark.parametrize("kind", [pytest.param("rank_slowly", marks=pytest.mark.slow), "refresh_one_chunk"])
def test_a_plan_published_at_noon_does_not_wait_for_a_bulk_job(shop: Shop, ranker: str, kind: str) -> None:
    """The GPU process is busy, with many short chunks behind each other or with one that would never end."""
    shop.cli("jobs", "submit", "rank_plans", "--wait")  # the model is loaded
    with connect() as connection:
        members = connection.scalars(select(ItemImage.item_id).distinct().order_by(ItemImage.item_id)).all()
        if kind == "rank_slowly":
            upsert_plans(
                connection,
                [
                    {
                        "plan_id": f"bulk-{number}",
                        "name": "dress",
                        "member_item_ids": list(members[number % 50 : number % 50 + 9]),
                    }
                    for number in range(200)
                ],
            )
    if kind == "rank_slowly":
        bulk = [shop.submit(kind, scope="all")]
    else:
        everything = shop.some_items(10_000)
        gate = shop.close_gate()
        bulk = [shop.submit(kind, item_ids=everything, scope="all", publish=False, gate=gate)]
    for job in bulk:
        shop.holder(job)
    with connect() as connection:
        upsert_plans(connection, [{"plan_id": "noon", "name": "summer sale", "member_item_ids": list(members[:30])}])
        urgent = jobs.submit(connection, "rank_plans", {"plan_ids": ["noon"]})
    try:
        eventually(lambda: rankings("noon"), "the plan is ranked")
        assert shop.wait(urgent).state == "succeeded"
        unfinished = [job for job in bulk if job_progress(job).state == "running"]
        assert unfinished == bulk
        assert sum(shop.deaths(job) for job in bulk) == 0
    finally:
        for job in bulk:
            if job_progress(job).state == "running":
                jobs.cancel(job)
        for job in bulk:
            shop.wait(job)
        with connect() as connection:
            delete_plans(connection, ["noon", *(f"bulk-{number}" for number in range(200))])


def test_the_nightly_run_of_a_shop_without_a_ranker(shop: Shop) -> None:
    job = shop.cli("jobs", "submit", "rank_plans", "--wait")
    assert (job["state"], job["total"]) == ("succeeded", 0)
    assert "No model serves the role plan_ranker" in job["result"]["reason"]
    assert recent_jobs(kind="rank_plans", limit=1)[0].result == job["result"]
