"""old rows of superseded model versions are found by index."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

AGES = {
    "pair_scores": "scored_at",
    "item_vectors": "computed_at",
    "embeddings": "embedded_at",
    "plan_ranking_states": "ranked_at",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for table, age in AGES.items():
            op.create_index(
                f"ix_{table}_model_version_id_{age}",
                table,
                ["model_version_id", age],
                postgresql_concurrently=True,
                if_not_exists=True,
            )


def downgrade() -> None:
    for table, age in AGES.items():
        op.drop_index(f"ix_{table}_model_version_id_{age}", table, if_exists=True)
