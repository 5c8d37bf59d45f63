"""Which item of each group to keep, written where a group, one of its items or the rules changed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from shopvision.database import copy_rows
from shopvision.items.text_normalisation import normalise
from shopvision.matching.groups.keeping import TEXT_FIELDS, Kept, Member, Picture, choose
from shopvision.matching.options import KeepOptions

GROUPS_AT_ONCE = 2_000

# As the active encoder of the catalogue saw pictures; where it looks at garments, as its detector did.
_SEEN = """
    SELECT image.item_id, image.position, image.uri, coalesce(seen.image_sha256, whole.image_sha256) AS sha256,
           coalesce(seen.pixels, whole.pixels) AS pixels
    FROM item_images AS image
    LEFT JOIN embeddings AS seen ON seen.image_id = image.image_id AND seen.region = 0 AND seen.model_version_id = (
        SELECT model_version_id FROM model_roles WHERE role = 'catalogue_encoder')
    LEFT JOIN LATERAL (
        SELECT image_sha256, ((box[3] - box[1]) * (box[4] - box[2]))::int AS pixels FROM picture_regions AS region
        WHERE region.image_id = image.image_id AND region.region = 0
        ORDER BY region.found_at DESC, region.detector_version_id DESC LIMIT 1) AS whole ON true
    WHERE image.item_id IN (SELECT item_id FROM item_group_members)
    """
# All that the choice depends on: rules, members, their records, and what their pictures were seen to be.
_STALE = f"""
    CREATE TEMPORARY TABLE keeping_stale ON COMMIT DROP AS
    WITH pictures AS (
        SELECT item_id, string_agg(concat_ws(' ', encode(sha256, 'hex'), pixels), ' ' ORDER BY position, uri) AS seen
        FROM ({_SEEN}) AS seen GROUP BY item_id),
    digests AS (
        SELECT member.group_id, sha256(convert_to(:options || string_agg(
            concat_ws(' ', member.item_id, encode(item.content_hash, 'hex'), pictures.seen), E'\\n'
            ORDER BY member.item_id), 'UTF8')) AS digest
        FROM item_group_members AS member JOIN items AS item USING (item_id) LEFT JOIN pictures USING (item_id)
        GROUP BY member.group_id HAVING count(*) > 1)
    SELECT group_id, digest, (row_number() OVER (ORDER BY group_id) - 1) / {GROUPS_AT_ONCE} AS batch
    FROM digests JOIN item_groups AS stored USING (group_id) WHERE stored.kept_digest IS DISTINCT FROM digest
    """  # noqa: S608 - of constants
_MEMBERS = """
    SELECT member.group_id, item.item_id, item.title, item.brand, item.category, item.description,
           item.price IS NOT NULL AS has_price, item.attributes, item.sku_attributes, item.source, item.created_at,
           item.extra ->> :sold AS sold
    FROM keeping_stale AS stale JOIN item_group_members AS member USING (group_id) JOIN items AS item USING (item_id)
    WHERE stale.batch = :batch ORDER BY member.group_id, item.item_id COLLATE "C"
    """
_PICTURES = f"""
    SELECT * FROM ({_SEEN}) AS seen WHERE item_id = ANY(CAST(:ids AS text[])) ORDER BY item_id, position
    """  # noqa: S608 - of constants
_INCOMING = """
    CREATE TEMPORARY TABLE keeping_incoming (item_id text, is_kept bool, lends text, rule text) ON COMMIT DROP
    """
_COLUMNS = (("item_id", "text"), ("is_kept", "bool"), ("lends", "text"), ("rule", "text"))
_WRITE_MEMBERS = """
    UPDATE item_group_members AS member SET is_kept = incoming.is_kept, lends = incoming.lends::jsonb
    FROM keeping_incoming AS incoming
    WHERE member.item_id = incoming.item_id
      AND (member.is_kept, member.lends) IS DISTINCT FROM (incoming.is_kept, incoming.lends::jsonb)
    """
_WRITE_GROUPS = """
    UPDATE item_groups AS stored SET kept_by = incoming.rule, kept_digest = stale.digest
    FROM keeping_stale AS stale JOIN item_group_members AS member USING (group_id)
    JOIN keeping_incoming AS incoming ON incoming.item_id = member.item_id AND incoming.is_kept
    WHERE stored.group_id = stale.group_id
    """


def choose_kept(connection: Connection, options: KeepOptions) -> int:
    """Bring the choice up to date with groups, items and rules; returns for how many groups it was made anew.

    Args:
        connection: whose transaction holds the groups' lock.
        options: the rules.
    """
    connection.execute(text(_STALE), {"options": repr(options)})
    batches: int = connection.scalar(text("SELECT coalesce(max(batch) + 1, 0) FROM keeping_stale")) or 0
    connection.exec_driver_sql(_INCOMING)
    connection.exec_driver_sql("ANALYZE keeping_stale")
    for batch in range(batches):
        copy_rows(connection, "keeping_incoming", _COLUMNS, _rows(_members(connection, batch, options), options))
    connection.exec_driver_sql("ANALYZE keeping_incoming")
    connection.exec_driver_sql(_WRITE_MEMBERS)
    return connection.exec_driver_sql(_WRITE_GROUPS).rowcount


def _rows(groups: Sequence[Sequence[Member]], options: KeepOptions) -> Iterator[tuple[str, bool, str, str]]:
    for members in groups:
        kept: Kept = choose(members, options)
        for one in members:
            lends = json.dumps(kept.lends.get(one.item_id, []), ensure_ascii=False)
            yield one.item_id, one.item_id == kept.item_id, lends, kept.rule


def _members(connection: Connection, batch: int, options: KeepOptions) -> list[list[Member]]:
    """The items of each of some groups."""
    rows = connection.execute(text(_MEMBERS), {"batch": batch, "sold": options.sold_key}).all()
    pictures: dict[str, list[Picture]] = {}
    for row in connection.execute(text(_PICTURES), {"ids": [row.item_id for row in rows]}):
        sha256 = None if row.sha256 is None else bytes(row.sha256)
        pictures.setdefault(row.item_id, []).append(Picture(row.uri, sha256, row.pixels))
    return [[_member(row, pictures) for row in group] for _, group in groupby(rows, key=_group_of)]


def _group_of(row: Any) -> UUID:
    group: UUID = row.group_id
    return group


def _member(row: Any, pictures: dict[str, list[Picture]]) -> Member:
    return Member(
        row.item_id,
        row.created_at,
        texts={name: text for name in TEXT_FIELDS if normalise(text := getattr(row, name) or "")},
        attributes=[(one["key"], one["value"]) for one in row.attributes],
        variant_keys=[one["key"] for one in row.sku_attributes],
        has_price=row.has_price,
        pictures=pictures.get(row.item_id, ()),
        source=row.source,
        sold=_number(row.sold),
    )


def _number(value: str | None) -> float | None:
    """How often that is; None of what is no finite number, such as the ``nan`` that tables write of a gap."""
    try:
        number = math.nan if value is None else float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
