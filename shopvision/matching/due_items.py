"""Which items a matching job takes up, and when they count as matched.

An item is due where its record differs from the one that was last matched to the end under the model version. A job
notes the record it takes up (``mark_due``), and says at its end that this one is matched (``complete``).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from shopvision.catalogue.known_ids import SHOWN_CHARACTERS, require_items
from shopvision.catalogue.tables import Item as ItemRow
from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.matching.blocking.rows import category_parts
from shopvision.matching.store import ROWS_AT_ONCE

_MARK_DUE = """
    INSERT INTO matching_states (item_id, model_version_id, pending_hash, pending_job_id)
    SELECT item.item_id, :version, item.content_hash, :job_id
    FROM items AS item
    LEFT JOIN matching_states AS state ON state.item_id = item.item_id AND state.model_version_id = :version
    WHERE {which}
    ORDER BY item.item_id
    ON CONFLICT (item_id, model_version_id) DO UPDATE SET
        pending_hash = excluded.pending_hash, pending_job_id = excluded.pending_job_id
    """
_CHANGED = "state.content_hash IS DISTINCT FROM item.content_hash"
_NAMED = "item.item_id = ANY(:item_ids)"
_OF_CATEGORIES = "item.category = ANY(:categories)"
_OF_SOURCES = "item.source = ANY(:sources)"

_COMPLETE = """
    UPDATE matching_states SET
        content_hash = CASE WHEN item_id = ANY(:again) THEN content_hash ELSE pending_hash END,
        pending_hash = NULL, pending_job_id = NULL
    WHERE pending_job_id = :job_id
    """

# The whole catalogue is what due items are compared with, so whatever has no vector of what it is now gets one.
_WITHOUT_VECTOR = """
    SELECT item.item_id, due.item_id IS NOT NULL AS due
    FROM items AS item
    LEFT JOIN item_vectors AS kept ON kept.item_id = item.item_id AND kept.model_version_id = :blocker
    LEFT JOIN matching_states AS due ON due.item_id = item.item_id AND due.model_version_id = :version
        AND due.pending_job_id = :job_id
    WHERE kept.item_id IS NULL OR item.updated_at >= kept.computed_at OR due.item_id IS NOT NULL
    ORDER BY item.item_id
    """


@dataclass(frozen=True)
class DueScope:
    """Which items a job takes up.

    Attributes:
        everything: also those that did not change.
        item_ids: exactly these instead, changed or not.
        categories: only items of these categories and of all below them.
        sources: only items that come from these.
    """

    everything: bool = False
    item_ids: Sequence[str] | None = None
    categories: Sequence[str] | None = None
    sources: Sequence[str] | None = None


def mark_due(model_version_id: int, job_id: uuid.UUID, scope: DueScope) -> int:
    """Note the records that a job takes up; returns how many.

    Raises:
        UserError: an item of the scope is not in the catalogue, or none is of a category or source.
    """
    values: dict[str, object] = {"version": model_version_id, "job_id": job_id}
    conditions = [] if scope.everything else [_CHANGED]
    if scope.item_ids is not None:
        conditions = [_NAMED]
        values["item_ids"] = require_items(scope.item_ids)
    with connect() as connection:
        if scope.categories is not None:
            conditions.append(_OF_CATEGORIES)
            values["categories"] = _categories_below(connection, scope.categories)
        if scope.sources is not None:
            conditions.append(_OF_SOURCES)
            values["sources"] = _known_sources(connection, scope.sources)
        which = " AND ".join(conditions) or "true"
        return connection.execute(text(_MARK_DUE.format(which=which)), values).rowcount


def _categories_below(connection: Connection, wanted: Sequence[str]) -> list[str]:
    """Those categories of the catalogue, as they are written there, whose path begins with one that is wanted."""
    known = [(name, category_parts(name)) for name in connection.scalars(select(ItemRow.category).distinct()) if name]
    below: list[str] = []
    for category in wanted:
        parts = category_parts(category)
        found = [name for name, path in known if parts and path[: len(parts)] == parts]
        if not found:
            raise UserError(f"No item is of the category {category[:SHOWN_CHARACTERS]!r}: give one of the catalogue.")
        below += found
    return below


def _known_sources(connection: Connection, wanted: Sequence[str]) -> list[str]:
    for source in wanted:
        query = select(select(ItemRow.item_id).where(ItemRow.source == source).exists())
        if not connection.scalar(query):
            raise UserError(f"No item comes from {source[:SHOWN_CHARACTERS]!r}: give a source of the catalogue.")
    return list(wanted)


def due_items(job_id: uuid.UUID) -> Iterator[str]:
    """Ids of the items that a job has taken up, streamed."""
    query = text("SELECT item_id FROM matching_states WHERE pending_job_id = :job_id")
    with (
        connect() as connection,
        connection.execute(query, {"job_id": job_id}, execution_options={"yield_per": ROWS_AT_ONCE}) as result,
    ):
        yield from result.scalars()


def items_without_vector(
    blocker_version_id: int, model_version_id: int, job_id: uuid.UUID
) -> Iterator[tuple[str, bool]]:
    """Items that have no vector of the blocker, or perhaps an old one, and whether the job has taken them up."""
    values = {"blocker": blocker_version_id, "version": model_version_id, "job_id": job_id}
    query, options = text(_WITHOUT_VECTOR), {"yield_per": ROWS_AT_ONCE}
    with connect() as connection, connection.execute(query, values, execution_options=options) as result:
        for row in result:
            yield row.item_id, row.due


def complete(job_id: uuid.UUID, again: Sequence[str]) -> int:
    """The items a job took up are matched, but for those to be tried ``again``; returns how many it took up."""
    with connect() as connection:
        return connection.execute(text(_COMPLETE), {"job_id": job_id, "again": list(again)}).rowcount
