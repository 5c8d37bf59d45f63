"""A page for merchandisers: items with the pictures that represent them best, and why."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect, snapshot
from shopvision.errors import UserError
from shopvision.reports import render_page
from shopvision.selection.item_pictures.reading import SAME_SELECTION
from shopvision.selection.item_pictures.tables import ImageSelection, ImageSelectionState
from shopvision.selection.report import RankedPicture

BEST = 6
MOST_ITEMS = 500
SOURCES = {"own": "its own", "category": "of the same category", "library": "found in the library"}


@dataclass
class RepresentedItem:
    """An item as the page shows it.

    Attributes:
        description: the text that pictures were compared with.
        candidates: how many pictures it could choose from, the ``unreadable`` ones included.
        found: of them, how many came from other items.
        is_new_top: whether another picture led until this job.
        former: that picture, where it is still in the catalogue.
    """

    item_id: str
    heading: str
    details: list[str]
    description: str
    candidates: int
    found: int
    unreadable: int
    unreadable_pictures: list[dict[str, Any]]
    is_new_top: bool
    former: RankedPicture | None = None
    best: list[RankedPicture] = field(default_factory=list)
    worst: list[RankedPicture] = field(default_factory=list)
    keywords: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What the page's filter looks through."""
        marks = ["new top picture"] if self.is_new_top else []
        sources = {reason for picture in self.best for reason in picture.reasons[-1:]}
        return " ".join([self.heading, self.item_id, *self.details, self.description, *marks, *sorted(sources)]).lower()


def items_of(job_id: uuid.UUID, *, best: int = BEST, most: int = MOST_ITEMS) -> list[RepresentedItem]:
    """Items whose pictures this job selected and no later one, those with a new leading picture first, then by title.

    Args:
        job_id: of the job.
        best: so many pictures of each.
        most: so many items at most.

    Raises:
        UserError: there is none.
    """
    state = ImageSelectionState.__table__.c
    # One moment, because an item may be looked at or deleted between two statements.
    with snapshot() as connection:
        rows = connection.execute(
            select(*state, Item.title, Item.brand, Item.category)
            .join(Item, Item.item_id == state.item_id)
            .where(state.job_id == job_id, state.top_image_id.is_not(None))
            .order_by((state.top_changed_at == state.selected_at).is_(True).desc(), Item.title, state.item_id)
            .limit(most)
        ).all()
        if not rows:
            raise UserError(
                f"No item bears the selection of job {job_id}: it selected for none, or each was looked at again "
                "since. `shopvision selections report --latest` shows the newest."
            )
        wanted = [row.item_id for row in rows]
        places = connection.execute(
            select(
                ImageSelection.item_id.label("for_item"), *_PICTURE, ImageSelection.rank, ImageSelection.recall_score,
                ImageSelection.click_score, ImageSelection.source, ImageSelection.stands_for,
            )
            .join(ImageSelectionState, SAME_SELECTION)
            .join(ItemImage, ItemImage.image_id == ImageSelection.image_id)
            .join(Item, Item.item_id == ItemImage.item_id)
            .where(
                ImageSelectionState.job_id == job_id, ImageSelection.item_id.in_(wanted), ImageSelection.rank <= best
            )
            .order_by(ImageSelection.item_id, ImageSelection.rank)
        ).all()  # fmt: skip
        changed = [row.previous_top_image_id for row in rows if row.top_changed_at == row.selected_at]
        former = {
            row.image_id: RankedPicture(*row)
            for row in connection.execute(
                select(*_PICTURE).join(Item, Item.item_id == ItemImage.item_id).where(ItemImage.image_id.in_(changed))
            )
        }
    shown = {row.item_id: _represented(row, former) for row in rows}
    for place in places:
        score = place.recall_score if place.click_score is None else place.click_score
        shown[place.for_item].best.append(
            RankedPicture(place.image_id, place.item_id, place.title, place.uri, place.rank, score, _reasons(place))
        )
    return list(shown.values())


_PICTURE = (ItemImage.image_id, Item.item_id, Item.title, ItemImage.uri)


def _represented(row: Any, former: dict[int, RankedPicture]) -> RepresentedItem:
    is_new = row.top_changed_at is not None and row.top_changed_at == row.selected_at
    details = [part for part in (row.brand, row.category, row.item_id) if part]
    return RepresentedItem(
        row.item_id, row.title or row.item_id, details, "" if row.recall_text == row.title else row.recall_text,
        row.candidates, row.found, row.unreadable, row.unreadable_pictures, is_new,
        former.get(row.previous_top_image_id) if is_new else None,
    )  # fmt: skip


def _reasons(place: Any) -> tuple[str, ...]:
    """Why a picture stands where it does."""
    reasons = [f"shows the words {place.recall_score:.3f}"]
    if place.click_score is not None:
        reasons.insert(0, f"expected clicks {place.click_score:+.2f}")
    if place.stands_for:
        reasons.append(f"stands for {len(place.stands_for)} more")
    return (*reasons, SOURCES[place.source])


def count_items(job_id: uuid.UUID) -> int:
    """How many items bear the selection of a job."""
    query = select(func.count()).where(
        ImageSelectionState.job_id == job_id, ImageSelectionState.top_image_id.is_not(None)
    )
    with connect() as connection:
        return connection.scalar(query) or 0


def write_report(
    output: Path,
    items: Sequence[RepresentedItem],
    *,
    facts: Sequence[tuple[str, str]] = (),
    failures: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the page, with its pictures inside.

    Args:
        output: the HTML file.
        items: from ``items_of``.
        facts: (name, value) pairs shown on top.
        failures: ``item_key``, ``code`` and ``message`` of items without pictures.

    Raises:
        UserError: the file cannot be written.
    """
    shown = {
        picture.image_id: picture.uri
        for item in items
        for picture in (*item.best, *([item.former] if item.former else []))
    }
    render_page(
        "chosen_pictures.html",
        output,
        shown,
        title="Pictures that represent items",
        subtitle="Each item with the pictures that represent it best, with their scores and where they come from.",
        facts=[
            ("items shown", f"{len(items):,}"),
            ("with a new top picture", f"{sum(item.is_new_top for item in items):,}"),
            *facts,
        ],
        rows=items,
        best="Represent it best",
        worst="",
        failed=("Items without pictures", "Item"),
        failures=failures,
    )
