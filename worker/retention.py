"""Pruning, so that tables stay small over years."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import Delete, delete, func, or_, select, text

from shopvision.database import connect
from shopvision.index.tables import Embedding, IndexChange, IndexGeneration
from shopvision.matching import requests
from shopvision.matching.tables import ItemVector
from shopvision.models.tables import ModelRole, ModelVersion
from shopvision.selection.tables import PlanRankingState
from shopvision.settings import get_settings
from worker.ledger.tables import Chunk, Job, JobState, OutboxMessage

log = structlog.get_logger(__name__)

BATCH_ROWS = 10_000  # short transactions: pruning never blocks the work
BATCH_PLANS = 200  # with some fifty rankings each

# With its scores a model version forgets that it has matched these items: should it ever serve again, they are due.
_OLD_SCORES = """
    WITH old AS (
        DELETE FROM pair_scores WHERE ctid IN (
            SELECT ctid FROM pair_scores
            WHERE model_version_id = ANY(:unused) AND scored_at < now() - :keep LIMIT :batch)
        RETURNING model_version_id, left_item_id, right_item_id),
    forgotten AS (
        DELETE FROM matching_states AS state USING old
        WHERE state.model_version_id = old.model_version_id
          AND state.item_id IN (old.left_item_id, old.right_item_id))
    SELECT count(*) FROM old
    """


def prune() -> dict[str, int]:
    """Delete what is older than the configured ages; returns rows deleted per table (children not counted)."""
    settings = get_settings()
    old_jobs = (
        select(Job.job_id)
        .where(Job.state != JobState.RUNNING, Job.finished_at < func.now() - timedelta(days=settings.keep_jobs_days))
        .limit(100)
    )
    done_chunks = (
        select(Chunk.chunk_id)
        .join(Job, Job.job_id == Chunk.job_id)
        .where(
            Job.state == JobState.SUCCEEDED, Job.finished_at < func.now() - timedelta(days=settings.keep_chunks_days)
        )
        .limit(BATCH_ROWS)
    )
    sent = (
        select(OutboxMessage.message_id)
        .where(OutboxMessage.sent_at < func.now() - timedelta(days=settings.keep_outbox_days))
        .limit(BATCH_ROWS)
    )
    deleted = {
        "jobs": _in_batches(delete(Job).where(Job.job_id.in_(old_jobs))),
        "chunks": _in_batches(delete(Chunk).where(Chunk.chunk_id.in_(done_chunks))),
        "outbox": _in_batches(delete(OutboxMessage).where(OutboxMessage.message_id.in_(sent))),
        "matching_requests": _prune_requests(),
        **_prune_superseded(settings.keep_superseded_days),
    }
    log.info("pruned", **deleted)
    return deleted


def _prune_requests() -> int:
    """Rows of jobs that can neither go on nor be resumed; one that came to its end has dropped its own."""
    with_rows = requests.jobs_with_rows()  # before the jobs are looked at: a job is there before it has rows
    with connect() as connection:
        open_jobs = set(connection.scalars(select(Job.job_id).where(Job.state != JobState.SUCCEEDED)))
    return sum(requests.forget(job_id) for job_id in with_rows if job_id not in open_jobs)


def _prune_superseded(keep_days: float) -> dict[str, int]:
    """Results of model versions that serve no role, are no rollback target, and back no current index."""
    long_ago = func.now() - timedelta(days=keep_days)
    deleted = {"embeddings": 0, "plan_ranking_states": 0, "item_vectors": 0}
    with connect() as connection:
        unused = connection.scalars(
            select(ModelVersion.model_version_id).where(
                ~select(ModelRole.role)
                .where(
                    or_(
                        ModelRole.model_version_id == ModelVersion.model_version_id,
                        ModelRole.previous_version_id == ModelVersion.model_version_id,
                    )
                )
                .exists(),
                ~select(IndexGeneration.generation_id)
                .where(IndexGeneration.model_version_id == ModelVersion.model_version_id, IndexGeneration.is_current)
                .exists(),
            )
        ).all()
    for model_version_id in unused:
        old = (
            select(Embedding.image_id)
            .where(Embedding.model_version_id == model_version_id, Embedding.embedded_at < long_ago)
            .limit(BATCH_ROWS)
        )
        deleted["embeddings"] += _in_batches(
            delete(Embedding).where(Embedding.model_version_id == model_version_id, Embedding.image_id.in_(old))
        )
        old_plans = (
            select(PlanRankingState.plan_id)
            .where(PlanRankingState.model_version_id == model_version_id, PlanRankingState.ranked_at < long_ago)
            .limit(BATCH_PLANS)
        )
        old_vectors = (
            select(ItemVector.item_id)
            .where(ItemVector.model_version_id == model_version_id, ItemVector.computed_at < long_ago)
            .limit(BATCH_ROWS)
        )
        deleted["item_vectors"] += _in_batches(
            delete(ItemVector).where(
                ItemVector.model_version_id == model_version_id, ItemVector.item_id.in_(old_vectors)
            )
        )
        deleted["plan_ranking_states"] += _in_batches(
            delete(PlanRankingState).where(
                PlanRankingState.model_version_id == model_version_id, PlanRankingState.plan_id.in_(old_plans)
            )
        )
        _in_batches(
            delete(IndexChange).where(
                IndexChange.model_version_id == model_version_id,
                IndexChange.image_id.in_(
                    select(IndexChange.image_id)
                    .where(
                        IndexChange.model_version_id == model_version_id,
                        ~select(Embedding.image_id)
                        .where(
                            Embedding.model_version_id == IndexChange.model_version_id,
                            Embedding.image_id == IndexChange.image_id,
                        )
                        .exists(),
                    )
                    .limit(BATCH_ROWS)
                ),
            )
        )
    deleted["pair_scores"] = _prune_scores(unused, keep_days)
    return deleted


def _prune_scores(unused: Sequence[int], keep_days: float) -> int:
    """Pair scores of model versions that serve no role, all in one look, since no index leads to them."""
    values = {"unused": list(unused), "keep": timedelta(days=keep_days), "batch": BATCH_ROWS}
    total = 0
    while True:
        with connect() as connection:
            rows = connection.scalar(text(_OLD_SCORES), values) or 0
        total += rows
        if rows < BATCH_ROWS:
            return total


def _in_batches(statement: Delete) -> int:
    total = 0
    while True:
        with connect() as connection:
            rows = connection.execute(statement).rowcount
        total += rows
        if rows == 0:
            return total
