"""What the matching job reads and writes in Postgres: items, kept vectors, and the scores of pairs.

What was read of an item counts only while its record is still the same: scores and vectors of an item that changed
meanwhile are left out, because the item is due again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Text, any_, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY

from shopvision.catalogue.tables import Item as ItemRow
from shopvision.database import connect, copy_upsert
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item import Item
from shopvision.matching.item_regions import with_regions
from shopvision.matching.tables import ItemVector, PairScore

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
    ("verdict", "text"), ("exact", "text[]"), ("input_hash", "bytea"), ("job_id", "uuid"), ("scored_at", "timestamptz"),
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
    """One pair's score; ids in code point order, ``exact`` from ``exact_matches``."""

    ids: PairIds
    probability: float
    verdict: str
    input_hash: bytes
    exact: tuple[str, ...] = ()


def read_items(item_ids: Iterable[str]) -> CatalogueItems:
    """The items that still exist, read at once."""
    wanted = sorted(set(item_ids))
    with connect() as connection:
        read_at = connection.scalars(select(func.now())).one()
        # The records first: an item that changes between the two statements counts as changed meanwhile.
        records = _records(connection, wanted)
        items = with_regions(connection, items_from_catalogue(connection, wanted))
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
        (
            *(*score.ids, model_version_id, score.probability, score.verdict),
            *([*score.exact], score.input_hash, job_id, read.read_at),
        )
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
