"""What the ranking job reads in Postgres, and the vectors it shares among pictures.

The pictures of a plan (its candidates) are those of its member items that are in the catalogue. Their vectors stand in
``embeddings`` under the ranker's model version, so a picture is embedded once, in however many plans it is. What the
catalogue's encoder last saw of a picture (its sha256) tells whether the ranker's vector is still that of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import text

from shopvision.database import connect

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_GROUP = 20_000  # candidates whose vectors are read at once: 5 MB at 128 dimensions

# Joined to each picture: the vector of the ranker itself, and what the catalogue's encoder has seen. That may have
# vectors of several regions, all from the same bytes: the first row of a picture tells. (Planned as an anti join.)
_OWN = """
    LEFT JOIN embeddings AS own
        ON own.image_id = image.image_id AND own.model_version_id = :version AND own.region = 0
    """
_SEEN = """
    JOIN embeddings AS seen ON seen.image_id = image.image_id
        AND seen.model_version_id = (SELECT model_version_id FROM model_roles WHERE role = 'catalogue_encoder')
        AND NOT EXISTS (
            SELECT FROM embeddings AS earlier
            WHERE earlier.model_version_id = seen.model_version_id AND earlier.image_id = seen.image_id
                AND earlier.region < seen.region)
    """
_CANDIDATES = f"""
    FROM plan_items AS member
    JOIN item_images AS image ON image.item_id = member.item_id AND (:all_pictures OR image.position = 0)
    {_OWN} LEFT {_SEEN}
    """
_PICTURES = """string_agg(int8send(image.image_id) || coalesce(seen.image_sha256, own.image_sha256, '\\x00'::bytea),
                          ''::bytea ORDER BY image.image_id)"""
_INPUT_HASH = "sha256(plan.content_hash || convert_to(:options, 'UTF8') || coalesce(candidates.pictures, ''::bytea))"

_DUE_PLANS = f"""
    SELECT plan.plan_id FROM plans AS plan
    LEFT JOIN (SELECT member.plan_id, {_PICTURES} AS pictures {_CANDIDATES} GROUP BY member.plan_id) AS candidates
        ON candidates.plan_id = plan.plan_id
    LEFT JOIN plan_ranking_states AS state ON state.plan_id = plan.plan_id AND state.model_version_id = :version
    WHERE state.input_hash IS DISTINCT FROM {_INPUT_HASH}
    ORDER BY plan.plan_id
    """  # noqa: S608 - our own fragments

_COUNTS = f"""
    SELECT member.plan_id, count(*) {_CANDIDATES} WHERE member.plan_id = ANY(:plan_ids) GROUP BY member.plan_id
    """

_STALE_PICTURES = f"""
    SELECT DISTINCT image.image_id, seen.image_sha256 {_CANDIDATES}
    WHERE member.plan_id = ANY(:plan_ids) AND (own.image_id IS NULL OR own.image_sha256 <> seen.image_sha256)
    ORDER BY image.image_id
    """

_STILL_STALE = f"""
    SELECT image.image_id FROM item_images AS image {_OWN} LEFT {_SEEN}
    WHERE image.image_id = ANY(:image_ids) AND (own.image_id IS NULL OR own.image_sha256 <> seen.image_sha256)
    """  # noqa: S608 - our own fragments

# The lock keeps the pictures in place until the commit.
_SHARE_VECTORS = f"""
    INSERT INTO embeddings (model_version_id, image_id, image_sha256, source_fingerprint, vector, precision)
    SELECT :version, seen.image_id, seen.image_sha256, seen.source_fingerprint, same.vector, same.precision
    FROM (SELECT image_id FROM item_images WHERE image_id = ANY(:image_ids) ORDER BY image_id FOR KEY SHARE) AS image
    {_SEEN}
    CROSS JOIN LATERAL (
        SELECT vector, precision FROM embeddings AS own
        WHERE own.model_version_id = :version AND own.image_sha256 = seen.image_sha256 AND own.region = 0
        LIMIT 1) AS same
    ORDER BY image.image_id
    ON CONFLICT (model_version_id, image_id, region) DO UPDATE SET
        image_sha256 = excluded.image_sha256, source_fingerprint = excluded.source_fingerprint,
        vector = excluded.vector, precision = excluded.precision, embedded_at = now()
    """  # noqa: S608 - our own fragments

# One statement, so that plan, candidates, vectors and the hash of them all are of one moment.
_INPUTS = f"""
    SELECT plan.plan_id, plan.name, plan.description, plan.date, plan.cat1, plan.cat2, plan.cat3, plan.cat4,
           plan.keywords, now() AS read_at, {_INPUT_HASH} AS input_hash,
           candidates.ids, candidates.vectors, candidates.without_vector
    FROM plans AS plan
    LEFT JOIN (
        SELECT member.plan_id, {_PICTURES} AS pictures,
               string_agg(int8send(image.image_id), ''::bytea ORDER BY image.image_id)
                   FILTER (WHERE own.image_id IS NOT NULL) AS ids,
               string_agg(own.vector, ''::bytea ORDER BY image.image_id) AS vectors,
               array_agg(image.image_id) FILTER (WHERE own.image_id IS NULL) AS without_vector
        {_CANDIDATES} WHERE member.plan_id = ANY(:plan_ids) GROUP BY member.plan_id) AS candidates
        ON candidates.plan_id = plan.plan_id
    WHERE plan.plan_id = ANY(:plan_ids)
    ORDER BY plan.plan_id
    """  # noqa: S608 - our own fragments


@dataclass(frozen=True)
class Scope:
    """What a ranking depends on beside the plan: the model version, and the job's parameters."""

    model_version_id: int
    all_pictures: bool = False
    top_k: int = 50
    bottom_k: int = 5
    min_candidates: int = 1

    def sql(self, **values: Any) -> dict[str, Any]:
        """Parameters of the statements of this module."""
        options = f"{self.all_pictures} {self.top_k} {self.bottom_k} {self.min_candidates}"
        return {
            "version": self.model_version_id,
            "all_pictures": self.all_pictures,
            "options": options,
            **values,
        }


@dataclass(frozen=True)
class PlanInput:
    """A plan as it was at ``read_at``, with its candidates.

    Attributes:
        topic: the plan's words, by slot of ``shopvision.selection.topic.Topic``.
        input_hash: sha256 over all that the ranking depends on.
        image_ids: (n,) int64, ascending: candidates that have a vector.
        vectors: (n, h) float16 of unit length.
        without_vector: the other candidates.
    """

    plan_id: str
    topic: dict[str, Any]
    read_at: datetime
    input_hash: bytes
    image_ids: NDArray[np.int64]
    vectors: NDArray[np.float16]
    without_vector: list[int]

    @property
    def candidates(self) -> int:
        """How many pictures the plan's items have."""
        return len(self.image_ids) + len(self.without_vector)


def plans_to_rank(scope: Scope, *, only_changed: bool) -> Iterator[str]:
    """Ids of every plan, or of those whose inputs differ from what was last ranked; streamed."""
    query = _DUE_PLANS if only_changed else "SELECT plan_id FROM plans ORDER BY plan_id"
    values = scope.sql() if only_changed else {}
    with (
        connect() as connection,
        connection.execute(text(query), values, execution_options={"yield_per": 5000}) as rows,
    ):
        yield from rows.scalars()


def in_groups(scope: Scope, plan_ids: Sequence[str]) -> list[list[str]]:
    """``plan_ids`` in order, cut so that a group has at most ``LARGEST_GROUP`` candidates, or one plan."""
    with connect() as connection:
        counts: dict[str, int] = dict(connection.execute(text(_COUNTS), scope.sql(plan_ids=list(plan_ids))).all())
    groups: list[list[str]] = []
    room = 0
    for plan_id in plan_ids:
        room -= counts.get(plan_id, 0)
        if not groups or room < 0:
            groups.append([])
            room = LARGEST_GROUP - counts.get(plan_id, 0)
        groups[-1].append(plan_id)
    return groups


def stale_pictures(scope: Scope, plan_ids: Sequence[str]) -> dict[int, bytes | None]:
    """Candidates without a vector of what they look like now: image_id -> sha256, None where nobody knows it."""
    with connect() as connection:
        rows = connection.execute(text(_STALE_PICTURES), scope.sql(plan_ids=list(plan_ids)))
        return {image_id: None if sha256 is None else bytes(sha256) for image_id, sha256 in rows}


def still_stale(scope: Scope, image_ids: Sequence[int]) -> list[int]:
    """Those of some pictures that nobody else has embedded meanwhile."""
    with connect() as connection:
        return list(connection.scalars(text(_STILL_STALE), scope.sql(image_ids=list(image_ids))))


def share_vectors(scope: Scope, image_ids: Sequence[int]) -> int:
    """Give pictures the vector of others with the same bytes, where there is one. Returns how many got one."""
    with connect() as connection:
        return connection.execute(text(_SHARE_VECTORS), scope.sql(image_ids=sorted(image_ids))).rowcount


def read_inputs(scope: Scope, plan_ids: Sequence[str]) -> list[PlanInput]:
    """The plans that still exist, by id."""
    with connect() as connection:
        rows = connection.execute(text(_INPUTS), scope.sql(plan_ids=list(plan_ids))).all()
    return [_plan_input(row) for row in rows]


def _plan_input(row: Any) -> PlanInput:
    image_ids = np.frombuffer(row.ids or b"", ">i8").astype(np.int64)
    vectors = np.frombuffer(row.vectors or b"", "<f2").reshape(len(image_ids), -1 if len(image_ids) else 0)
    topic = {slot: getattr(row, slot) for slot in ("name", "date", "cat1", "cat2", "cat3", "cat4")}
    topic |= {"desc": row.description, "kwds": row.keywords}
    return PlanInput(
        row.plan_id, topic, row.read_at, bytes(row.input_hash), image_ids, vectors, row.without_vector or []
    )
