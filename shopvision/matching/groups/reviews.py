"""What people decide about pairs: lists of pairs to look at, and their decisions back into Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, Float, Text, any_, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.catalogue.tables import Item
from shopvision.database import connect, copy_upsert
from shopvision.errors import ItemError, UserError
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item import pair_key
from shopvision.items.pair_table import PairTable
from shopvision.matching.tables import PairReview, PairScore
from shopvision.reports.row_writer import Kind, record_writer

VERDICTS = ("same", "different")
REQUIRED = ("left_item_id", "right_item_id", "verdict")
COLUMNS = (*REQUIRED, "reviewer", "note", "probability", "left_title", "right_title")
_KINDS: dict[str, Kind] = {**dict.fromkeys(COLUMNS, "string"), "probability": "float32"}

_TYPES = (
    ("left_item_id", "text"), ("right_item_id", "text"), ("verdict", "text"), ("reviewer", "text"), ("note", "text"),
    ("reviewed_at", "timestamptz"),
)  # fmt: skip


@dataclass
class ReviewReport:
    """What became of the rows of a file.

    Attributes:
        rows: read.
        written: pairs whose decision is new or another one.
        unchanged: pairs that were decided in just this way before.
        undecided: rows without verdict.
        refused: (line, reason).
    """

    rows: int = 0
    written: int = 0
    unchanged: int = 0
    undecided: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        errors = [{"line": line, "message": message} for line, message in self.refused]
        counts = {"rows": self.rows, "written": self.written, "unchanged": self.unchanged, "undecided": self.undecided}
        return {**counts, "refused": len(errors), "errors": errors}


@dataclass(frozen=True)
class Decision:
    """A row of a file that can be read."""

    line: int
    verdict: str
    reviewer: str | None
    note: str | None


@dataclass(frozen=True)
class PairToReview:
    """A pair that a model is unsure about."""

    left_item_id: str
    right_item_id: str
    probability: float
    left_title: str | None
    right_title: str | None


def import_reviews(location: str | Path, *, reviewer: str | None = None) -> ReviewReport:
    """Take in decisions; good rows go in, whatever the others are. A later file overrides an earlier one.

    Args:
        location: CSV, JSONL or Parquet (also ``s3://``, also ``.gz``) with ``left_item_id``, ``right_item_id`` (in any
            order), ``verdict`` (same, different; empty rows are left out), and perhaps ``reviewer`` and ``note``.
        reviewer: for rows that name none.

    Raises:
        UserError: the file cannot be read, or has no column of item ids.
    """
    report = ReviewReport()
    decisions: dict[tuple[str, str], list[Decision]] = {}
    found: set[str] = set()
    with open_source(str(location), own_exports=True) as source:
        for line, record in source.records:
            report.rows += 1
            found.update(() if isinstance(record, RecordError) else record)
            try:
                pair = _read(record, line, reviewer)
            except ItemError as error:
                report.refused.append((line, error.message))
                continue
            if pair is None:
                report.undecided += 1
            else:
                decisions.setdefault(pair[0], []).append(pair[1])
    # A list in which nothing is decided yet has no verdicts; one with a column of another name is a mistake.
    asked = REQUIRED if found - set(COLUMNS) else REQUIRED[:2]
    missing = [name for name in asked if name not in found]
    if report.rows and missing:
        raise UserError(f"{location} has no {', '.join(missing)}: it needs the columns {', '.join(REQUIRED)}.")
    _write(_consistent(decisions, report), report)
    report.refused.sort()
    return report


def reviewed_pairs(connection: Connection) -> PairTable:
    """What people decided about pairs that are in the catalogue now, by ids, with the items as they are now."""
    query = select(PairReview.left_item_id, PairReview.right_item_id, PairReview.verdict)
    stored = connection.execute(query.order_by(PairReview.left_item_id, PairReview.right_item_id)).all()
    found = items_from_catalogue(connection, [item_id for review in stored for item_id in review[:2]])
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


def _read(
    record: Mapping[str, Any] | RecordError, line: int, reviewer: str | None
) -> tuple[tuple[str, str], Decision] | None:
    """The pair and what was decided; None where nothing was."""
    if isinstance(record, RecordError):
        raise ItemError("broken_record", str(record))
    left, right, verdict, name, note = (_text(record.get(key)) for key in COLUMNS[:5])
    if not verdict:
        return None
    if verdict.lower() not in VERDICTS:
        raise ItemError("unknown_verdict", f"verdict is {verdict[:40]!r}; write {' or '.join(VERDICTS)}")
    if not left or not right:
        raise ItemError("broken_record", f"{REQUIRED[0 if not left else 1]} is empty; name both items")
    if "\0" in left + right + name + note:
        raise ItemError("broken_record", "a text holds a null character; remove it")
    return pair_key(left, right), Decision(line, verdict.lower(), name or reviewer, note or None)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _consistent(
    decisions: Mapping[tuple[str, str], Sequence[Decision]], report: ReviewReport
) -> dict[tuple[str, str], Decision]:
    """One decision for each pair; a pair that is decided both ways is refused."""
    result = {}
    for pair, several in decisions.items():
        if len({one.verdict for one in several}) > 1:
            lines = ", ".join(str(one.line) for one in several)
            message = f"the pair {pair[0]!r}, {pair[1]!r} is decided both ways in lines {lines}; keep the right one"
            report.refused += [(one.line, message) for one in several]
        else:
            result[pair] = several[-1]
    return result


def _write(decisions: dict[tuple[str, str], Decision], report: ReviewReport) -> None:
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
