"""Pruning deletes what is old and finished, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select, text

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect
from shopvision.fashion.tables import PictureRegion
from shopvision.index.tables import Embedding, IndexChange
from shopvision.matching.prune import OLD_SCORES
from shopvision.matching.tables import ItemVector, MatchingState, PairScore
from shopvision.models.tables import ModelRole, ModelVersion
from worker.ledger.tables import Chunk, ItemFailure, Job, OutboxMessage
from worker.retention import prune

pytestmark = pytest.mark.usefixtures("database")

OLD = text("now() - interval '1000 days'")


def add_job(state: str, finished_at: object) -> uuid.UUID:
    with connect() as connection:
        job_id: uuid.UUID = connection.scalar(
            insert(Job)
            .values(kind="count", params={}, source="test", state=state, finished_at=finished_at, created_at=OLD)
            .returning(Job.job_id)
        )
        chunk_id = connection.scalar(
            insert(Chunk).values(job_id=job_id, phase="chunk", queue="io").returning(Chunk.chunk_id)
        )
        connection.execute(insert(ItemFailure).values(job_id=job_id, item_key="1", code="x", message="y"))
        connection.execute(insert(OutboxMessage).values(chunk_id=chunk_id, task="t", queue="io", sent_at=func.now()))
    return job_id


def test_old_finished_jobs_go_with_everything_of_theirs() -> None:
    add_job("succeeded", OLD)
    add_job("failed", OLD)
    kept = {add_job("succeeded", func.now()), add_job("running", None)}
    assert prune()["jobs"] == 2
    with connect() as connection:
        assert set(connection.scalars(select(Job.job_id))) == kept
        for table in (Chunk, ItemFailure, OutboxMessage):
            assert connection.scalar(select(func.count()).select_from(table)) == 2


def test_chunks_of_succeeded_jobs_go_first_and_the_job_keeps_its_numbers() -> None:
    month_ago = text("now() - interval '30 days'")
    add_job("succeeded", month_ago)
    resumable = {add_job("failed", month_ago), add_job("cancelled", month_ago), add_job("running", None)}
    assert prune()["chunks"] == 1
    with connect() as connection:
        assert set(connection.scalars(select(Chunk.job_id))) == resumable
        assert connection.scalar(select(func.count()).select_from(Job)) == 4


def test_sent_messages_go_and_unsent_ones_stay() -> None:
    add_job("running", None)
    with connect() as connection:
        connection.execute(text("UPDATE outbox SET sent_at = now() - interval '2 days'"))
        connection.execute(insert(OutboxMessage).values(chunk_id=1, task="t", queue="io", created_at=OLD))
    assert prune()["outbox"] == 1
    with connect() as connection:
        assert connection.scalars(select(OutboxMessage.sent_at)).all() == [None]


def test_only_vectors_of_superseded_models_go(set_environment: Callable[..., None], postgres_server: object) -> None:
    with connect() as connection:
        connection.execute(insert(Item).values(item_id="a", content_hash=b""))
        image_id = connection.scalar(
            insert(ItemImage).values(item_id="a", position=0, uri="file:///a").returning(ItemImage.image_id)
        )
        versions = connection.scalars(
            insert(ModelVersion).returning(ModelVersion.model_version_id, sort_by_parameter_order=True),
            [
                {"name": "m", "tag": tag, "card": {"kind": "image_encoder"}}
                for tag in ("active", "previous", "forgotten", "young")
            ],
        ).all()
        connection.execute(
            insert(ModelRole).values(
                role="catalogue_encoder", model_version_id=versions[0], previous_version_id=versions[1]
            )
        )
        for version in versions:
            connection.execute(
                insert(Embedding).values(
                    model_version_id=version,
                    image_id=image_id,
                    image_sha256=b"",
                    source_fingerprint="",
                    vector=b"",
                    embedded_at=func.now() if version == versions[3] else OLD,
                )
            )
    assert prune()["embeddings"] == 1
    with connect() as connection:
        assert set(connection.scalars(select(Embedding.model_version_id))) == {versions[0], versions[1], versions[3]}
        assert set(connection.scalars(select(IndexChange.model_version_id))) == {versions[0], versions[1], versions[3]}


def test_regions_go_with_detectors_that_serve_nothing_alone_or_composed() -> None:
    composed = {"kind": "composed_encoder", "architecture": {"arguments": {"detector": "d:within"}}}
    with connect() as connection:
        connection.execute(insert(Item).values(item_id="a", content_hash=b""))
        image_id = connection.scalar(
            insert(ItemImage).values(item_id="a", position=0, uri="file:///a").returning(ItemImage.image_id)
        )
        detectors = connection.scalars(
            insert(ModelVersion).returning(ModelVersion.model_version_id, sort_by_parameter_order=True),
            [
                {"name": "d", "tag": tag, "card": {"kind": "fashion_detector"}}
                for tag in ("active", "within", "forgotten", "young")
            ],
        ).all()
        encoder = connection.scalar(
            insert(ModelVersion).values(name="g", tag="1", card=composed).returning(ModelVersion.model_version_id)
        )
        connection.execute(
            insert(ModelRole),
            [
                {"role": "fashion_detector", "model_version_id": detectors[0]},
                {"role": "catalogue_encoder", "model_version_id": encoder},
            ],
        )
        for version in detectors:
            at = func.now() if version == detectors[3] else OLD
            connection.execute(
                insert(PictureRegion).values(
                    detector_version_id=version, image_id=image_id, region=0, image_sha256=b"", box=[0, 0, 1, 1],
                    found_at=at,
                )
            )  # fmt: skip
    assert prune()["picture_regions"] == 1
    with connect() as connection:
        left = set(connection.scalars(select(PictureRegion.detector_version_id)))
    assert left == {detectors[0], detectors[1], detectors[3]}


def test_scores_and_vectors_of_superseded_pair_scorers_go_and_their_items_are_due_again() -> None:
    month_ago = text("now() - interval '31 days'")
    with connect() as connection:
        for item_id in "abc":
            connection.execute(insert(Item).values(item_id=item_id, content_hash=b""))
        versions = connection.scalars(
            insert(ModelVersion).returning(ModelVersion.model_version_id, sort_by_parameter_order=True),
            [{"name": "m", "tag": tag, "card": {"kind": "pair_scorer"}} for tag in ("active", "forgotten", "young")],
        ).all()
        connection.execute(insert(ModelRole).values(role="pair_scorer", model_version_id=versions[0]))
        for version in versions:
            at = func.now() if version == versions[2] else month_ago
            both = {"left_item_id": "a", "right_item_id": "b", "probability": 0.5, "verdict": "review"}
            connection.execute(
                insert(PairScore).values(
                    model_version_id=version, **both, input_hash=b"", job_id=uuid.uuid4(), scored_at=at
                )
            )
            for item_id in "abc":
                state = {"item_id": item_id, "model_version_id": version, "content_hash": b""}
                connection.execute(insert(MatchingState).values(state))
            vector = {"item_id": "a", "input_hash": b"", "vector": b"", "computed_at": at}
            connection.execute(insert(ItemVector).values(model_version_id=version, **vector))
    deleted = prune()
    assert (deleted["pair_scores"], deleted["item_vectors"]) == (1, 1)
    with connect() as connection:
        for table in (PairScore, ItemVector):
            assert set(connection.scalars(select(table.model_version_id))) == {versions[0], versions[2]}
        left = connection.execute(select(MatchingState.model_version_id, MatchingState.item_id)).all()
    kept = {versions[0]: "abc", versions[1]: "c", versions[2]: "abc"}
    assert sorted(map(tuple, left)) == [(version, item_id) for version, ids in kept.items() for item_id in ids]


def test_young_scores_of_a_superseded_version_are_not_looked_at() -> None:
    """Hourly, over hundreds of millions of rows: by the index, whose first entry says that nothing is old."""
    with connect() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))  # the table is empty here, where a scan is cheapest
        values = {"version": 1, "keep": timedelta(days=30), "batch": 10}
        plan = "\n".join(connection.scalars(text(f"EXPLAIN {OLD_SCORES}"), values))
    assert "ix_pair_scores_model_version_id_scored_at" in plan
    assert "Sort" not in plan
    assert "Seq Scan on pair_scores" not in plan
