"""what people decided about a pair stays while an item of it is out of the catalogue."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

SIDES = ("left_item_id", "right_item_id")


def upgrade() -> None:
    for side in SIDES:
        op.drop_constraint(f"fk_pair_reviews_{side}", "pair_reviews", type_="foreignkey")


def downgrade() -> None:
    for side in SIDES:
        op.execute(f"DELETE FROM pair_reviews WHERE NOT EXISTS (SELECT FROM items WHERE item_id = {side})")  # noqa: S608 - ours
        op.create_foreign_key(
            op.f(f"fk_pair_reviews_{side}"), "pair_reviews", "items", [side], ["item_id"], ondelete="CASCADE"
        )
