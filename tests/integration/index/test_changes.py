"""Notes of what changed: deleted exactly, however many there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import event, text

from shopvision.database import connect, get_engine
from shopvision.index.changes import Changes, consume, read_changes

MODEL = 7


def note(image_ids: range) -> None:
    with connect() as connection:
        connection.execute(
            text("INSERT INTO index_changes (model_version_id, image_id) SELECT :model, unnest(CAST(:ids AS int8[]))"),
            {"model": MODEL, "ids": list(image_ids)},
        )


@pytest.mark.usefixtures("database")
def test_only_what_was_read_is_deleted() -> None:
    note(range(5))
    with connect() as connection:
        changes = read_changes(connection, MODEL)
        connection.execute(text("UPDATE index_changes SET revision = DEFAULT WHERE image_id = 3"))
        connection.execute(text("INSERT INTO index_changes (model_version_id, image_id) VALUES (8, 1)"))
        consume(connection, MODEL, changes)
        left = connection.execute(text("SELECT model_version_id, image_id FROM index_changes ORDER BY 1")).all()
        assert connection.scalar(text("SHOW enable_nestloop")) == "on"
    assert [tuple(row) for row in left] == [(MODEL, 3), (8, 1)]


@pytest.mark.usefixtures("database")
def test_many_notes_are_joined_though_statistics_know_of_one() -> None:
    """A loop over each note for each note that was read takes hours, with the publishers' lock held."""
    note(range(1))
    with get_engine().connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE index_changes"))
    note(range(1, 3_000))
    plans: list[str] = []

    def explain(_: object, cursor: Any, statement: str, parameters: Any, *__: object) -> None:
        if "DELETE" in statement:
            with cursor.connection.cursor() as asking:
                plans.append("\n".join(row[0] for row in asking.execute(f"EXPLAIN {statement}", parameters)))

    with connect() as connection:
        changes = read_changes(connection, MODEL)
    assert len(changes.image_ids) == 3_000
    listens = get_engine(), "before_cursor_execute", explain
    event.listen(*listens)
    try:
        with connect() as connection:
            consume(connection, MODEL, changes)
            assert connection.scalar(text("SELECT count(*) FROM index_changes")) == 0
    finally:
        event.remove(*listens)
    assert len(plans) == 1
    assert "Nested Loop" not in plans[0]


@pytest.mark.usefixtures("database")
def test_nothing_read_deletes_nothing() -> None:
    note(range(2))
    nothing = np.empty(0, np.int64)
    with connect() as connection:
        consume(connection, MODEL, Changes(nothing, nothing))
        assert connection.scalar(text("SELECT count(*) FROM index_changes")) == 2
