"""Pair scores and item vectors of model versions that serve nothing."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from sqlalchemy import Connection, text

from shopvision.database.batches import delete_in_batches
from shopvision.matching.tables import ItemVector
from shopvision.models.superseded import delete_old_rows, superseded_versions
from shopvision.settings import get_settings

BATCH_ROWS = 10_000

# With its scores a model version forgets that it has matched these items: should it ever serve again, they are due.
OLD_SCORES = """
    WITH old AS (
        DELETE FROM pair_scores WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM pair_scores
            WHERE model_version_id = :version AND scored_at < now() - :keep
            ORDER BY scored_at LIMIT :batch))
        RETURNING model_version_id, left_item_id, right_item_id),
    forgotten AS (
        DELETE FROM matching_states AS state USING old
        WHERE state.model_version_id = old.model_version_id
          AND state.item_id IN (old.left_item_id, old.right_item_id))
    SELECT count(*) FROM old
    """


def prune() -> dict[str, int]:
    """Delete what is older than ``keep_superseded_days``."""
    keep = timedelta(days=get_settings().keep_superseded_days)
    deleted = {"pair_scores": 0, "item_vectors": 0}
    for version in superseded_versions():
        deleted["item_vectors"] += delete_old_rows(
            version, ItemVector.item_id, ItemVector.computed_at, at_once=BATCH_ROWS
        )
        deleted["pair_scores"] += delete_in_batches(partial(_delete_old_scores, version=version, keep=keep))
    return deleted


def _delete_old_scores(connection: Connection, version: int, keep: timedelta) -> int:
    values = {"version": version, "keep": keep, "batch": BATCH_ROWS}
    return connection.scalar(text(OLD_SCORES), values) or 0
