"""Rankings of model versions that serve nothing."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select

from shopvision.database.batches import delete_in_batches
from shopvision.models.superseded import superseded_versions
from shopvision.selection.tables import PlanRankingState
from shopvision.settings import get_settings

BATCH_PLANS = 200  # with some fifty rankings each


def prune() -> dict[str, int]:
    """Delete what is older than ``keep_superseded_days``."""
    long_ago = func.now() - timedelta(days=get_settings().keep_superseded_days)
    deleted = 0
    for version in superseded_versions():
        old = (
            select(PlanRankingState.plan_id)
            .where(PlanRankingState.model_version_id == version, PlanRankingState.ranked_at < long_ago)
            .order_by(PlanRankingState.ranked_at)
            .limit(BATCH_PLANS)
        )
        deleted += delete_in_batches(
            delete(PlanRankingState).where(
                PlanRankingState.model_version_id == version, PlanRankingState.plan_id.in_(old)
            )
        )
    return {"plan_ranking_states": deleted}
