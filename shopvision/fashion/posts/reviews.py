"""What people decide about training pairs: their files into Postgres, above every rule and model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import func, select

from shopvision.database import among, connect, copy_upsert
from shopvision.database.named_lock import take_lock
from shopvision.fashion.posts.results import LOCK, apply_reviews
from shopvision.fashion.posts.tables import Post, TrainingPair, TrainingPairReview
from shopvision.items.decision_files import Decision, DecisionForm, DecisionReport, Key, read_decisions

FORM = DecisionForm(keys=("post_id", "product_id"), verdicts=("wrong", "right"))

_TYPES = (
    ("post_id", "text"), ("product_id", "text"), ("verdict", "text"), ("reviewer", "text"), ("note", "text"),
    ("reviewed_at", "timestamptz"),
)  # fmt: skip


def import_reviews(location: str | Path, *, reviewer: str | None = None) -> DecisionReport:
    """Take in decisions; good rows go in, whatever the others are. A later file overrides an earlier one.

    Pairs that are wrong are rejected at once, and again whenever a job makes them anew, with any models. ``right``
    takes that back; a pair that a rule rejects stays so.

    Args:
        location: CSV, JSONL or Parquet (also ``s3://``, also ``.gz``) with ``post_id``, ``product_id``, ``verdict``
            (wrong, right; empty rows are left out), and perhaps ``reviewer`` and ``note``.
        reviewer: for rows that name none.

    Raises:
        UserError: the file cannot be read, or has no column of ids.
    """
    decisions, report = read_decisions(location, FORM, reviewer)
    _write(decisions, report)
    report.refused.sort()
    return report


def _write(decisions: Mapping[Key, Decision], report: DecisionReport) -> None:
    post_ids = sorted({post_id for post_id, _ in decisions})
    with connect() as connection:
        take_lock(connection, LOCK)
        pairs = select(TrainingPair.post_id, TrainingPair.product_id).where(among(TrainingPair.post_id, post_ids))
        known = {(row.post_id, row.product_id) for row in connection.execute(pairs)}
        # A pair may be gone since the page was made: its post gives none at the moment, and may give it again.
        posts = select(Post.post_id, Post.products).where(among(Post.post_id, post_ids))
        for post in connection.execute(posts):
            known |= {(post.post_id, product["product_id"]) for product in post.products}
        stored = {
            (row.post_id, row.product_id): (row.verdict, row.reviewer, row.note)
            for row in connection.execute(
                select(*TrainingPairReview.__table__.c).where(among(TrainingPairReview.post_id, post_ids))
            )
        }
        now = connection.scalar(select(func.now()))
        rows = []
        for pair, one in sorted(decisions.items()):
            # Ids that nobody knows are a mistake; a pair that was decided before may be gone for a while.
            if pair not in known and pair not in stored:
                report.refused.append(
                    (one.line, f"post {pair[0][:80]!r} has no pair with product {pair[1][:80]!r}; correct the ids")
                )
            elif stored.get(pair) == (one.verdict, one.reviewer, one.note):
                report.unchanged += 1
            else:
                rows.append((*pair, one.verdict, one.reviewer, one.note, now))
        report.written = copy_upsert(connection, TrainingPairReview.__table__, _TYPES, rows, key=FORM.keys)  # type: ignore[arg-type] # declared as FromClause
        apply_reviews(connection, post_ids)
