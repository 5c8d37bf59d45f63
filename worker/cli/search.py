"""``shopvision search``: items that look like a photo's garments, or like another item."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from shopvision.errors import ItemError, UserError
from worker.cli.memory import use_workers_malloc
from worker.cli.output import JsonFlag, emit, error_console, table

if TYPE_CHECKING:
    from shopvision.search import (
        FoundItem,
        Garment,
        GarmentChoice,
        ItemResult,
        PhotoFailure,
        PhotoResult,
        SearchOptions,
        TextResult,
    )

MANY_PHOTOS = 10  # take longer than starting anew
COLUMNS = ("score", "item", "title", "category", "price", "")


def search(
    photos: Annotated[list[str] | None, typer.Argument(help="Photos: files or addresses.")] = None,
    *,
    item: Annotated[str | None, typer.Option("--item", help="Find what looks like this item instead.")] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Find what shows what these words say; may be repeated.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many items for each garment.")] = 10,
    garment: Annotated[
        int | None, typer.Option("--garment", help="Only this one, by the number that the answer gives it.")
    ] = None,
    label: Annotated[str | None, typer.Option("--class", help="Only garments of this class, such as shoes.")] = None,
    box: Annotated[
        str | None, typer.Option("--box", help="Only this part: x,y,w,h in pixels; with --class, what it is.")
    ] = None,
    collapse: Annotated[
        str | None, typer.Option("--collapse", help="Show one item of those that share this key, such as style.")
    ] = None,
    category: Annotated[str | None, typer.Option("--category", help="Prefer this category and those below it.")] = None,
    by_class: Annotated[bool, typer.Option("--by-class", help="Prefer categories of the garment's class.")] = False,
    brand: Annotated[list[str] | None, typer.Option("--brand", help="Prefer this brand; may be repeated.")] = None,
    price_from: Annotated[str | None, typer.Option("--price-from", help="Prefer prices of at least so much.")] = None,
    price_to: Annotated[str | None, typer.Option("--price-to", help="Prefer prices of at most so much.")] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Show nothing that does not fit.")] = False,
    colour: Annotated[
        float, typer.Option("--colour", help="How much of the order is the photographed colour, 0 to 1.")
    ] = 0.0,
    nearly_same: Annotated[
        float | None, typer.Option("--nearly-same", help="Pictures with a larger cosine are shown once. Default: 0.98.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Also write an HTML page of the photos.")] = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", help="Also write an HTML page of all pictures with their scores for a text."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Find items that look like the garments in photos, or like another item, or that show what a text says."""
    if [bool(photos), item is not None, bool(text)].count(True) != 1:
        raise UserError("Say what to look for: photos, --item ID, or --text WORDS.")
    if hard and not (category or by_class or brand or price_from or price_to):
        raise UserError("--hard needs something to fit: --category, --by-class, --brand, --price-from or --price-to.")
    if page is not None and not text:
        raise UserError("--page belongs to --text: photos have --output.")
    from shopvision.search import GarmentChoice, SearchOptions
    from shopvision.search.options import NEARLY_SAME, as_box

    options = SearchOptions(
        k=k, collapse=collapse, nearly_same=NEARLY_SAME if nearly_same is None else nearly_same, category=category,
        by_class=by_class, brands=tuple(brand or ()), price_from=_price(price_from), price_to=_price(price_to),
        soft=not hard, colour=colour,
    )  # fmt: skip
    if not photos and (output is not None or garment is not None or label is not None or box is not None):
        what = "an item" if item is not None else "a text"
        raise UserError(f"--garment, --class, --box and --output belong to photos: {what} has none.")
    if item is not None:
        _search_item(item, options, as_json=as_json)
    elif text:
        _search_texts(text, options, page, as_json=as_json)
    else:
        choice = GarmentChoice(number=garment, label=label, box=None if box is None else as_box(box))
        _search_photos(photos or [], options, choice, output, as_json=as_json)


def _price(text: str | None) -> Decimal | None:
    try:
        return None if text is None else Decimal(text)
    except InvalidOperation:
        raise UserError(f"'{text}' is no price: write it like 19.90.") from None


def _search_item(item_id: str, options: SearchOptions, *, as_json: bool) -> None:
    from shopvision.search import VisualSearch

    result = VisualSearch().by_item(item_id, options)
    emit(asdict(result), as_json, lambda: Group(_table(result.items, _served(result)), *result.notes))


def _search_texts(texts: Sequence[str], options: SearchOptions, page: Path | None, *, as_json: bool) -> None:
    from shopvision.reports.gallery import require_place
    from shopvision.search import VisualSearch
    from shopvision.search.text_page import write_text_page

    if page is not None:
        require_place(page)
    search = VisualSearch()
    results = search.by_text(texts, options)
    told: dict[str, Any] = {"texts": [asdict(one) for one in results]}
    if page is not None:
        write_text_page(search, texts, page, options)
        told["page"] = str(page.resolve())
    emit(told, as_json, lambda: Group(*(part for one in results for part in _text_parts(one)), told.get("page", "")))


def _text_parts(result: TextResult) -> list[Any]:
    return [Text(f"{result.text}, {_served(result)}", "bold"), _table(result.items, None), *result.notes, ""]


def _search_photos(
    photos: Sequence[str],
    options: SearchOptions,
    choice: GarmentChoice,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    if len(photos) >= MANY_PHOTOS:
        use_workers_malloc()
    from shopvision.search import PhotoFailure, VisualSearch
    from shopvision.search.page import SearchPage

    page = None if output is None else SearchPage(output)
    outcomes = list(VisualSearch().by_photos(photos, options, choice, on_photo=page.add if page else None))
    results = [one for one in outcomes if not isinstance(one, PhotoFailure)]
    failures = [one for one in outcomes if isinstance(one, PhotoFailure)]
    if len(photos) == 1 and failures:
        raise ItemError(failures[0].code, _line(failures[0]))
    told: dict[str, Any] = {"photos": [asdict(one) for one in results], "failures": [asdict(one) for one in failures]}
    if page is not None:
        page.write(failures)
        told["page"] = str(page.output.resolve())
    emit(told, as_json, lambda: Group(*(part for one in results for part in _parts(one)), told.get("page", "")))
    for failure in [] if as_json else failures:
        error_console.print(Text(_line(failure)))
    if failures:
        sys.exit(1)


def _line(failure: PhotoFailure) -> str:
    """One line that names the photo, once."""
    return failure.message if failure.photo in failure.message else f"{failure.photo}: {failure.message}"


def _parts(result: PhotoResult) -> list[Any]:
    lines: list[Any] = [Text(f"{result.photo} ({result.size[0]} x {result.size[1]}), {_served(result)}", "bold")]
    lines += result.notes
    for garment in result.garments:
        lines += [_table(garment.items, _named(garment)), *garment.notes, ""]
    return lines


def _named(garment: Garment) -> str | None:
    if garment.score is None:
        return garment.label
    left, top, right, bottom = (round(edge) for edge in garment.box)
    return f"{garment.number}: {garment.label} ({garment.score:.2f}) at {left},{top},{right - left},{bottom - top}"


def _served(result: PhotoResult | ItemResult | TextResult) -> str:
    return f"{result.model}, {result.generation.rpartition('/')[2]}"


def _table(items: Sequence[FoundItem], title: str | None) -> Any:
    rows = [
        (
            f"{one.score:.3f}", one.item_id, one.title, one.category,
            None if one.price is None else f"{one.price:f} {one.currency or ''}".strip(), _remarks(one),
        )
        for one in items
    ]  # fmt: skip
    return table(COLUMNS, rows, title=title)


def _remarks(item: FoundItem) -> str:
    parts = [] if item.fits else ["does not fit"]
    if not item.is_comparable:
        parts.append("cannot be compared")
    if item.colour_difference is not None:
        parts.append(f"colour differs by {item.colour_difference:.0f}")
    if item.variants:
        parts.append(f"stands for {len(item.variants)} more")
    return ", ".join(parts)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("search")(search)
