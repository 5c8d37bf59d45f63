"""What people decide about pairs: lists of pairs to look at, and their decisions back into Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import Connection, Float, Text, any_, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from shopvision.catalogue.tables import Item
from shopvision.database import connect, copy_upsert
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.decision_files import Decision, DecisionForm, DecisionReport, read_decisions
from shopvision.items.item import pair_key
from shopvision.items.pair_table import PairTable
from shopvision.matching.item_regions import with_regions
from shopvision.matching.tables import PairReview, PairScore
from shopvision.reports.row_writer import Kind, record_writer

FORM = DecisionForm(
    keys=("left_item_id", "right_item_id"),
    verdicts=("same", "different"),
    told=("probability", "left_title", "right_title"),
    key_of=pair_key,
)
_KINDS: dict[str, Kind] = {**dict.fromkeys(FORM.columns, "string"), "probability": "float32"}

_TYPES = (
    ("left_item_id", "text"), ("right_item_id", "text"), ("verdict", "text"), ("reviewer", "text"), ("note", "text"),
    ("reviewed_at", "timestamptz"),
)  # fmt: skip


@dataclass(frozen=True)
class PairToReview:
    """A pair that a model is unsure about."""

    left_item_id: str
    right_item_id: str
    probability: float
    left_title: str | None
    right_title: str | None


def import_reviews(location: str | Path, *, reviewer: str | None = None) -> DecisionReport:
    """Take in decisions; good rows go in, whatever the others are. A later file overrides an earlier one.

    Args:
        location: CSV, JSONL or Parquet (also ``s3://``, also ``.gz``) with ``left_item_id``, ``right_item_id`` (in any
            order), ``verdict`` (same, different; empty rows are left out), and perhaps ``reviewer`` and ``note``.
        reviewer: for rows that name none.

    Raises:
        UserError: the file cannot be read, or has no column of item ids.
    """
    decisions, report = read_decisions(location, FORM, reviewer)
    _write(decisions, report)
    report.refused.sort()
    return report


def reviewed_pairs(connection: Connection) -> PairTable:
    """What people decided about pairs that are in the catalogue now, by ids, with the items as they are now."""
    query = select(PairReview.left_item_id, PairReview.right_item_id, PairReview.verdict)
    stored = connection.execute(query.order_by(PairReview.left_item_id, PairReview.right_item_id)).all()
    named = [item_id for review in stored for item_id in review[:2]]
    found = with_regions(connection, items_from_catalogue(connection, named))
    reviews = [review for review in stored if review.left_item_id in found and review.right_item_id in found]
    items = {item_id: found[item_id] for review in reviews for item_id in review[:2]}
    row = {item_id: number for number, item_id in enumerate(items)}
    return PairTable(
        tuple(items.values()),
        np.array([row[review.left_item_id] for review in reviews], np.int32),
        np.array([row[review.right_item_id] for review in reviews], np.int32),
        np.array([review.verdict == "same" for review in reviews], np.int8),
    )


def pairs_to_review(model_version_id: int, *, decision: float = 0.5, limit: int = 200) -> list[PairToReview]:
    """What :func:`read_pairs_to_review` finds now."""
    with connect() as connection:
        return read_pairs_to_review(connection, model_version_id, decision=decision, limit=limit)


def read_pairs_to_review(
    connection: Connection, model_version_id: int, *, decision: float, limit: int
) -> list[PairToReview]:
    """Pairs with verdict ``review`` that nobody has decided, the least certain first.

    Args:
        connection: reads them.
        model_version_id: whose scores count.
        decision: the probability at which "same" and "different" are equally likely to be right: the card's.
        limit: at most so many.
    """
    left, right = aliased(Item), aliased(Item)
    query = (
        select(
            PairScore.left_item_id, PairScore.right_item_id, PairScore.probability, left.title.label("left_title"),
            right.title.label("right_title"),
        )
        .join(left, left.item_id == PairScore.left_item_id)
        .join(right, right.item_id == PairScore.right_item_id)
        .outerjoin(
            PairReview,
            (PairReview.left_item_id == PairScore.left_item_id) & (PairReview.right_item_id == PairScore.right_item_id),
        )
        .where(
            PairScore.model_version_id == model_version_id, PairScore.verdict == "review",
            PairReview.verdict.is_(None),
        )
        .order_by(
            func.abs(cast(PairScore.probability, Float) - decision), PairScore.left_item_id, PairScore.right_item_id
        )
        .limit(limit)
    )  # fmt: skip
    return [PairToReview(*row) for row in connection.execute(query)]


def write_review_list(path: Path, pairs: Sequence[PairToReview]) -> None:
    """Write a file whose verdicts are to be filled in; ``import_reviews`` takes it back.

    Args:
        path: ``.csv``, ``.jsonl`` or ``.parquet``.
        pairs: one a row.

    Raises:
        UserError: unknown format, or the file cannot be written.
    """
    with record_writer(path, _KINDS) as write:
        write(
            [
                (pair.left_item_id, pair.right_item_id, "", "", "", round(pair.probability, 4), pair.left_title or "",
                 pair.right_title or "")
                for pair in pairs
            ]
        )  # fmt: skip


def _write(decisions: Mapping[tuple[str, str], Decision], report: DecisionReport) -> None:
    ids = sorted({item_id for pair in decisions for item_id in pair})
    items = select(Item.item_id).where(Item.item_id == any_(bindparam("ids", ids, ARRAY(Text))))
    with connect() as connection:
        known = set(connection.scalars(items))
        stored = {
            (row.left_item_id, row.right_item_id): (row.verdict, row.reviewer, row.note)
            for row in connection.execute(
                select(PairReview.left_item_id, PairReview.right_item_id, PairReview.verdict, PairReview.reviewer,
                       PairReview.note)
                .where(PairReview.left_item_id == any_(bindparam("ids", ids, ARRAY(Text))))
            )
        }  # fmt: skip
        now = connection.scalar(select(func.now()))
        rows = []
        for pair, one in sorted(decisions.items()):
            # An id that nobody knows is a mistake; a pair that was decided before may wait for its items.
            unknown = [item_id for item_id in pair if item_id not in known and pair not in stored]
            if unknown:
                report.refused.append((one.line, f"item {unknown[0][:80]!r} is not in the catalogue; correct its id"))
            elif stored.get(pair) == (one.verdict, one.reviewer, one.note):
                report.unchanged += 1
            else:
                rows.append((*pair, one.verdict, one.reviewer, one.note, now))
        key = ("left_item_id", "right_item_id")
        report.written = copy_upsert(connection, PairReview.__table__, _TYPES, rows, key=key)  # type: ignore[arg-type] # declared as FromClause
