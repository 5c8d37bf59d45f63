"""Which items failed lately: what frequent runs leave to the nightly one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import text, update

from shopvision.database import connect
from worker.ledger import jobs
from worker.ledger.progress import job_progress, recently_failed
from worker.ledger.tables import ItemFailure

DAY = timedelta(hours=24)


@pytest.mark.usefixtures("count_kind")
def test_recent_failures_are_those_of_the_kind_the_day_and_other_codes(drain: Callable[..., int]) -> None:
    with connect() as connection:
        job_id = jobs.submit(connection, "count", {"numbers": 6, "bad": [1, 2, 3]})
    drain()
    assert job_progress(job_id).failed == 3
    with connect() as connection:
        connection.execute(update(ItemFailure).where(ItemFailure.item_key == "2").values(code="timeout"))
        old = text("now() - interval '25 hours'")
        connection.execute(update(ItemFailure).where(ItemFailure.item_key == "3").values(failed_at=old))
    assert recently_failed("count", within=DAY) == {"1", "2"}
    assert recently_failed("count", within=DAY, but_not=("timeout",)) == {"1"}
    assert recently_failed("other", within=DAY) == set()
