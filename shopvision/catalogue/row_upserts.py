"""Catalogue rows into Postgres: what is unchanged is left alone, what changed goes in by COPY and a few statements.

Writers take turns by an advisory lock for the length of their transaction, so two imports at once neither deadlock nor
overwrite each other's half; keep transactions that call these functions short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, text

from shopvision.catalogue.row_conversion import ItemRow, PlanRow
from shopvision.database import copy_rows


@dataclass
class Counts:
    """What became of the rows of a call or a file."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class Target:
    """A table with a table of parts, and the SQL that brings both up to date from the incoming rows.

    A row is (key, content hash, further columns..., parts). The second half of the hash is that of the parts, so that a
    new price does not touch the pictures.
    """

    table: str
    lock: int  # any number of its own
    keys: str
    stored_hashes: str
    columns: tuple[tuple[str, str], ...]  # (column, Postgres type) in the order of the row's fields
    upsert: str
    part_columns: tuple[tuple[str, str], ...]  # (column, Postgres type): key, position, fields of the part
    delete_parts: str
    update_parts: str
    insert_parts: str
    delete: str


ITEMS = Target(
    table="items",
    lock=0x5C0F_0001,
    keys="SELECT item_id FROM items",
    stored_hashes="SELECT item_id, content_hash FROM items WHERE item_id = ANY(:keys)",
    columns=(
        ("item_id", "text"),
        ("content_hash", "bytea"),
        ("title", "text"),
        ("brand", "text"),
        ("category", "text"),
        ("attributes", "text"),
        ("sku_attributes", "text"),
        ("price", "float8"),
        ("currency", "text"),
        ("description", "text"),
        ("extra", "text"),
        ("source_updated_at", "timestamptz"),
        ("source", "text"),
    ),
    upsert="""
        INSERT INTO items AS stored (item_id, content_hash, title, brand, category, attributes, sku_attributes, price,
                                     currency, description, extra, source_updated_at, source)
        SELECT item_id, content_hash, title, brand, category, attributes::jsonb, sku_attributes::jsonb, price::numeric,
               currency, description, extra::jsonb, source_updated_at, source
        FROM incoming_rows
        ON CONFLICT (item_id) DO UPDATE SET
            content_hash = excluded.content_hash, title = excluded.title, brand = excluded.brand,
            category = excluded.category, attributes = excluded.attributes, sku_attributes = excluded.sku_attributes,
            price = excluded.price, currency = excluded.currency, description = excluded.description,
            extra = excluded.extra, source_updated_at = excluded.source_updated_at, source = excluded.source,
            updated_at = now()
        """,
    part_columns=(("item_id", "text"), ("position", "int4"), ("uri", "text"), ("view", "text")),
    delete_parts="""
        DELETE FROM item_images AS stored WHERE item_id = ANY(:keys) AND NOT EXISTS (
            SELECT FROM incoming_parts AS kept WHERE kept.item_id = stored.item_id AND kept.uri = stored.uri)
        """,
    update_parts="""
        UPDATE item_images AS stored SET position = incoming.position, view = incoming.view
        FROM incoming_parts AS incoming
        WHERE stored.item_id = incoming.item_id AND stored.uri = incoming.uri
          AND (stored.position, stored.view) IS DISTINCT FROM (incoming.position, incoming.view)
        """,
    insert_parts="""
        INSERT INTO item_images (item_id, position, uri, view)
        SELECT item_id, position, uri, view FROM incoming_parts AS incoming
        WHERE NOT EXISTS (
            SELECT FROM item_images AS stored WHERE stored.item_id = incoming.item_id AND stored.uri = incoming.uri)
        ORDER BY item_id, position
        """,
    delete="DELETE FROM items WHERE item_id = ANY(:keys)",
)

PLANS = Target(
    table="plans",
    lock=0x5C0F_0002,
    keys="SELECT plan_id FROM plans",
    stored_hashes="SELECT plan_id, content_hash FROM plans WHERE plan_id = ANY(:keys)",
    columns=(
        ("plan_id", "text"),
        ("content_hash", "bytea"),
        ("name", "text"),
        ("description", "text"),
        ("date", "text"),
        ("cat1", "text"),
        ("cat2", "text"),
        ("cat3", "text"),
        ("cat4", "text"),
        ("keywords", "text[]"),
        ("extra", "text"),
    ),
    upsert="""
        INSERT INTO plans AS stored (plan_id, content_hash, name, description, date, cat1, cat2, cat3, cat4,
                                     keywords, extra)
        SELECT plan_id, content_hash, name, description, date, cat1, cat2, cat3, cat4, keywords, extra::jsonb
        FROM incoming_rows
        ON CONFLICT (plan_id) DO UPDATE SET
            content_hash = excluded.content_hash, name = excluded.name, description = excluded.description,
            date = excluded.date, cat1 = excluded.cat1, cat2 = excluded.cat2, cat3 = excluded.cat3,
            cat4 = excluded.cat4, keywords = excluded.keywords, extra = excluded.extra, updated_at = now()
        """,
    part_columns=(("plan_id", "text"), ("position", "int8"), ("item_id", "text")),
    delete_parts="""
        DELETE FROM plan_items AS stored WHERE plan_id = ANY(:keys) AND NOT EXISTS (
            SELECT FROM incoming_parts AS kept WHERE kept.plan_id = stored.plan_id AND kept.item_id = stored.item_id)
        """,
    update_parts="""
        UPDATE plan_items AS stored SET position = incoming.position
        FROM incoming_parts AS incoming
        WHERE stored.plan_id = incoming.plan_id AND stored.item_id = incoming.item_id
          AND stored.position <> incoming.position
        """,
    insert_parts="""
        INSERT INTO plan_items (plan_id, position, item_id)
        SELECT plan_id, position, item_id FROM incoming_parts AS incoming
        WHERE NOT EXISTS (
            SELECT FROM plan_items AS stored
            WHERE stored.plan_id = incoming.plan_id AND stored.item_id = incoming.item_id)
        ORDER BY plan_id, position
        """,
    delete="DELETE FROM plans WHERE plan_id = ANY(:keys)",
)


def write_rows(
    connection: Connection, target: Target, rows: Sequence[ItemRow | PlanRow], *, dry_run: bool = False
) -> Counts:
    """Insert the new ones of ``rows``, update the changed ones; keys must not repeat within a call.

    With ``dry_run`` the same is counted and nothing written.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": target.lock})
    stored = _stored_hashes(connection, target, [row[0] for row in rows])
    changed = sorted((row for row in rows if stored.get(row[0]) != row.content_hash), key=itemgetter(0))
    updated = sum(row[0] in stored for row in changed)
    if changed and not dry_run:
        _incoming(connection, "incoming_rows", target.columns, (row[:-1] for row in changed))
        connection.exec_driver_sql(target.upsert)
        connection.exec_driver_sql("DROP TABLE incoming_rows")
        _write_parts(
            connection, target, [row for row in changed if stored.get(row[0], b"")[8:] != row.content_hash[8:]], stored
        )
    return Counts(inserted=len(changed) - updated, updated=updated, unchanged=len(rows) - len(changed))


def delete_rows(connection: Connection, target: Target, keys: Sequence[str]) -> int:
    """Delete by key, with everything that hangs on it; unknown keys are ignored. Returns how many were there."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": target.lock})
    return connection.execute(text(target.delete), {"keys": sorted(keys)}).rowcount


def _stored_hashes(connection: Connection, target: Target, keys: list[str]) -> dict[str, bytes]:
    return {key: bytes(stored) for key, stored in connection.execute(text(target.stored_hashes), {"keys": keys})}


def _write_parts(
    connection: Connection, target: Target, rows: Sequence[ItemRow | PlanRow], stored: Mapping[str, bytes]
) -> None:
    if not rows:
        return
    parts = (
        (row[0], position, *(part if isinstance(part, tuple) else (part,)))
        for row in rows
        for position, part in enumerate(row[-1])
    )
    _incoming(connection, "incoming_parts", target.part_columns, parts)
    known = [row[0] for row in rows if row[0] in stored]
    if known:
        connection.execute(text(target.delete_parts), {"keys": known})
        connection.exec_driver_sql(target.update_parts)
    connection.exec_driver_sql(target.insert_parts)
    connection.exec_driver_sql("DROP TABLE incoming_parts")


def _incoming(
    connection: Connection, name: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]]
) -> None:
    """A temporary table with ``rows``; its key is analysed, for the planner believes in an empty table otherwise."""
    declared = ", ".join(f"{column} {type_name}" for column, type_name in columns)
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {name} ({declared}) ON COMMIT DROP")
    copy_rows(connection, name, columns, rows)
    connection.exec_driver_sql(f"ANALYZE {name} ({columns[0][0]})")
