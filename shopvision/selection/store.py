"""What the ranking job reads in Postgres.

The pictures of a plan (its candidates) are those of its member items that are in the catalogue, and those that the
library was found to hold for its text. Their vectors are read as ``picture_vectors`` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import text

from shopvision.database import connect
from shopvision.selection.picture_vectors import MARK, OWN, SEEN
from shopvision.selection.plan_dates import quarter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.selection.library import FoundPicture

LARGEST_GROUP = 20_000  # candidates whose vectors are read at once: 5 MB at 128 dimensions

_MEMBERS = """
    FROM plan_items AS member
    JOIN item_images AS image ON image.item_id = member.item_id AND (:all_pictures OR image.position = 0)
    """
_CANDIDATES = f"{_MEMBERS} {OWN} LEFT {SEEN}"
_PICTURES = f"string_agg({MARK}, ''::bytea ORDER BY image.image_id)"
# Of a plan that looks at the library, what that holds counts too; of one without a date, what season it is given.
_OPTIONS = """
    :options || CASE WHEN :every_plan OR candidates.pictures IS NULL THEN :library ELSE '' END
             || CASE WHEN coalesce(plan.date, '') = '' THEN :season ELSE '' END
    """
_INPUT_HASH = f"sha256(plan.content_hash || convert_to({_OPTIONS}, 'UTF8') || coalesce(candidates.pictures, ''::bytea))"

_DUE_PLANS = f"""
    SELECT plan.plan_id FROM plans AS plan
    LEFT JOIN (SELECT member.plan_id, {_PICTURES} AS pictures {_CANDIDATES} GROUP BY member.plan_id) AS candidates
        ON candidates.plan_id = plan.plan_id
    LEFT JOIN plan_ranking_states AS state ON state.plan_id = plan.plan_id AND state.model_version_id = :version
    WHERE state.input_hash IS DISTINCT FROM {_INPUT_HASH}
    ORDER BY plan.plan_id
    """  # noqa: S608 - our own fragments

_COUNTS = f"""
    SELECT member.plan_id, count(*) {_MEMBERS} WHERE member.plan_id = ANY(:plan_ids) GROUP BY member.plan_id
    """

_MEMBER_PICTURES = f"""
    SELECT member.plan_id, array_agg(image.image_id) {_MEMBERS}
    WHERE member.plan_id = ANY(:plan_ids) GROUP BY member.plan_id
    """

_TOPICS = """
    SELECT plan_id, name, description, date, cat1, cat2, cat3, cat4, keywords FROM plans
    WHERE plan_id = ANY(:plan_ids) ORDER BY plan_id
    """

# One statement, so that plan, candidates, vectors and the hash of them all are of one moment.
_INPUTS = f"""
    SELECT plan.plan_id, plan.name, plan.description, plan.date, plan.cat1, plan.cat2, plan.cat3, plan.cat4,
           plan.keywords, now() AS read_at, {_INPUT_HASH} AS input_hash,
           candidates.ids, candidates.vectors, candidates.without_vector
    FROM plans AS plan
    LEFT JOIN (
        SELECT member.plan_id, {_PICTURES} FILTER (WHERE member.is_member) AS pictures,
               string_agg(int8send(image.image_id), ''::bytea ORDER BY image.image_id)
                   FILTER (WHERE own.image_id IS NOT NULL) AS ids,
               string_agg(own.vector, ''::bytea ORDER BY image.image_id) AS vectors,
               array_agg(image.image_id) FILTER (WHERE own.image_id IS NULL) AS without_vector
        FROM (
            SELECT member.plan_id, image.image_id, true AS is_member {_MEMBERS}
            WHERE member.plan_id = ANY(:plan_ids)
            UNION ALL
            SELECT *, false FROM unnest(CAST(:found_plans AS text[]), CAST(:found_images AS int8[]))
        ) AS member
        JOIN item_images AS image ON image.image_id = member.image_id
        {OWN} LEFT {SEEN} GROUP BY member.plan_id) AS candidates
        ON candidates.plan_id = plan.plan_id
    WHERE plan.plan_id = ANY(:plan_ids)
    ORDER BY plan.plan_id
    """  # noqa: S608 - our own fragments


@dataclass(frozen=True)
class Scope:
    """What a ranking depends on beside the plan: the model version, and the job's parameters.

    Attributes:
        vectors_version_id: the model version whose vectors of pictures the model reads; by default its own.
        library: what the pictures found in the library depend on beside a plan; empty where none are looked for.
        every_plan: look for them also where a plan's members have pictures.
        undated: the day on which plans without a date are taken to begin; empty where they are not.
    """

    model_version_id: int
    all_pictures: bool = False
    top_k: int = 50
    bottom_k: int = 5
    min_candidates: int = 1
    vectors_version_id: int | None = None
    library: str = ""
    every_plan: bool = False
    undated: str = ""

    @property
    def vectors(self) -> int:
        """The model version whose vectors are read."""
        return self.vectors_version_id or self.model_version_id

    def sql(self, **values: Any) -> dict[str, Any]:
        """Parameters of the statements of this module."""
        options = f"{self.all_pictures} {self.top_k} {self.bottom_k} {self.min_candidates}"
        return {
            "version": self.model_version_id,
            "vectors": self.vectors,
            "all_pictures": self.all_pictures,
            "options": options,
            "library": self.library,
            "every_plan": self.every_plan,
            "season": f" season {quarter(self.undated)}" if self.undated else "",
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
        found: those of the candidates that are no member's, by id.
    """

    plan_id: str
    topic: dict[str, Any]
    read_at: datetime
    input_hash: bytes
    image_ids: NDArray[np.int64]
    vectors: NDArray[np.float16]
    without_vector: list[int]
    found: Mapping[int, FoundPicture] = field(default_factory=dict)

    @property
    def candidates(self) -> int:
        """How many pictures it may choose from."""
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


def member_pictures(scope: Scope, plan_ids: Sequence[str]) -> dict[str, list[int]]:
    """The pictures of some plans' members; plans whose members have none are missing."""
    with connect() as connection:
        return dict(connection.execute(text(_MEMBER_PICTURES), scope.sql(plan_ids=list(plan_ids))).all())


def read_topics(plan_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The words of the plans that still exist, by slot of ``shopvision.selection.topic.Topic``."""
    with connect() as connection:
        return {row.plan_id: _topic(row) for row in connection.execute(text(_TOPICS), {"plan_ids": list(plan_ids)})}


def read_inputs(
    scope: Scope, plan_ids: Sequence[str], found: Mapping[str, Sequence[FoundPicture]] | None = None
) -> list[PlanInput]:
    """The plans that still exist, by id.

    Args:
        scope: which candidates.
        plan_ids: their ids.
        found: of each plan the pictures that were found in the library, none of which is a member's.
    """
    pairs = [(plan_id, one.image_id) for plan_id, pictures in (found or {}).items() for one in pictures]
    values = {"found_plans": [plan_id for plan_id, _ in pairs], "found_images": [image_id for _, image_id in pairs]}
    with connect() as connection:
        rows = connection.execute(text(_INPUTS), scope.sql(plan_ids=list(plan_ids), **values)).all()
    return [_plan_input(row, (found or {}).get(row.plan_id, ())) for row in rows]


def _plan_input(row: Any, found: Sequence[FoundPicture]) -> PlanInput:
    image_ids = np.frombuffer(row.ids or b"", ">i8").astype(np.int64)
    vectors = np.frombuffer(row.vectors or b"", "<f2").reshape(len(image_ids), -1 if len(image_ids) else 0)
    by_id = {one.image_id: one for one in found}
    # One that left the catalogue since it was found is none.
    without = row.without_vector or []
    return PlanInput(row.plan_id, _topic(row), row.read_at, bytes(row.input_hash), image_ids, vectors, without, by_id)


def _topic(row: Any) -> dict[str, Any]:
    topic = {slot: getattr(row, slot) for slot in ("name", "date", "cat1", "cat2", "cat3", "cat4")}
    return topic | {"desc": row.description, "kwds": row.keywords}
