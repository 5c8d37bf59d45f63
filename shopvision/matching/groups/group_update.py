"""Groups in Postgres brought up to date with pair scores and reviews: everything is computed, differences are written.

Items become numbers inside the database, so that a million pairs are a few arrays here and no id leaves Postgres. One
writer at a time, in one transaction; a run that finds nothing new writes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from shopvision.database import connect, copy_rows
from shopvision.matching.groups.components import (
    DIFFERENT,
    SAME_SOURCE,
    TOO_LARGE,
    DifferentEdges,
    Grouping,
    Numbers,
    SameEdges,
    assign_ids,
    connected_items,
    group_items,
)
from shopvision.matching.groups.keep_update import choose_kept
from shopvision.matching.options import GroupOptions, KeepOptions

# NOT EXISTS everywhere, never NOT IN: that compares each row with each as soon as the list outgrows work_mem.
LOCK = 0x5C0F_0003  # of the transaction; other writers have other numbers

# What people decided stands above the model, also on pairs that it never scored; but only while both items are there.
_SAME = """
CREATE TEMPORARY TABLE grouping_same ON COMMIT DROP AS
SELECT left_item_id, right_item_id, probability, false AS reviewed FROM pair_scores s
WHERE model_version_id = :model_version_id AND verdict = 'same' AND NOT EXISTS (
    SELECT FROM pair_reviews r WHERE r.left_item_id = s.left_item_id AND r.right_item_id = s.right_item_id)
UNION ALL
SELECT left_item_id, right_item_id, coalesce(s.probability, 1), true FROM pair_reviews r
LEFT JOIN (SELECT * FROM pair_scores WHERE model_version_id = :model_version_id) s USING (left_item_id, right_item_id)
WHERE r.verdict = 'same' AND EXISTS (SELECT FROM items i WHERE i.item_id = r.left_item_id)
  AND EXISTS (SELECT FROM items i WHERE i.item_id = r.right_item_id)
"""
_ITEMS = """
CREATE TEMPORARY TABLE grouping_items ON COMMIT DROP AS
SELECT item_id, (row_number() OVER (ORDER BY item_id COLLATE "C") - 1)::int AS number
FROM (SELECT left_item_id AS item_id FROM grouping_same UNION SELECT right_item_id FROM grouping_same) mentioned
"""
_FORMER_GROUPS = """
CREATE TEMPORARY TABLE grouping_former ON COMMIT DROP AS
SELECT group_id, (row_number() OVER (ORDER BY created_at, group_id) - 1)::int AS number FROM item_groups
"""
_READ_SAME = """
SELECT l.number, r.number, probability, reviewed FROM grouping_same
JOIN grouping_items l ON l.item_id = left_item_id JOIN grouping_items r ON r.item_id = right_item_id
"""
# Nearly all pairs are different for sure; only those inside of a component say something.
_CONNECTED = """
CREATE TEMPORARY TABLE grouping_connected ON COMMIT DROP AS
SELECT item_id, number, component FROM grouping_components JOIN grouping_items USING (number)
"""
_READ_DIFFERENT = """
SELECT l.number, r.number, false FROM pair_scores s
JOIN grouping_connected l ON l.item_id = s.left_item_id
JOIN grouping_connected r ON r.item_id = s.right_item_id AND r.component = l.component
WHERE s.model_version_id = %(model_version_id)s AND s.verdict = 'different' AND s.probability <= %(different_below)s
  AND NOT EXISTS (
    SELECT FROM pair_reviews p WHERE p.left_item_id = s.left_item_id AND p.right_item_id = s.right_item_id)
UNION ALL
SELECT l.number, r.number, true FROM pair_reviews p
JOIN grouping_connected l ON l.item_id = p.left_item_id
JOIN grouping_connected r ON r.item_id = p.right_item_id AND r.component = l.component
WHERE p.verdict = 'different'
"""
_READ_SOURCES = """
SELECT g.number, (dense_rank() OVER (ORDER BY i.source) - 1)::int FROM grouping_items g JOIN items i USING (item_id)
WHERE i.source IS NOT NULL
"""
_READ_FORMER = """
SELECT i.number, f.number FROM item_group_members JOIN grouping_items i USING (item_id)
JOIN grouping_former f USING (group_id)
"""
_NEW_GROUPS = """
CREATE TEMPORARY TABLE grouping_groups ON COMMIT DROP AS
SELECT place, coalesce(group_id, gen_random_uuid()) AS group_id, group_id IS NULL AS is_new
FROM grouping_places LEFT JOIN grouping_former f ON f.number = former
"""
_MEMBERS = """
CREATE TEMPORARY TABLE grouping_members ON COMMIT DROP AS
SELECT item_id, group_id FROM grouping_result JOIN grouping_items USING (number) JOIN grouping_groups USING (place)
"""
_CONFLICTS = """
CREATE TEMPORARY TABLE grouping_conflicts ON COMMIT DROP AS
SELECT l.item_id AS left_item_id, r.item_id AS right_item_id, reason, probability FROM grouping_refused
JOIN grouping_items l ON l.number = left_number JOIN grouping_items r ON r.number = right_number
"""
_INCOMING = """
CREATE TEMPORARY TABLE grouping_incoming ON COMMIT DROP AS
SELECT item_id FROM items WHERE item_id IN (
    SELECT n.item_id FROM grouping_members n LEFT JOIN item_group_members m USING (item_id, group_id)
    WHERE m.item_id IS NULL
    UNION SELECT unnest(ARRAY[left_item_id, right_item_id]) FROM grouping_conflicts)
ORDER BY item_id FOR KEY SHARE
"""
_DROP_DELETED_MEMBERS = """
DELETE FROM grouping_members n WHERE NOT EXISTS (SELECT FROM grouping_incoming i WHERE i.item_id = n.item_id)
AND NOT EXISTS (SELECT FROM item_group_members m WHERE m.item_id = n.item_id AND m.group_id = n.group_id)
"""
_DROP_DELETED_LEFT = """
DELETE FROM grouping_conflicts c WHERE NOT EXISTS (
    SELECT FROM grouping_incoming i WHERE i.item_id = c.left_item_id)
"""
_DROP_DELETED_RIGHT = """
DELETE FROM grouping_conflicts c WHERE NOT EXISTS (
    SELECT FROM grouping_incoming i WHERE i.item_id = c.right_item_id)
"""
_SIZES = """
CREATE TEMPORARY TABLE grouping_sizes ON COMMIT DROP AS
SELECT group_id, is_new, count(*)::int AS size FROM grouping_groups JOIN grouping_members USING (group_id)
GROUP BY group_id, is_new
"""
_CHANGED = """
CREATE TEMPORARY TABLE grouping_changed ON COMMIT DROP AS
SELECT DISTINCT coalesce(n.group_id, m.group_id) AS group_id
FROM grouping_members n FULL JOIN item_group_members m ON m.item_id = n.item_id AND m.group_id = n.group_id
WHERE n.item_id IS NULL OR m.item_id IS NULL
UNION SELECT group_id FROM grouping_sizes JOIN item_groups g USING (group_id) WHERE g.size <> grouping_sizes.size
"""
_INSERT_GROUPS = """
INSERT INTO item_groups (group_id, model_version_id, size, job_id)
SELECT group_id, :model_version_id, size, :job_id FROM grouping_sizes WHERE is_new
"""
_UPDATE_GROUPS = """
UPDATE item_groups g SET size = s.size, job_id = :job_id, model_version_id = :model_version_id, updated_at = now()
FROM grouping_sizes s JOIN grouping_changed USING (group_id) WHERE g.group_id = s.group_id AND NOT s.is_new
"""
_UPDATE_MODEL = """
UPDATE item_groups SET model_version_id = :model_version_id WHERE model_version_id <> :model_version_id
"""
_DELETE_MEMBERS = """
DELETE FROM item_group_members m WHERE NOT EXISTS (SELECT FROM grouping_members n WHERE n.item_id = m.item_id)
"""
_UPSERT_MEMBERS = """
INSERT INTO item_group_members AS m (item_id, group_id) SELECT item_id, group_id FROM grouping_members ORDER BY item_id
ON CONFLICT (item_id) DO UPDATE
SET group_id = excluded.group_id, joined_at = now(), is_kept = false, lends = '[]'
WHERE m.group_id <> excluded.group_id
"""
_DELETE_GROUPS = """
DELETE FROM item_groups g WHERE NOT EXISTS (SELECT FROM grouping_sizes s WHERE s.group_id = g.group_id)
"""
_DELETE_CONFLICTS = """
DELETE FROM group_conflicts c WHERE NOT EXISTS (
    SELECT FROM grouping_conflicts n
    WHERE (n.left_item_id, n.right_item_id) = (c.left_item_id, c.right_item_id))
"""
_UPSERT_CONFLICTS = """
INSERT INTO group_conflicts AS c (left_item_id, right_item_id, reason, probability, job_id)
SELECT left_item_id, right_item_id, reason, probability, :job_id FROM grouping_conflicts
ON CONFLICT (left_item_id, right_item_id) DO UPDATE
SET reason = excluded.reason, probability = excluded.probability, job_id = excluded.job_id
WHERE (c.reason, c.probability) IS DISTINCT FROM (excluded.reason, excluded.probability)
"""
_COUNTS = """
SELECT count(*) AS groups, coalesce(sum(size), 0)::bigint AS grouped_items, count(*) FILTER (WHERE is_new) AS new,
       count(*) FILTER (WHERE NOT is_new AND c.group_id IS NOT NULL) AS changed,
       (SELECT count(*) FROM grouping_conflicts) AS conflicts
FROM grouping_sizes LEFT JOIN grouping_changed c USING (group_id)
"""

_EDGE = np.dtype([("left", "i4"), ("right", "i4"), ("probability", "f4"), ("reviewed", "?")])
_DIFFERENCE = np.dtype([("left", "i4"), ("right", "i4"), ("reviewed", "?")])
_MEMBER = np.dtype([("item", "i4"), ("former", "i4")])
_SOURCE = np.dtype([("item", "i4"), ("source", "i4")])
_REASONS = {DIFFERENT: "different", SAME_SOURCE: "source", TOO_LARGE: "size"}


def update_groups(
    model_version_id: int, job_id: uuid.UUID, options: GroupOptions | None = None, keep: KeepOptions | None = None
) -> dict[str, int]:
    """Group the catalogue's items as this model version's scores and people's reviews say; safe to repeat.

    Items of no equal pair leave their groups. A group keeps its id while most of its items stay, also from one model
    version to the next.

    Args:
        model_version_id: whose scores count.
        job_id: noted where a group or conflict changes.
        options: the defaults are those of ``GroupOptions``.
        keep: which item of a group to keep; the defaults are those of ``KeepOptions``.

    Returns:
        ``groups`` and ``grouped_items`` there are now, ``new``, ``changed`` and ``dissolved`` groups of this run,
        ``conflicts`` there are now, and of how many groups the item to ``keep`` was chosen in this run.
    """
    options = options or GroupOptions()
    with connect() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        connection.execute(text(_SAME), {"model_version_id": model_version_id})
        for statement in (_ITEMS, _FORMER_GROUPS):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("ANALYZE grouping_same, grouping_items, grouping_former")
        _compute(connection, model_version_id, options)
        counts = _write(connection, {"model_version_id": model_version_id, "job_id": job_id})
        return {**counts, "keep": choose_kept(connection, keep or KeepOptions())}


def _compute(connection: Connection, model_version_id: int, options: GroupOptions) -> None:
    """Fill ``grouping_places``, ``grouping_result`` and ``grouping_refused``."""
    items = int(connection.scalar(text("SELECT count(*) FROM grouping_items")) or 0)
    same = _same(connection)
    labels = connected_items(items, same)
    values = {"model_version_id": model_version_id, "different_below": options.different_below}
    sources = _sources(connection, items) if options.one_per_source else None
    grouping = group_items(labels, same, _different(connection, labels, values), options.max_size, sources)
    former = np.full(items, -1, np.int32)
    rows = _read(connection, _READ_FORMER, _MEMBER)
    former[rows["item"]] = rows["former"]
    former_ids = assign_ids(grouping.groups, former)
    members = np.flatnonzero(grouping.groups >= 0)
    _create(connection, "grouping_places", {"place": "int4", "former": "int4"}, enumerate(former_ids.tolist()))
    result = zip(members.tolist(), grouping.groups[members].tolist(), strict=True)
    _create(connection, "grouping_result", {"number": "int4", "place": "int4"}, result)
    columns = {"left_number": "int4", "right_number": "int4", "reason": "text", "probability": "float4"}
    _create(connection, "grouping_refused", columns, _refused(same, grouping))
    connection.exec_driver_sql("ANALYZE grouping_places, grouping_result")


def _refused(same: SameEdges, grouping: Grouping) -> Any:
    edges = same.select(grouping.refused)
    reasons = map(_REASONS.__getitem__, grouping.reasons.tolist())
    return zip(edges.left.tolist(), edges.right.tolist(), reasons, edges.probability.tolist(), strict=True)


def _same(connection: Connection) -> SameEdges:
    rows = _read(connection, _READ_SAME, _EDGE)
    return SameEdges(rows["left"].copy(), rows["right"].copy(), rows["probability"].copy(), rows["reviewed"].copy())


def _sources(connection: Connection, items: int) -> Numbers:
    """(items,) the number of each item's source, -1 for none."""
    sources = np.full(items, -1, np.int32)
    rows = _read(connection, _READ_SOURCES, _SOURCE)
    sources[rows["item"]] = rows["source"]
    return sources


def _different(connection: Connection, labels: Numbers, values: Mapping[str, object]) -> DifferentEdges:
    """Pairs of one component that must stay apart; one of two items has none, or it would be no component."""
    members = np.flatnonzero(np.bincount(labels, minlength=1)[labels] > 2)
    components = zip(members.tolist(), labels[members].tolist(), strict=True)
    _create(connection, "grouping_components", {"number": "int4", "component": "int4"}, components)
    connection.exec_driver_sql(_CONNECTED)
    connection.exec_driver_sql("ANALYZE grouping_connected")
    rows = _read(connection, _READ_DIFFERENT, _DIFFERENCE, values)
    return DifferentEdges(rows["left"].copy(), rows["right"].copy(), rows["reviewed"].copy())


def _read(
    connection: Connection, statement: str, dtype: np.dtype[np.void], values: Mapping[str, object] | None = None
) -> NDArray[np.void]:
    """The rows of a query as a structured array, streamed."""
    driver: Any = connection.connection.driver_connection
    with driver.cursor("grouping", binary=True) as cursor:
        cursor.itersize = 20_000
        cursor.execute(statement, values)
        return np.fromiter(cursor, dtype)


def _create(connection: Connection, table: str, columns: dict[str, str], rows: Any) -> None:
    definition = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {table} ({definition}) ON COMMIT DROP")
    copy_rows(connection, table, list(columns.items()), rows)


def _write(connection: Connection, values: dict[str, object]) -> dict[str, int]:
    """Bring the tables from what is there to what was computed."""
    # An item may leave the catalogue meanwhile; those that come into a table are held until the commit.
    for statement in (
        _NEW_GROUPS, _MEMBERS, _CONFLICTS, _INCOMING, _DROP_DELETED_MEMBERS, _DROP_DELETED_LEFT, _DROP_DELETED_RIGHT,
        _SIZES, _CHANGED,
    ):  # fmt: skip
        connection.exec_driver_sql(statement)
    connection.execute(text(_INSERT_GROUPS), values)
    connection.execute(text(_UPDATE_GROUPS), values)
    connection.execute(text(_UPDATE_MODEL), values)
    connection.exec_driver_sql(_DELETE_MEMBERS)
    connection.exec_driver_sql(_UPSERT_MEMBERS)
    dissolved = connection.exec_driver_sql(_DELETE_GROUPS).rowcount
    connection.exec_driver_sql(_DELETE_CONFLICTS)
    connection.execute(text(_UPSERT_CONFLICTS), values)
    counts = connection.execute(text(_COUNTS)).one()._asdict()
    return {**counts, "dissolved": dissolved}
