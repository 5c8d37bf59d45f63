"""Selections of model versions that serve nothing."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from sqlalchemy import Connection, text

from shopvision.database.batches import delete_in_batches
from shopvision.models.superseded import superseded_versions
from shopvision.settings import get_settings

BATCH_ROWS = 1_000  # with some ten pictures each

# Pictures go with their items' states.
_OLD_STATES = """
    DELETE FROM image_selection_states WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM image_selection_states
        WHERE {column} = :version AND selected_at < now() - :keep ORDER BY selected_at LIMIT :batch))
    """


def prune() -> dict[str, int]:
    """Delete what is older than ``keep_superseded_days`` and of which a model serves nothing any more."""
    keep = timedelta(days=get_settings().keep_superseded_days)
    deleted = 0
    for version in superseded_versions():
        for column in ("model_version_id", "recall_version_id"):
            deleted += delete_in_batches(partial(_delete_old_states, column=column, version=version, keep=keep))
    return {"image_selection_states": deleted}


def _delete_old_states(connection: Connection, *, column: str, version: int, keep: timedelta) -> int:
    values = {"version": version, "keep": keep, "batch": BATCH_ROWS}
    return connection.execute(text(_OLD_STATES.format(column=column)), values).rowcount
