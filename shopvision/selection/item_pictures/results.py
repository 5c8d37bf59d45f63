"""Writing what became of items: their pictures, and the state that tells whether they are due again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, case, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import among, copy_rows
from shopvision.selection.item_pictures.choosing import SelectedPicture
from shopvision.selection.item_pictures.store import Scope
from shopvision.selection.item_pictures.tables import ImageSelection, ImageSelectionState

UNREADABLE_KEPT = 20  # named in the item's state

_COLUMNS = (
    ("item_id", "text"), ("model_version_id", "int8"), ("recall_version_id", "int8"), ("image_id", "int8"),
    ("rank", "int4"), ("recall_score", "float4"), ("click_score", "float4"), ("source", "text"),
    ("stands_for", "int8[]"), ("job_id", "uuid"),
)  # fmt: skip
_KEY = ("item_id", "model_version_id", "recall_version_id")


@dataclass(frozen=True)
class ItemOutcome:
    """What became of one item: pictures, or the reason why there are none.

    Attributes:
        input_hash: None where the item is to be tried again although nothing changes.
        text: what pictures were compared with.
        candidates: pictures that were looked at.
        found: of them, those of the library.
        repeated: of them, those that are nearly the same as a better one.
        pictures: the best first.
        unreadable: candidates that could not be embedded: {image_id, code, message}.
        failure: (code, message) where there are no ``pictures``.
    """

    item_id: str
    read_at: datetime
    input_hash: bytes | None
    text: str
    candidates: int = 0
    found: int = 0
    repeated: int = 0
    pictures: list[SelectedPicture] = field(default_factory=list)
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    failure: tuple[str, str] | None = None


def write_outcomes(connection: Connection, scope: Scope, job_id: uuid.UUID, outcomes: Sequence[ItemOutcome]) -> int:
    """Replace the items' pictures, in the caller's transaction. Returns how many got another leading one.

    Items and pictures that were deleted meanwhile are left out, and so are items of which something newer was read and
    written meanwhile.
    """
    item_ids, image_ids = _lock(connection, outcomes)
    live = [one for one in outcomes if one.item_id in item_ids]
    if not live:
        return 0
    written = _write_states(connection, scope, job_id, live)
    connection.execute(
        delete(ImageSelection).where(
            ImageSelection.model_version_id == scope.model,
            ImageSelection.recall_version_id == scope.recall,
            among(ImageSelection.item_id, written),
        )
    )
    rows = (
        (
            one.item_id, scope.model, scope.recall, picture.image_id, picture.rank, picture.recall_score,
            picture.click_score, picture.source, list(picture.stands_for), job_id,
        )
        for one in live
        if one.item_id in written
        for picture in one.pictures
        if picture.image_id in image_ids
    )  # fmt: skip
    copy_rows(connection, ImageSelection.__tablename__, _COLUMNS, rows)
    return sum(written.values())


def _lock(connection: Connection, outcomes: Sequence[ItemOutcome]) -> tuple[set[str], set[int]]:
    """The items and pictures of ``outcomes`` that exist, and will until the commit; in order, against deadlocks."""
    wanted = {picture.image_id for one in outcomes for picture in one.pictures}
    items = select(Item.item_id).where(among(Item.item_id, [one.item_id for one in outcomes])).order_by(Item.item_id)
    images = select(ItemImage.image_id).where(among(ItemImage.image_id, wanted)).order_by(ItemImage.image_id)
    return (
        set(connection.scalars(items.with_for_update(read=True, key_share=True))),
        set(connection.scalars(images.with_for_update(read=True, key_share=True))),
    )


def _write_states(
    connection: Connection, scope: Scope, job_id: uuid.UUID, outcomes: Sequence[ItemOutcome]
) -> dict[str, bool]:
    """Upsert the states; returns item_id -> whether its leading picture changed, for those that were written."""
    rows = [
        {
            "item_id": one.item_id,
            "model_version_id": scope.model,
            "recall_version_id": scope.recall,
            "input_hash": one.input_hash,
            "job_id": job_id,
            "selected_at": one.read_at,
            "recall_text": one.text,
            "candidates": one.candidates,
            "found": one.found,
            "repeated": one.repeated,
            "unreadable": len(one.unreadable),
            "unreadable_pictures": one.unreadable[:UNREADABLE_KEPT],
            "top_image_id": one.pictures[0].image_id if one.pictures else None,
        }
        for one in sorted(outcomes, key=lambda one: one.item_id)
    ]
    statement = insert(ImageSelectionState).values(rows)
    old, new = ImageSelectionState, statement.excluded
    # An item that could not be looked at for a while is compared with its last leading picture.
    former = func.coalesce(old.top_image_id, old.previous_top_image_id)
    changed = former != new.top_image_id
    replaced = {name: new[name] for name in rows[0] if name not in {*_KEY, "top_image_id"}}
    found = connection.execute(
        statement.on_conflict_do_update(
            index_elements=_KEY,
            set_={
                **replaced,
                "top_image_id": new.top_image_id,
                "previous_top_image_id": case(
                    (changed | new.top_image_id.is_(None), former), else_=old.previous_top_image_id
                ),
                "top_changed_at": case((changed, new.selected_at), else_=old.top_changed_at),
            },
            where=old.selected_at <= new.selected_at,
        ).returning(old.item_id, func.coalesce(old.top_changed_at == old.selected_at, False))
    )
    return dict(found.all())
