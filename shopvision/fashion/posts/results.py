"""What came of posts into Postgres, in the transaction of whoever made it.

Writers take turns: of two posts with the same photo that are labelled at the same moment the one that comes first is
kept, and a person's decision that comes meanwhile holds.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, select, text

from shopvision.database import among, copy_rows, copy_upsert
from shopvision.database.named_lock import take_lock
from shopvision.fashion.posts.outcome import PostOutcome
from shopvision.fashion.posts.photo_hash import bands
from shopvision.fashion.posts.rules import PERSON
from shopvision.fashion.posts.store import Labelling, nearest_photos, same_photos
from shopvision.fashion.posts.tables import LabelledPost, Post, TrainingPair

LOCK = "shopvision.training_pairs"

_LABELLED_COLUMNS = (
    ("detector_version_id", "int8"), ("classifier_version_id", "int8"), ("post_id", "text"), ("state", "text"),
    ("reason", "text"), ("same_as", "text"), ("photo_hash", "int8"), ("hash_bands", "int4[]"),
    ("photo_size", "int4[]"), ("garments", "int4"), ("pairs", "int4"), ("input_hash", "bytea"), ("job_id", "uuid"),
    ("labelled_at", "timestamptz"),
)  # fmt: skip
_PAIR_COLUMNS = (
    ("detector_version_id", "int8"), ("classifier_version_id", "int8"), ("post_id", "text"), ("product_id", "text"),
    ("anchor_uri", "text"), ("anchor_box", "float4[]"), ("positive_uri", "text"), ("category", "text"),
    ("garment_score", "float4"), ("class_probability", "float4"), ("state", "text"), ("reason", "text"),
    ("job_id", "uuid"),
)  # fmt: skip
_REJECTED_BY_PERSON = """
    UPDATE training_pairs AS pair SET state = 'rejected', reason = :person
    FROM training_pair_reviews AS review
    WHERE review.post_id = pair.post_id AND review.product_id = pair.product_id AND review.verdict = 'wrong'
      AND pair.state = 'kept' AND pair.post_id = ANY(:post_ids)
    """
_TAKEN_BACK = """
    UPDATE training_pairs AS pair SET state = 'kept', reason = NULL
    FROM training_pair_reviews AS review
    WHERE review.post_id = pair.post_id AND review.product_id = pair.product_id AND review.verdict = 'right'
      AND pair.reason = :person AND pair.post_id = ANY(:post_ids)
    """


def write_outcomes(
    connection: Connection, labelling: Labelling, job_id: uuid.UUID, outcomes: Sequence[PostOutcome]
) -> list[PostOutcome]:
    """Store outcomes; returns them as they are stored. Posts that changed or were deleted meanwhile are left out.

    Args:
        connection: the transaction; the lock is held until it ends.
        labelling: by what they came.
        job_id: noted with each.
        outcomes: of any posts, none twice.
    """
    take_lock(connection, LOCK)
    live = _live(connection, outcomes)
    settled = _without_copies(connection, labelling, [one for one in outcomes if one.post.post_id in live])
    now = connection.scalars(select(func.now())).one()
    models = (labelling.detector, labelling.classifier)
    rows = [(*models, *_labelled_row(labelling, one), job_id, now) for one in settled]
    key = ("detector_version_id", "classifier_version_id", "post_id")
    copy_upsert(connection, LabelledPost.__table__, _LABELLED_COLUMNS, rows, key=key)  # type: ignore[arg-type] # declared as FromClause
    post_ids = [one.post.post_id for one in settled]
    connection.execute(
        delete(TrainingPair).where(
            TrainingPair.detector_version_id == labelling.detector,
            TrainingPair.classifier_version_id == labelling.classifier,
            among(TrainingPair.post_id, post_ids),
        )
    )
    pairs = ((*models, *row, job_id) for one in settled for row in _pair_rows(one))
    copy_rows(connection, TrainingPair.__tablename__, _PAIR_COLUMNS, pairs)
    apply_reviews(connection, post_ids)
    return settled


def apply_reviews(connection: Connection, post_ids: Sequence[str]) -> None:
    """Pairs of some posts are as people decided, whatever the models; who calls has the lock."""
    values = {"post_ids": list(post_ids), "person": PERSON}
    connection.execute(text(_REJECTED_BY_PERSON), values)
    connection.execute(text(_TAKEN_BACK), values)


def counters(outcomes: Iterable[PostOutcome]) -> dict[str, int]:
    """``posts_kept`` and ``pairs_kept``, and ``posts_`` and ``pairs_`` with each reason why others are not."""
    found: Counter[str] = Counter()
    for one in outcomes:
        if one.failure is None:
            found[f"posts_{one.reason or 'kept'}"] += 1
        found.update(f"pairs_{pair.reason or 'kept'}" for pair in one.pairs)
    return dict(found)


def _live(connection: Connection, outcomes: Sequence[PostOutcome]) -> set[str]:
    """Posts that are as they were read. They stay until the commit."""
    hashes = {one.post.post_id: one.post.content_hash() for one in outcomes}
    query = select(Post.post_id, Post.content_hash).where(among(Post.post_id, hashes)).order_by(Post.post_id)
    rows = connection.execute(query.with_for_update(read=True, key_share=True))
    return {row.post_id for row in rows if bytes(row.content_hash) == hashes[row.post_id]}


def _without_copies(connection: Connection, labelling: Labelling, outcomes: Sequence[PostOutcome]) -> list[PostOutcome]:
    """Of posts with nearly the same photo one stays, the one that was there before if there is one."""
    post_ids = [one.post.post_id for one in outcomes]
    kept = {one.post.post_id: one.photo_hash for one in outcomes if one.state == "kept" and one.photo_hash is not None}
    if labelling.distance is None or not kept:
        return list(outcomes)
    same = same_photos(connection, labelling, kept, but_not=post_ids)
    there_before = set(connection.scalars(
        select(LabelledPost.post_id).where(
            LabelledPost.detector_version_id == labelling.detector,
            LabelledPost.classifier_version_id == labelling.classifier,
            LabelledPost.state == "kept",
            among(LabelledPost.post_id, post_ids),
        )
    ))  # fmt: skip
    first: list[tuple[str, int]] = []
    for post_id in sorted(kept, key=lambda one: one not in there_before):
        if post_id not in same:
            same |= nearest_photos({post_id: kept[post_id]}, first, labelling.distance)
        if post_id not in same:
            first.append((post_id, kept[post_id]))
    return [one.as_copy_of(same[one.post.post_id]) if one.post.post_id in same else one for one in outcomes]


def _labelled_row(labelling: Labelling, one: PostOutcome) -> tuple[Any, ...]:
    reason = one.failure.code if one.failure else one.reason
    found_by = None if one.state != "kept" or one.photo_hash is None else bands(one.photo_hash)
    return (
        one.post.post_id, one.state, reason, one.same_as, one.photo_hash, found_by,
        list(one.photo_size) if one.photo_size else None, one.garments, sum(pair.reason is None for pair in one.pairs),
        hashlib.sha256(one.post.content_hash() + labelling.rules).digest() if one.is_final else None,
    )  # fmt: skip


def _pair_rows(one: PostOutcome) -> Iterable[tuple[Any, ...]]:
    for pair in one.pairs:
        garment, thumbnail = pair.garment, pair.thumbnail
        yield (
            one.post.post_id, pair.product.product_id, one.post.photo, list(garment.box) if garment else None,
            pair.product.thumbnail, thumbnail.label if thumbnail else None, garment.score if garment else None,
            thumbnail.probability if thumbnail else None, "kept" if pair.reason is None else "rejected", pair.reason,
        )  # fmt: skip
