"""What relay and reaper read at each look does not grow with what waits: they look twenty times a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text

from shopvision.database import connect, get_engine
from tests.integration.ledger.conftest import RememberingBroker
from worker.ledger.outbox import relay
from worker.ledger.reaper import reap

pytestmark = pytest.mark.usefixtures("count_kind")

WAITING = 20_000
FEW = 30


@pytest.fixture
def backlog(count_kind: object) -> None:
    """Chunks of a large job that wait behind a full queue, and as many that are to be tried again later."""
    with connect() as connection:
        connection.execute(text("INSERT INTO jobs (kind, params, source) VALUES ('count', '{}', 'test')"))
        for queue, wait in (("gpu.embed", 0), ("io", 3600)):
            values = {"queue": queue, "wait": wait, "count": WAITING}
            connection.execute(
                text(
                    "INSERT INTO chunks (job_id, phase, queue, not_before)"
                    " SELECT job_id, 'chunk', :queue, now() + make_interval(secs => :wait)"
                    " FROM jobs, generate_series(1, :count)"
                ),
                values,
            )
        connection.execute(
            text(
                "INSERT INTO outbox (chunk_id, task, queue, not_before)"
                " SELECT chunk_id, 'tasks.count.chunk', queue, not_before FROM chunks ORDER BY chunk_id DESC"
            )
        )
        connection.execute(text("UPDATE outbox SET sent_at = now() WHERE message_id <= 3"))
    with get_engine().execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("ANALYZE"))


@pytest.fixture
def rows_read(backlog: None) -> Callable[[Callable[[], object]], int]:
    """``rows_read(call)``: how many rows the statements of ``call`` look at in tables and indexes, the most of one."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    def measure(call: Callable[[], object]) -> int:
        event.listen(get_engine(), "before_cursor_execute", note)
        try:
            call()
        finally:
            event.remove(get_engine(), "before_cursor_execute", note)
        with connect() as connection:
            plans = [
                connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
                for statement, parameters in statements
            ]
            connection.rollback()
        return max(scanned(plan[0]["Plan"]) for plan in plans)

    return measure


def scanned(node: dict[str, Any]) -> int:
    inner = sum(map(scanned, node.get("Plans", [])))
    if node.get("Relation Name") not in {"outbox", "chunks"} or "Scan" not in node["Node Type"]:
        return inner
    rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int(inner + rows * node["Actual Loops"])


def test_a_full_queue_costs_a_few_rows(rows_read: Callable[..., int], broker_memory: RememberingBroker) -> None:
    for number in range(5):
        broker_memory.send("tasks.count.chunk", number, "gpu.embed", urgent=False)
    assert rows_read(lambda: relay(broker_memory, 5)) <= FEW
    assert len(broker_memory.messages) == 5


def test_room_for_some_costs_as_many_rows(rows_read: Callable[..., int], broker_memory: RememberingBroker) -> None:
    assert rows_read(lambda: relay(broker_memory, 5)) <= FEW
    assert [message[2] for message in broker_memory.messages] == ["gpu.embed"] * 5


def test_looking_for_lost_messages_costs_a_few_rows(rows_read: Callable[..., int]) -> None:
    assert rows_read(reap) <= FEW
