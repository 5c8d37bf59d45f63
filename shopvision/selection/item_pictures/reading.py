"""The selections that are stored: of one item, of one job, or all of one pair of models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.orm import aliased

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.models.tables import ModelVersion
from shopvision.reports.row_writer import Kind, record_writer
from shopvision.selection.item_pictures.tables import ImageSelection, ImageSelectionState

ROWS_AT_ONCE = 5_000
SAME_SELECTION = and_(
    ImageSelectionState.item_id == ImageSelection.item_id,
    ImageSelectionState.model_version_id == ImageSelection.model_version_id,
    ImageSelectionState.recall_version_id == ImageSelection.recall_version_id,
)
_COLUMNS: dict[str, Kind] = {
    "item_id": "string", "rank": "int32", "image_id": "string", "uri": "string", "source": "string",
    "from_item_id": "string", "recall_score": "float32", "click_score": "float32", "is_new_top": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class SelectionHistory:
    """What one pair of models last made of an item.

    Attributes:
        model: ``name:tag`` of what ordered the pictures.
        recall: likewise of the recall model.
        is_new_top: whether another picture led before the newest selection.
        pictures: the best first: image_id, rank, scores, source, stands_for, uri and whose they are.
    """

    model: str
    recall: str
    selected_at: datetime
    text: str
    candidates: int
    found: int
    repeated: int
    unreadable: int
    is_new_top: bool
    previous_top_image_id: int | None
    pictures: list[dict[str, Any]]


def selections_of(item_id: str) -> list[SelectionHistory]:
    """An item's selections by every pair of models, the newest first.

    Raises:
        UserError: there is no such item, or nothing was selected for it yet.
    """
    state, ordering, recall = ImageSelectionState.__table__.c, aliased(ModelVersion), aliased(ModelVersion)
    with connect() as connection:
        rows = connection.execute(
            select(
                *state, (ordering.name + ":" + ordering.tag).label("model"),
                (recall.name + ":" + recall.tag).label("recall"),
            )
            .join(ordering, ordering.model_version_id == state.model_version_id)
            .join(recall, recall.model_version_id == state.recall_version_id)
            .where(state.item_id == item_id)
            .order_by(state.selected_at.desc())
        ).all()  # fmt: skip
        if not rows:
            known = connection.scalar(select(Item.item_id).where(Item.item_id == item_id))
            mend = "`shopvision jobs submit select_images --wait` does it" if known else "check the id"
            what = "No picture was selected for item" if known else "There is no item"
            raise UserError(f"{what} {item_id!r}: {mend}.")
        pictures = connection.execute(
            select(*ImageSelection.__table__.c, ItemImage.uri, ItemImage.item_id.label("from_item_id"))
            .join(ItemImage, ItemImage.image_id == ImageSelection.image_id)
            .where(ImageSelection.item_id == item_id)
            .order_by(ImageSelection.rank)
        ).all()
    by_models: dict[tuple[int, int], list[dict[str, Any]]] = {}
    shown = ("rank", "image_id", "recall_score", "click_score", "source", "stands_for", "uri", "from_item_id")
    for row in pictures:
        by_models.setdefault((row.model_version_id, row.recall_version_id), []).append(
            {name: getattr(row, name) for name in shown}
        )
    return [
        SelectionHistory(
            row.model, row.recall, row.selected_at, row.recall_text, row.candidates, row.found, row.repeated,
            row.unreadable, row.top_changed_at is not None and row.top_changed_at == row.selected_at,
            row.previous_top_image_id, by_models.get((row.model_version_id, row.recall_version_id), []),
        )
        for row in rows
    ]  # fmt: skip


def export_selections(output: Path, model: int, recall: int) -> int:
    """Write the pictures that one pair of models selected, a row each; returns how many.

    Args:
        output: ``.jsonl``, ``.csv`` or ``.parquet``.
        model: id of the version that ordered them.
        recall: id of the recall model's version.

    Raises:
        UserError: unknown format, or the file cannot be written.
    """
    count = 0
    with record_writer(output, _COLUMNS) as write:
        for part in _exported(model, recall):
            write(part)
            count += len(part)
    return count


def _exported(model: int, recall: int) -> Iterator[list[tuple[Any, ...]]]:
    is_new = ImageSelectionState.top_changed_at == ImageSelectionState.selected_at
    query = (
        select(
            ImageSelection.item_id, ImageSelection.rank, ImageSelection.image_id, ItemImage.uri, ImageSelection.source,
            ItemImage.item_id.label("from_item_id"), ImageSelection.recall_score, ImageSelection.click_score,
            (is_new.is_(True) & (ImageSelection.rank == 1)).label("is_new_top"),
        )
        .join(ImageSelectionState, SAME_SELECTION)
        .join(ItemImage, ItemImage.image_id == ImageSelection.image_id)
        .where(ImageSelection.model_version_id == model, ImageSelection.recall_version_id == recall)
        .order_by(ImageSelection.item_id, ImageSelection.rank)
    )  # fmt: skip
    with connect() as connection, connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query) as result:
        for part in result.partitions():
            yield [(row.item_id, row.rank, str(row.image_id), *row[3:]) for row in part]
