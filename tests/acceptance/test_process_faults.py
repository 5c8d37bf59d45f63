"""Processes that die, hang, or are asked to stop in the middle of a refresh."""

from __future__ import annotations

import os
import signal
import time
import uuid

import pytest
from celery import Celery
from sqlalchemy import func, select, update

from shopvision.database import connect
from tests.acceptance.shop import Shop, eventually
from worker.ledger.progress import job_progress, list_failures
from worker.ledger.tables import Chunk, Job, ScheduleWindow

pytestmark = pytest.mark.acceptance


def test_kill_9_the_pool_child_mid_chunk(shop: Shop) -> None:
    job_id = shop.begin_refresh()
    os.kill(shop.holder(job_id)[1], signal.SIGKILL)
    shop.succeeds_exactly_once(job_id)
    assert shop.deaths(job_id) == 1


@pytest.mark.parametrize("name", ["gpu", pytest.param("cpu", marks=pytest.mark.slow)])
def test_kill_9_the_worker_mid_chunk(shop: Shop, name: str) -> None:
    job_id = shop.begin_refresh()
    shop.kill(name)
    shop.start(name)
    shop.succeeds_exactly_once(job_id)
    assert (shop.deaths(job_id) > 0) == (name == "gpu")


def gpu_logs(shop: Shop) -> str:
    return shop.log("gpu") + shop.log("gpu-other")


@pytest.mark.slow
def test_the_same_chunk_delivered_three_times_two_of_them_at_once(shop: Shop) -> None:
    shop.start("gpu-other")
    job_id = shop.begin_refresh(pictures=160)
    with connect() as connection:
        ready = connection.scalars(select(Chunk.chunk_id).where(Chunk.job_id == job_id, Chunk.state == "ready")).all()
    producer = Celery(broker=shop.redis.url)
    for chunk_id in ready:
        for _ in range(2):
            producer.send_task("tasks.refresh_small_chunks.chunk", [chunk_id], queue="gpu.embed")
    producer.close()
    assert len(ready) >= 4
    eventually(lambda: len(shop.at_gate()) == 2, "both processes hold a chunk")
    shop.succeeds_exactly_once(job_id)
    assert shop.attempts(job_id) == [1] * len(shop.attempts(job_id))
    eventually(lambda: gpu_logs(shop).count("chunk_not_available") >= 2 * len(ready), "every duplicate is refused")


@pytest.mark.slow
def test_a_process_that_was_thought_dead_comes_back_late(shop: Shop) -> None:
    """It holds finished vectors of a chunk that another one has done meanwhile: the fence refuses them."""
    shop.start("gpu-other")
    job_id = shop.begin_refresh()
    chunk_id, pid = shop.holder(job_id)
    os.kill(pid, signal.SIGSTOP)
    shop.open_gate()

    def done_by_another() -> bool:
        with connect() as connection:
            row = connection.execute(select(Chunk.state, Chunk.attempt).where(Chunk.chunk_id == chunk_id)).one()
        return bool(row.state == "done" and row.attempt >= 2)

    try:
        eventually(done_by_another, "another process does the chunk")
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: "lease_lost" in gpu_logs(shop), "the late one is refused")
    shop.succeeds_exactly_once(job_id)


@pytest.mark.slow
def test_a_poison_picture_that_kills_the_process(shop: Shop) -> None:
    items = shop.some_items(24)
    poison = shop.images[items[3]][0]
    shop.forget([image for item in items for image in shop.images[item]])
    job_id = shop.submit("refresh_tiny_chunks", item_ids=items, publish=False, deadly=poison)
    shop.succeeds_exactly_once(job_id, failed=[poison])
    [failure] = list_failures(job_id, limit=10)
    assert (failure["item_key"], failure["code"]) == (str(poison), "poison")


def test_cancel_mid_job_stops_at_a_batch_border_and_resume_does_the_rest(shop: Shop) -> None:
    job_id = shop.begin_refresh(pictures=96, kind="refresh_one_chunk")
    shop.cli("jobs", "cancel", str(job_id))
    progress = shop.wait(job_id)  # held at the gate, it ends only because it was told to
    assert progress.state == "cancelled"
    assert progress.total is not None
    assert progress.done == 32 < progress.total  # one whole batch
    shop.open_gate()
    shop.cli("jobs", "resume", str(job_id))
    shop.succeeds_exactly_once(job_id)


def test_sigterm_mid_chunk_hands_the_rest_back(shop: Shop) -> None:
    job_id = shop.begin_refresh(pictures=96, kind="refresh_one_chunk")
    shop.stop("gpu")  # held at the gate, it ends only because it was told to
    progress = job_progress(job_id)
    assert progress.total is not None
    assert (progress.state, progress.done) == ("running", 32)
    with connect() as connection:
        rest = connection.execute(
            select(Chunk.state, Chunk.item_count, Chunk.deaths).where(Chunk.job_id == job_id, Chunk.phase == "chunk")
        ).one()
    assert tuple(rest) == ("ready", progress.total - progress.done, 0)
    shop.open_gate()
    shop.start("gpu")
    shop.succeeds_exactly_once(job_id)


@pytest.mark.slow
def test_two_beats_and_beat_killed_and_down_over_windows(shop: Shop) -> None:
    def scheduled() -> list[uuid.UUID]:
        with connect() as connection:
            return list(connection.scalars(select(Job.job_id).where(Job.source == "schedule:yearly")))

    def miss_windows(years: int) -> None:
        with connect() as connection:
            past = func.make_interval(years)
            connection.execute(update(ScheduleWindow).values(window_at=ScheduleWindow.window_at - past))

    def known() -> int | None:
        with connect() as connection:
            return connection.scalar(select(func.count()).select_from(ScheduleWindow))

    shop.start("beat-1", "beat-2")
    eventually(known, "beat asked for the first time")
    assert scheduled() == []
    miss_windows(1)
    eventually(scheduled, "the window becomes a job")
    time.sleep(2.5)
    [first] = scheduled()
    assert shop.wait(first).state == "succeeded"

    job_id = shop.begin_refresh()
    shop.kill("beat-1")
    shop.kill("beat-2")
    shop.succeeds_exactly_once(job_id)

    with connect() as connection:
        connection.execute(update(Job).where(Job.job_id == first).values(source="seen", idempotency_key=None))
    miss_windows(3)
    shop.start("beat-1")
    eventually(scheduled, "the missed windows become a job")
    time.sleep(2.5)
    [caught_up] = scheduled()
    assert shop.wait(caught_up).state == "succeeded"
