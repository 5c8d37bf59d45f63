"""What the matching job reads and writes in Postgres: due items, kept vectors, and the scores of pairs.

An item is due where its record differs from the one that was last matched to the end under the model version. A job
notes the record it takes up (``mark_due``), and says at its end that this one is matched (``complete``). What was read
of an item counts only while its record is still the same: scores and vectors of an item that changed meanwhile are
left out, because the item is due again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Text, any_, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from shopvision.catalogue.known_ids import require_items
from shopvision.catalogue.tables import Item as ItemRow
from shopvision.database import connect, copy_upsert
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item import Item
from shopvision.matching.tables import ItemVector, PairScore

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

_SCORED_BEFORE = """
    SELECT scored.left_item_id, scored.right_item_id, scored.input_hash
    FROM unnest(CAST(:lefts AS text[]), CAST(:rights AS text[])) AS asked (left_item_id, right_item_id)
    JOIN pair_scores AS scored USING (left_item_id, right_item_id)
    WHERE scored.model_version_id = :version
    """

_VECTOR_COLUMNS = (
    ("model_version_id", "int8"), ("item_id", "text"), ("input_hash", "bytea"), ("vector", "bytea"),
    ("computed_at", "timestamptz"),
)  # fmt: skip
_SCORE_COLUMNS = (
    ("left_item_id", "text"), ("right_item_id", "text"), ("model_version_id", "int8"), ("probability", "float4"),
    ("verdict", "text"), ("input_hash", "bytea"), ("job_id", "uuid"), ("scored_at", "timestamptz"),
)  # fmt: skip

PairIds = tuple[str, str]
ROWS_AT_ONCE = 5_000


@dataclass(frozen=True)
class CatalogueItems:
    """Items as they were at one moment.

    Attributes:
        items: by id; ids that are not in the catalogue are missing.
        records: the record's hash of each, by which a later change is noticed.
        hashes: the hash of each item's content, as a model may see it.
    """

    items: Mapping[str, Item]
    records: Mapping[str, bytes]
    hashes: Mapping[str, bytes]
    read_at: datetime


@dataclass(frozen=True, slots=True)
class KeptVector:
    """The vector of an item under one model version: little-endian float16, and the hash of what it was made from."""

    input_hash: bytes
    vector: bytes


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One pair's score; ids in code point order."""

    ids: PairIds
    probability: float
    verdict: str
    input_hash: bytes


def mark_due(model_version_id: int, job_id: uuid.UUID, *, everything: bool, item_ids: Sequence[str] | None) -> int:
    """Note the records that a job takes up; returns how many.

    Args:
        everything: all items, changed or not; else those that changed.
        item_ids: exactly these instead.

    Raises:
        UserError: one of ``item_ids`` is not in the catalogue.
    """
    values: dict[str, object] = {"version": model_version_id, "job_id": job_id}
    which = "true" if everything else _CHANGED
    if item_ids is not None:
        which = _NAMED
        values["item_ids"] = require_items(item_ids)
    with connect() as connection:
        return connection.execute(text(_MARK_DUE.format(which=which)), values).rowcount


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


def read_items(item_ids: Iterable[str]) -> CatalogueItems:
    """The items that still exist, read at once."""
    wanted = sorted(set(item_ids))
    with connect() as connection:
        read_at = connection.scalars(select(func.now())).one()
        # The records first: an item that changes between the two statements counts as changed meanwhile.
        records = _records(connection, wanted)
        items = items_from_catalogue(connection, wanted)
    hashes = {item_id: item.content_hash() for item_id, item in items.items()}
    return CatalogueItems(
        {item_id: items[item_id] for item_id in items if item_id in records}, records, hashes, read_at
    )


def kept_vectors(model_version_id: int, item_ids: Sequence[str], since: datetime | None) -> dict[str, KeptVector]:
    """Vectors by item; with ``since`` only those made from then on."""
    query = select(ItemVector.item_id, ItemVector.input_hash, ItemVector.vector).where(
        ItemVector.model_version_id == model_version_id,
        ItemVector.item_id == any_(bindparam("ids", list(item_ids), ARRAY(Text))),
    )
    if since is not None:
        query = query.where(ItemVector.computed_at >= since)
    with connect() as connection:
        return {row.item_id: KeptVector(bytes(row.input_hash), bytes(row.vector)) for row in connection.execute(query)}


def scored_before(model_version_id: int, pairs: Sequence[PairIds]) -> dict[PairIds, bytes]:
    """Input hashes of those of some pairs that have a score."""
    values = {
        "version": model_version_id,
        "lefts": [left for left, _ in pairs],
        "rights": [right for _, right in pairs],
    }
    with connect() as connection:
        rows = connection.execute(text(_SCORED_BEFORE), values)
        return {(row.left_item_id, row.right_item_id): bytes(row.input_hash) for row in rows}


def write_vectors(
    connection: Connection, model_version_id: int, read: CatalogueItems, vectors: Mapping[str, bytes]
) -> int:
    """Upsert vectors of items in the caller's transaction; returns how many were written."""
    live = _unchanged(connection, read, vectors)
    rows = ((model_version_id, item_id, read.hashes[item_id], vectors[item_id], read.read_at) for item_id in live)
    return copy_upsert(connection, ItemVector.__table__, _VECTOR_COLUMNS, rows, key=("model_version_id", "item_id"))  # type: ignore[arg-type] # declared as FromClause


def confirm_vectors(
    connection: Connection, model_version_id: int, read: CatalogueItems, item_ids: Sequence[str]
) -> None:
    """Vectors that were found to be those of what the items are now need not be looked at again."""
    statement = text(
        "UPDATE item_vectors SET computed_at = :read_at FROM unnest(CAST(:ids AS text[])) AS seen (item_id)"
        " WHERE item_vectors.model_version_id = :version AND item_vectors.item_id = seen.item_id"
    )
    live = _unchanged(connection, read, item_ids)
    connection.execute(statement, {"version": model_version_id, "ids": live, "read_at": read.read_at})


def write_scores(
    connection: Connection, model_version_id: int, job_id: uuid.UUID, read: CatalogueItems, scores: Sequence[ScoreRow]
) -> list[ScoreRow]:
    """Upsert scores in the caller's transaction; returns those that were written.

    Pairs of items that changed or were deleted since they were read are left out.
    """
    live = set(_unchanged(connection, read, {item_id for score in scores for item_id in score.ids}))
    # In one order, so that two jobs that write the same pairs never wait for each other.
    written = sorted((score for score in scores if live.issuperset(score.ids)), key=lambda score: score.ids)
    rows = (
        (*score.ids, model_version_id, score.probability, score.verdict, score.input_hash, job_id, read.read_at)
        for score in written
    )
    key = ("left_item_id", "right_item_id", "model_version_id")
    copy_upsert(connection, PairScore.__table__, _SCORE_COLUMNS, rows, key=key)  # type: ignore[arg-type] # as above
    return written


def _among(item_ids: Sequence[str]) -> ColumnElement[bool]:
    return ItemRow.item_id == any_(bindparam("ids", list(item_ids), ARRAY(Text)))


def _records(connection: Connection, item_ids: Sequence[str]) -> dict[str, bytes]:
    query = select(ItemRow.item_id, ItemRow.content_hash).where(_among(item_ids))
    return {row.item_id: bytes(row.content_hash) for row in connection.execute(query)}


def _unchanged(connection: Connection, read: CatalogueItems, item_ids: Iterable[str]) -> list[str]:
    """Those of some items whose record is as it was read. They stay until the commit; in order, against deadlocks."""
    query = select(ItemRow.item_id, ItemRow.content_hash).where(_among(list(item_ids))).order_by(ItemRow.item_id)
    rows = connection.execute(query.with_for_update(read=True, key_share=True))
    return [row.item_id for row in rows if bytes(row.content_hash) == read.records.get(row.item_id)]
