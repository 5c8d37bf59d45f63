"""What models that serve nothing any more made of posts. Posts stay, and so does what people decided."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from sqlalchemy import Connection, text

from shopvision.database.batches import delete_in_batches
from shopvision.models.superseded import superseded_versions
from shopvision.settings import get_settings

BATCH_ROWS = 10_000

# Pairs go with their posts.
_OLD_LABELS = """
    DELETE FROM labelled_posts WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM labelled_posts
        WHERE {column} = :version AND labelled_at < now() - :keep ORDER BY labelled_at LIMIT :batch))
    """


def prune() -> dict[str, int]:
    """Delete what is older than ``keep_superseded_days`` and of which a model serves nothing any more."""
    keep = timedelta(days=get_settings().keep_superseded_days)
    deleted = 0
    for version in superseded_versions():
        for column in ("detector_version_id", "classifier_version_id"):
            deleted += delete_in_batches(partial(_delete_old_labels, column=column, version=version, keep=keep))
    return {"labelled_posts": deleted}


def _delete_old_labels(connection: Connection, *, column: str, version: int, keep: timedelta) -> int:
    values = {"version": version, "keep": keep, "batch": BATCH_ROWS}
    return connection.execute(text(_OLD_LABELS.format(column=column)), values).rowcount
