"""Behind a pooler in transaction mode nothing of a session lasts: here every transaction ends with DISCARD ALL."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from shopvision.catalogue.tables import Item
from shopvision.database import connect, copy_upsert, explain, get_engine
from shopvision.index.publisher_lock import publisher_lock
from tests.integration.ledger.conftest import CountKind, RememberingBroker
from worker import dispatcher
from worker.ledger.jobs import submit
from worker.ledger.progress import job_progress


def forget_session(connection: Any, record: object) -> None:
    """What another client's use of the same connection comes to, at its worst."""
    connection.autocommit = True
    connection.execute("DISCARD ALL")
    connection.autocommit = False


@pytest.fixture
def pooled(count_kind: CountKind, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_DATABASE_TRANSACTION_POOLING="true", SHOPVISION_DISPATCH_INTERVAL_SECONDS="0.1")
    event.listen(get_engine(), "checkin", forget_session)


def repeat_a_query() -> None:
    for _ in range(20):
        with connect() as connection:
            connection.execute(text("SELECT count(*) FROM jobs"))


def test_without_the_setting_one_line_names_it(database: None) -> None:
    engine = get_engine()
    Engine.dispose(engine)  # former connections have prepared queries, and later ones shall forget none
    event.listen(engine, "checkin", forget_session)
    try:
        with pytest.raises(DBAPIError) as failure:
            repeat_a_query()
    finally:
        event.remove(engine, "checkin", forget_session)
        Engine.dispose(engine)
    assert "SHOPVISION_DATABASE_TRANSACTION_POOLING=true" in explain(failure.value)


def test_jobs_run_and_rows_are_copied(pooled: None, drain: Callable[..., int]) -> None:
    repeat_a_query()
    for _ in range(8):
        with connect() as connection:
            job_id = submit(connection, "count", {"numbers": 10, "bad": [3]})
            columns = [("item_id", "text"), ("content_hash", "bytea")]
            table: Any = Item.__table__
            copy_upsert(connection, table, columns, [("a", b"1"), ("b", b"2")], key=["item_id"])
        drain()
        progress = job_progress(job_id)
        assert (progress.state, progress.done, progress.failed) == ("succeeded", 9, 1)


def test_the_publishers_lock_belongs_to_a_transaction(pooled: None) -> None:
    with publisher_lock("catalogue"), connect() as connection:
        holders = connection.execute(
            text(
                "SELECT state, backend_xmin FROM pg_stat_activity JOIN pg_locks USING (pid)"
                " WHERE locktype = 'advisory' AND granted"
            )
        ).all()
        assert [tuple(holder) for holder in holders] == [("idle in transaction", None)]  # and holds back no vacuum
    with connect() as connection:
        assert not connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))


def test_the_dispatcher_looks_instead_of_listening(
    pooled: None, broker_memory: RememberingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RememberingBroker, "close", lambda self: None, raising=False)
    monkeypatch.setattr(dispatcher, "CeleryBroker", lambda: broker_memory)
    running = dispatcher.Dispatcher()
    running.start()
    try:
        with connect() as connection:
            submit(connection, "count", {})
        deadline = time.monotonic() + 30
        while not broker_memory.messages:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with connect() as connection:
            assert not connection.scalars(text("SELECT query FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")).all()
    finally:
        running.stop()
        running.join(30)
