"""The notes of what changed (``index_changes``): read by a publication, and deleted once it serves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, select, text

from shopvision.database import connect, copy_rows
from shopvision.index.ids import Ids
from shopvision.index.tables import IndexChange

BATCH_ROWS = 5_000


@dataclass(frozen=True)
class Changes:
    """Pictures noted as changed, with the revisions that were read; both of shape (n,), ordered by picture."""

    image_ids: Ids
    revisions: Ids


def read_changes(connection: Connection, model_version_id: int) -> Changes:
    """Every change noted for this model version."""
    query = (
        select(IndexChange.image_id, IndexChange.revision)
        .where(IndexChange.model_version_id == model_version_id)
        .order_by(IndexChange.image_id)
        .execution_options(yield_per=BATCH_ROWS)
    )
    parts = [np.array(part, dtype=np.int64) for part in connection.execute(query).partitions()]
    table = np.concatenate(parts) if parts else np.empty((0, 2), np.int64)
    return Changes(table[:, 0], table[:, 1])


_SEEN_NOTES = """
    WITH seen AS (
        SELECT noted.image_id FROM index_changes AS noted JOIN consumed USING (image_id, revision)
        WHERE noted.model_version_id = :model ORDER BY noted.image_id FOR UPDATE OF noted)
    DELETE FROM index_changes AS noted USING seen
    WHERE noted.model_version_id = :model AND noted.image_id = seen.image_id
    """


def consume(connection: Connection, model_version_id: int, changes: Changes) -> None:
    """Delete exactly the notes that were read; one that was written anew meanwhile has another revision and stays."""
    connection.exec_driver_sql("CREATE TEMPORARY TABLE consumed (image_id int8, revision int8) ON COMMIT DROP")
    rows = zip(changes.image_ids.tolist(), changes.revisions.tolist(), strict=True)
    copy_rows(connection, "consumed", [("image_id", "int8"), ("revision", "int8")], rows)
    connection.exec_driver_sql("ANALYZE consumed")
    # The statistics of the notes are of the time when there were few: a loop over them looks cheap, and is quadratic.
    connection.exec_driver_sql("SET LOCAL enable_nestloop = off")
    # Locked in the order in which the triggers write, so that the two never wait for each other in a circle.
    connection.execute(text(_SEEN_NOTES), {"model": model_version_id})
    connection.exec_driver_sql("SET LOCAL enable_nestloop TO DEFAULT")


def forget_idle_notes() -> None:
    """Notes of a model that no index serves and that has no vectors left would stay for ever."""
    with connect() as connection:
        connection.execute(
            text(
                "DELETE FROM index_changes WHERE model_version_id NOT IN"
                " (SELECT model_version_id FROM index_generations WHERE is_current UNION"
                "  SELECT model_version_id FROM model_versions v WHERE EXISTS"
                "  (SELECT 1 FROM embeddings e WHERE e.model_version_id = v.model_version_id))"
            )
        )
