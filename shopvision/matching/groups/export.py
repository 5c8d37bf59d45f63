"""Scores and groups out of Postgres into a file, row by row, however many there are."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy import Select, Text, and_, cast, func, select

from shopvision.catalogue.tables import Item
from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.matching.tables import ItemGroup, ItemGroupMember, PairReview, PairScore
from shopvision.models.tables import ModelVersion
from shopvision.reports.row_writer import Kind, record_writer

Verdict = Literal["same", "different", "review"]
ROWS_AT_ONCE = 5_000

SCORE_COLUMNS: dict[str, Kind] = {
    "left_item_id": "string", "right_item_id": "string", "probability": "float32", "verdict": "string",
    "reviewed": "bool", "exact": "string", "model": "string", "job_id": "string", "scored_at": "string",
}  # fmt: skip
GROUP_COLUMNS: dict[str, Kind] = {
    "group_id": "string", "item_id": "string", "size": "int32", "title": "string", "category": "string",
    "source": "string", "keep": "bool", "kept_by": "string", "lends": "string", "model": "string", "job_id": "string",
    "updated_at": "string",
}  # fmt: skip

_MODEL = ModelVersion.name + ":" + ModelVersion.tag


def export_scores(
    path: Path,
    *,
    model_version_id: int | None = None,
    job_id: uuid.UUID | None = None,
    verdict: str | None = None,
) -> int:
    """Write scored pairs; returns how many. ``verdict`` is what people decided where they did (``reviewed``).

    ``exact`` says what both items have exactly: ``picture``, ``code``, both, or nothing, where the model alone tells.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.parquet``.
        model_version_id: only those of this model version; the same pair has a row for each.
        job_id: only those that this job scored last.
        verdict: only those of this verdict: same, different or review.

    Raises:
        UserError: unknown format or verdict, or the file cannot be written.
    """
    if verdict is not None and verdict not in get_args(Verdict):
        raise UserError(f"There is no verdict '{verdict}': choose {', '.join(get_args(Verdict))}.")
    final = func.coalesce(PairReview.verdict, PairScore.verdict)
    both = and_(PairReview.left_item_id == PairScore.left_item_id, PairReview.right_item_id == PairScore.right_item_id)
    query = (
        select(
            PairScore.left_item_id, PairScore.right_item_id, PairScore.probability, final,
            PairReview.verdict.is_not(None), func.array_to_string(PairScore.exact, " "), _MODEL,
            cast(PairScore.job_id, Text), _iso(PairScore.scored_at),
        )
        .join(ModelVersion, ModelVersion.model_version_id == PairScore.model_version_id)
        .outerjoin(PairReview, both)
        .order_by(PairScore.left_item_id, PairScore.right_item_id, PairScore.model_version_id)
    )  # fmt: skip
    if model_version_id is not None:
        query = query.where(PairScore.model_version_id == model_version_id)
    if job_id is not None:
        query = query.where(PairScore.job_id == job_id)
    if verdict is not None:
        query = query.where(final == verdict)
    return _write(path, SCORE_COLUMNS, query)


def export_groups(path: Path, *, model_version_id: int | None = None, job_id: uuid.UUID | None = None) -> int:
    """Write one row for each item in a group, groups by age; returns how many.

    ``keep`` marks the item to keep, ``kept_by`` the rule that chose it, and ``lends`` is what an item has that the one
    to keep lacks, as JSON: ``[{field, key, values}]``.

    Args:
        path: as above.
        model_version_id: nothing, unless the groups are this version's.
        job_id: only groups that this job changed last.

    Raises:
        UserError: unknown format, or the file cannot be written.
    """
    columns: tuple[Any, ...] = (
        cast(ItemGroup.group_id, Text), ItemGroupMember.item_id, ItemGroup.size, Item.title, Item.category,
        Item.source, ItemGroupMember.is_kept, ItemGroup.kept_by, cast(ItemGroupMember.lends, Text), _MODEL,
        cast(ItemGroup.job_id, Text), _iso(ItemGroup.updated_at),
    )  # fmt: skip
    query: Select[Any] = (
        select(*columns)
        .join(ItemGroupMember, ItemGroupMember.group_id == ItemGroup.group_id)
        .join(Item, Item.item_id == ItemGroupMember.item_id)
        .join(ModelVersion, ModelVersion.model_version_id == ItemGroup.model_version_id)
        .order_by(ItemGroup.created_at, ItemGroup.group_id, ItemGroupMember.item_id)
    )
    if model_version_id is not None:
        query = query.where(ItemGroup.model_version_id == model_version_id)
    if job_id is not None:
        query = query.where(ItemGroup.job_id == job_id)
    return _write(path, GROUP_COLUMNS, query)


def _iso(moment: Any) -> Any:
    return func.to_char(moment, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')  # sessions are in UTC


def _write(path: Path, columns: dict[str, Kind], query: Select[Any]) -> int:
    count = 0
    with (
        record_writer(path, columns) as write,
        connect() as connection,
        connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query) as result,
    ):
        for rows in result.partitions():
            write(rows)
            count += len(rows)
    return count
