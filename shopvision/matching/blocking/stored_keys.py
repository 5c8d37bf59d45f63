"""The keys of every catalogue item in Postgres: made once, made anew where an item changed, and found from both sides.

An inverted index (GIN) leads from a key to its items, and a count says how many items have it. So a few new items cost
what they and their likely partners cost, however large the catalogue is. Counts are true at every commit: one writer at
a time takes in what changed, and nothing else writes here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from shopvision.database import connect, copy_rows
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.matching.blocking.keys import KEY_SCHEME, KeyedItems, Keys, blocking_category, key_digests
from shopvision.matching.stopping import ShouldStop, never, until_stopped

LOCK = 0x5C0F_0004  # of the transaction; other writers have other numbers
COMMIT_ITEMS = 50_000  # changed items of one transaction
READ_ITEMS = 2_000
KEYS_PER_QUERY = 100_000  # keys of one query

# The merge of two primary keys: both tables are walked through once, and nothing is sorted.
_CHANGED = """
    SELECT item.item_id, item.content_hash FROM items AS item
    LEFT JOIN blocking_keys AS known ON known.item_id = item.item_id
    WHERE item.item_id > :after
      AND (known.content_hash IS DISTINCT FROM item.content_hash OR known.scheme <> :scheme)
    ORDER BY item.item_id LIMIT :limit
    """
_INCOMING = """
    CREATE TEMPORARY TABLE incoming_keys (item_id text, content_hash bytea, category text, keys int8[]) ON COMMIT DROP
    """
_GONE = """
    INSERT INTO incoming_keys (item_id, keys)
    SELECT known.item_id, '{}' FROM blocking_keys AS known
    WHERE NOT EXISTS (SELECT FROM items AS item WHERE item.item_id = known.item_id)
    """
_CHANGES = """
    CREATE TEMPORARY TABLE key_changes ON COMMIT DROP AS
    SELECT key, sum(change)::int AS change FROM (
        SELECT unnest(keys) AS key, 1 AS change FROM incoming_keys
        UNION ALL
        SELECT unnest(known.keys), -1 FROM blocking_keys AS known JOIN incoming_keys USING (item_id)) AS changes
    GROUP BY key HAVING sum(change) <> 0
    """
_COUNT = """
    INSERT INTO blocking_key_counts AS counted (key, items) SELECT key, change FROM key_changes
    ON CONFLICT (key) DO UPDATE SET items = counted.items + excluded.items
    """
_FORGET_COUNTS = """
    DELETE FROM blocking_key_counts AS counted USING key_changes AS changed
    WHERE changed.change < 0 AND counted.key = changed.key AND counted.items = 0
    """
_FORGET = """
    DELETE FROM blocking_keys AS known USING incoming_keys AS gone
    WHERE gone.content_hash IS NULL AND known.item_id = gone.item_id
    """
_STORE = """
    INSERT INTO blocking_keys (item_id, content_hash, scheme, category, keys)
    SELECT item_id, content_hash, :scheme, category, keys FROM incoming_keys WHERE content_hash IS NOT NULL
    ON CONFLICT (item_id) DO UPDATE SET content_hash = excluded.content_hash, scheme = excluded.scheme,
        category = excluded.category, keys = excluded.keys
    """
_READ = "SELECT item_id, category, keys FROM blocking_keys {where} ORDER BY item_id"
_INCOMING_COLUMNS = (("item_id", "text"), ("content_hash", "bytea"), ("category", "text"), ("keys", "int8[]"))


def bring_up_to_date(should_stop: ShouldStop = never) -> None:
    """Take in what changed in the catalogue since the last time.

    Raises:
        StopAskedError: ``should_stop`` said yes; whole transactions are in, the next run does the rest.
    """
    after: str | None = ""
    while after is not None:
        with connect() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            after = _take_in(connection, after, should_stop)


def _take_in(connection: Connection, after: str, should_stop: ShouldStop) -> str | None:
    """Key the next changed items behind ``after``; returns the last one, or None where none are left."""
    values = {"after": after, "scheme": KEY_SCHEME, "limit": COMMIT_ITEMS}
    changed = connection.execute(text(_CHANGED), values).all()
    connection.exec_driver_sql(_INCOMING)
    copy_rows(connection, "incoming_keys", _INCOMING_COLUMNS, _keyed(changed, should_stop))
    if len(changed) < COMMIT_ITEMS:
        connection.exec_driver_sql(_GONE)
    connection.exec_driver_sql("ANALYZE incoming_keys")
    for statement in (_CHANGES, _COUNT, _FORGET_COUNTS, _FORGET):
        connection.exec_driver_sql(statement)
    connection.execute(text(_STORE), {"scheme": KEY_SCHEME})
    return changed[-1].item_id if len(changed) == COMMIT_ITEMS else None


def _keyed(changed: Sequence[Any], should_stop: ShouldStop) -> Iterator[tuple[str, bytes, str, list[int]]]:
    """Rows of ``incoming_keys``. Items are read after their hashes: one that changes between is taken in again."""
    with connect() as connection:
        for start in until_stopped(range(0, len(changed), READ_ITEMS), should_stop):
            hashes = {row.item_id: bytes(row.content_hash) for row in changed[start : start + READ_ITEMS]}
            for item_id, item in items_from_catalogue(connection, list(hashes)).items():
                keys = key_digests(item).view(np.int64).tolist()
                yield item_id, hashes[item_id], blocking_category(item), keys


def count_items(connection: Connection) -> int:
    """How many items have keys."""
    return int(connection.scalar(text("SELECT count(*) FROM blocking_keys")) or 0)


def read_all(connection: Connection) -> Iterator[KeyedItems]:
    """Every item, in the catalogue's order."""
    options = {"yield_per": READ_ITEMS}
    with connection.execute(text(_READ.format(where="")), execution_options=options) as result:
        for rows in result.partitions():
            yield _keyed_items(rows)


def read_some(connection: Connection, item_ids: Sequence[str], keys: Keys | None = None) -> KeyedItems:
    """These items, and those that have one of ``keys``; in the catalogue's order."""
    where, values = "WHERE item_id = ANY(CAST(:ids AS text[]))", {"ids": list(item_ids)}
    if keys is not None and len(keys):
        where += " OR keys && CAST(:keys AS int8[])"
        values["keys"] = keys.view(np.int64).tolist()
    return _keyed_items(connection.execute(text(_READ.format(where=where)), values).all())


def count_keys(connection: Connection, keys: Keys) -> NDArray[np.int64]:
    """How many items have each of these distinct keys."""
    counted = np.zeros(len(keys), np.int64)
    for start in range(0, len(keys), KEYS_PER_QUERY):
        part = keys[start : start + KEYS_PER_QUERY]
        # In the order they were asked for, so that no key comes back.
        query = text("""
            SELECT coalesce(counted.items, 0) FROM unnest(CAST(:keys AS int8[])) WITH ORDINALITY AS asked (key, place)
            LEFT JOIN blocking_key_counts AS counted ON counted.key = asked.key ORDER BY asked.place
            """)
        counts = connection.scalars(query, {"keys": part.view(np.int64).tolist()})
        counted[start : start + len(part)] = np.fromiter(counts, np.int64, len(part))
    return counted


def _keyed_items(rows: Sequence[Any]) -> KeyedItems:
    counts = np.fromiter((len(row.keys) for row in rows), np.int64, len(rows))
    keys = np.fromiter((key for row in rows for key in row.keys), np.int64, int(counts.sum())).view(np.uint64)
    return KeyedItems([row.item_id for row in rows], [row.category for row in rows], counts, keys)
