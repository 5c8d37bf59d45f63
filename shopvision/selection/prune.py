"""Rankings of model versions that serve nothing."""

from __future__ import annotations

from shopvision.models.superseded import delete_old_rows, superseded_versions
from shopvision.selection.tables import PlanRankingState

PLANS_AT_ONCE = 200  # with some fifty rankings each


def prune() -> dict[str, int]:
    """Delete what is older than ``keep_superseded_days``."""
    state = PlanRankingState
    deleted = sum(
        delete_old_rows(version, state.plan_id, state.ranked_at, at_once=PLANS_AT_ONCE)
        for version in superseded_versions()
    )
    return {"plan_ranking_states": deleted}
