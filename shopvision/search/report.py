"""A page to look at: items with what the index finds most alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.reports import render_page
from shopvision.search.options import SearchOptions
from shopvision.search.visual import VisualSearch


@dataclass(frozen=True)
class ReportItem:
    """What a page shows of an item."""

    item_id: str
    image_id: int
    title: str | None
    category: str | None
    uri: str


@dataclass(frozen=True)
class Neighbour:
    """An item that was found, with its cosine similarity."""

    item: ReportItem
    score: float


@dataclass(frozen=True)
class Row:
    """An item and its nearest ones, best first."""

    item: ReportItem
    neighbours: list[Neighbour]


def find_neighbours(limit: int, k: int, on_progress: Callable[[int, int], None] | None = None) -> list[Row]:
    """The nearest ``k`` items of up to ``limit`` items of the catalogue, spread evenly over it."""
    items = _items()
    step = max(1, -(-len(items) // limit))
    chosen = list(items.values())[::step]
    rows = []
    search, options = VisualSearch(), SearchOptions(k=k)
    for number, item in enumerate(chosen, start=1):
        try:
            found = search.by_item(item.item_id, options)
        except UserError:
            continue  # none of its pictures could be embedded, or the index does not have it yet
        finally:
            if on_progress is not None:
                on_progress(number, len(chosen))
        rows.append(
            Row(item, [Neighbour(items[hit.item_id], hit.score) for hit in found.items if hit.item_id in items])
        )
    return rows


def write_report(
    output: Path, rows: Sequence[Row], *, facts: Sequence[tuple[str, str]] = (), failures: Sequence[dict[str, Any]] = ()
) -> None:
    """Write the page, with its pictures inside.

    Args:
        output: the HTML file.
        rows: what ``find_neighbours`` found.
        facts: (name, value) pairs shown on top.
        failures: ``item_key``, ``code`` and ``message`` of pictures that could not be embedded.

    Raises:
        UserError: the file cannot be written.
    """
    shown = [item for row in rows for item in (row.item, *(neighbour.item for neighbour in row.neighbours))]
    render_page(
        "neighbours.html",
        output,
        {item.image_id: item.uri for item in shown},
        title="What looks alike",
        subtitle="Each row shows an item and the items nearest to it, with their cosine similarity.",
        facts=[("items shown", f"{len(rows):,}"), *facts],
        rows=rows,
        failures=failures,
    )


def _items() -> dict[str, ReportItem]:
    """Every item that has a picture, with its leading one."""
    with connect() as connection:
        rows = connection.execute(
            select(Item.item_id, ItemImage.image_id, Item.title, Item.category, ItemImage.uri)
            .join(ItemImage, ItemImage.item_id == Item.item_id)
            .ext(distinct_on(Item.item_id))
            .order_by(Item.item_id, ItemImage.position)
        ).all()
    by_category = sorted(rows, key=lambda row: (row.category or "", row.item_id))
    return {row.item_id: ReportItem(*row) for row in by_category}
