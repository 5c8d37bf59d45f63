"""Training pairs out of Postgres: into the file that encoders are trained from, and counted by reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import ColumnElement, Select, and_, func, select

from shopvision.database import connect
from shopvision.fashion.pair_file import TrainingPairRow, write_training_pairs
from shopvision.fashion.posts.tables import LabelledPost, TrainingPair

ROWS_AT_ONCE = 5_000
KEPT = "kept"


def export_pairs(path: Path, detector: int, classifier: int) -> int:
    """Write the pairs that two model versions and people kept; returns how many.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.parquet``; see ``pair_file``.
        detector: id of the detector's version.
        classifier: id of the thumbnail classifier's version.

    Raises:
        UserError: unknown format, or the file cannot be written.
    """
    return write_training_pairs(path, _kept_pairs(detector, classifier))


def count_reasons(detector: int, classifier: int) -> dict[str, dict[str, int]]:
    """``posts`` and ``pairs`` of two model versions: ``kept``, and each reason why others are not, the most frequent
    first.
    """
    found = {}
    with connect() as connection:
        for what, table in (("posts", LabelledPost), ("pairs", TrainingPair)):
            query: Select[str, int] = (
                select(func.coalesce(table.reason, KEPT).label("why"), func.count().label("rows"))
                .where(table.detector_version_id == detector, table.classifier_version_id == classifier)
                .group_by("why")
                .order_by(func.count().desc(), "why")
            )
            found[what] = {row.why: row.rows for row in connection.execute(query)}
    return found


def _kept_pairs(detector: int, classifier: int) -> Iterator[TrainingPairRow]:
    query = (
        select(
            TrainingPair.anchor_uri, TrainingPair.positive_uri, TrainingPair.anchor_box, TrainingPair.category,
            TrainingPair.product_id, TrainingPair.post_id,
        )
        .where(_of(detector, classifier), TrainingPair.state == KEPT)
        .order_by(TrainingPair.post_id, TrainingPair.product_id)
    )  # fmt: skip
    with (
        connect() as connection,
        connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query) as result,
    ):
        for row in result:
            left, top, right, bottom = row.anchor_box
            yield TrainingPairRow(
                row.anchor_uri, row.positive_uri, (left, top, right, bottom), None, row.category, row.product_id,
                row.post_id,
            )  # fmt: skip


def _of(detector: int, classifier: int) -> ColumnElement[bool]:
    return and_(TrainingPair.detector_version_id == detector, TrainingPair.classifier_version_id == classifier)
