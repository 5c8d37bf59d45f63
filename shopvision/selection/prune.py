"""Rankings, and vectors of entities, of model versions that serve nothing."""

from __future__ import annotations

from shopvision.models.superseded import delete_old_rows, superseded_versions
from shopvision.selection.click.tables import EntityVector
from shopvision.selection.tables import PlanRankingState

PLANS_AT_ONCE = 200  # with some fifty rankings each
ENTITIES_AT_ONCE = 5_000


def prune() -> dict[str, int]:
    """Delete what is older than ``keep_superseded_days``."""
    versions = superseded_versions()
    state, entity = PlanRankingState, EntityVector
    return {
        "plan_ranking_states": sum(
            delete_old_rows(version, state.plan_id, state.ranked_at, at_once=PLANS_AT_ONCE) for version in versions
        ),
        "entity_vectors": sum(
            delete_old_rows(version, entity.name, entity.computed_at, at_once=ENTITIES_AT_ONCE) for version in versions
        ),
    }
