"""What becomes of one plan: the places of its pictures by their scores, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shopvision.selection.results import PlanOutcome, RankedPlace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images.outcome import Failed
    from shopvision.selection.plan_methods import Scorer
    from shopvision.selection.store import PlanInput, Scope

PASSING = ("unavailable", "timeout")  # failures that may be over tomorrow although nothing changes here


def plan_outcome(plan: PlanInput, scorer: Scorer, failed: Mapping[int, Failed], scope: Scope) -> PlanOutcome:
    """One plan's ranking, or why it has none.

    Args:
        plan: as it was read.
        scorer: gives the scores of pictures.
        failed: pictures that cannot be read now; what an old vector says of them does not count.
        scope: how many places are kept, and how many candidates it takes.
    """
    readable = ~np.isin(plan.image_ids, list(failed))
    image_ids = plan.image_ids[readable]
    unreadable = sorted([*plan.image_ids[~readable].tolist(), *plan.without_vector])
    reasons = [failed[image_id] for image_id in unreadable]
    if plan.candidates == 0:
        nothing = " and the library holds none that shows what its text says" if scope.library else ""
        return plan_failure(
            plan, "no_candidates", f"None of its items has a picture in the catalogue{nothing}: import them."
        )
    if len(image_ids) == 0:
        first = f"{len(reasons)} in all, the first: {reasons[0].code}: {reasons[0].message}"
        return plan_failure(plan, "no_readable_candidates", f"None of its pictures can be read ({first})", reasons)
    if len(image_ids) < scope.min_candidates:
        return plan_failure(
            plan,
            "too_few_candidates",
            f"It has {len(image_ids)} readable pictures, fewer than min_candidates={scope.min_candidates}.",
            reasons,
        )
    scores = scorer(plan.vectors[readable].astype(np.float32))
    ranking = [
        RankedPlace(*place, plan.found[place[0]].score if place[0] in plan.found else None)
        for place in ranking_of(image_ids, scores, scope.top_k, scope.bottom_k)
    ]
    return PlanOutcome(
        plan.plan_id, plan.read_at, _kept_hash(plan, reasons), plan.candidates, len(plan.found), ranking,
        as_json(reasons),
    )  # fmt: skip


def plan_failure(plan: PlanInput, code: str, message: str, unreadable: Sequence[Failed] = ()) -> PlanOutcome:
    """A plan without a ranking, and why."""
    return PlanOutcome(
        plan.plan_id,
        plan.read_at,
        _kept_hash(plan, unreadable),
        plan.candidates,
        len(plan.found),
        unreadable=as_json(unreadable),
        failure=(code, message),
    )


def _kept_hash(plan: PlanInput, unreadable: Sequence[Failed]) -> bytes | None:
    return None if any(one.code in PASSING for one in unreadable) else plan.input_hash


def as_json(unreadable: Sequence[Failed]) -> list[dict[str, object]]:
    """Pictures that cannot be read, as they are stored."""
    return [{"image_id": one.image_id, "code": one.code, "message": one.message} for one in unreadable]


def ranking_of(
    image_ids: NDArray[np.int64], scores: NDArray[np.float32], top_k: int, bottom_k: int
) -> list[tuple[int, int, float]]:
    """(image_id, rank from 1, score) of the ``top_k`` best and the ``bottom_k`` worst; equal scores by id."""
    order = np.lexsort((image_ids, -scores))
    places = [*range(min(top_k, len(order))), *range(max(top_k, len(order) - bottom_k), len(order))]
    return [(int(image_ids[order[place]]), place + 1, float(scores[order[place]])) for place in places]
