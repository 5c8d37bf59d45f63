"""Redis and Postgres that go away, forget everything or hang in the middle of a refresh."""

from __future__ import annotations

import signal
import time

import pytest
import redis

from tests.acceptance.shop import Shop
from worker.ledger.progress import job_progress

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize("how", ["kill -9", "orderly"])
def test_redis_restart_mid_job(shop: Shop, how: str) -> None:
    job_id = shop.begin_refresh()
    if how == "orderly":
        shop.stop("redis")
    else:
        shop.kill("redis")
    shop.open_gate()  # chunks are done while it is away
    shop.start("redis")
    shop.succeeds_exactly_once(job_id)


def test_redis_flushall_mid_job(shop: Shop) -> None:
    job_id = shop.begin_refresh(pictures=160)
    with redis.Redis.from_url(shop.redis.url) as client:
        assert list(client.scan_iter("gpu.embed*"))  # there are messages to be lost
        client.flushall()
    shop.succeeds_exactly_once(job_id)


# 40 s is longer than any timeout of the workers' connections, 12 s is shorter.
@pytest.mark.slow
@pytest.mark.parametrize("seconds", [12, 40])
def test_redis_paused_mid_job(shop: Shop, seconds: int) -> None:
    job_id = shop.begin_refresh(pictures=160)
    shop.signal("redis", signal.SIGSTOP)
    shop.open_gate()
    time.sleep(seconds)
    assert job_progress(job_id).state == "running"
    shop.signal("redis", signal.SIGCONT)
    shop.succeeds_exactly_once(job_id)


@pytest.mark.parametrize("how", ["kill -9", "orderly"])
def test_postgres_restart_mid_job(shop: Shop, how: str) -> None:
    job_id = shop.begin_refresh()
    if how == "orderly":
        shop.stop("postgres")
    else:
        shop.kill("postgres")
    shop.open_gate()
    time.sleep(1.5)  # commits of chunks fall into the gap
    shop.start("postgres")
    shop.succeeds_exactly_once(job_id)
