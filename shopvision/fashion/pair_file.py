"""Training-pairs files: a picture that asks (an anchor, often cut from a photo) and the product picture that answers.

Building them from posts writes such files, training and evaluating encoders reads them; a shop may write its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopvision.catalogue.picture_addresses import PictureRoot, picture_uri
from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.errors import ItemError, UserError
from shopvision.items.record_parsing import picture_root
from shopvision.reports.row_writer import Kind, record_writer

if TYPE_CHECKING:
    from shopvision.images import Box

COLUMNS: dict[str, Kind] = {
    "anchor": "string",
    "anchor_box": "numbers",
    "positive": "string",
    "positive_box": "numbers",
    "category": "string",
    "product_id": "string",
    "post_id": "string",
}
_BETWEEN_NUMBERS = re.compile(r"[\s,;]+")
ROWS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class TrainingPairRow:
    """One pair.

    Attributes:
        anchor: address of the picture that asks (file:///, s3://, https://).
        positive: address of a picture of the same product.
        anchor_box: the part of the anchor that shows the product: left, top, right, bottom in pixels of the upright
            picture at full scale. None is the whole.
        positive_box: likewise.
        category: name of the garment's class; empty where it is unknown.
        product_id: equal for pairs of one product; empty where it is unknown, and then the positive tells it.
        post_id: equal for anchors of one post; empty where it is unknown, and then the anchor tells it.
    """

    anchor: str
    positive: str
    anchor_box: Box | None = None
    positive_box: Box | None = None
    category: str = ""
    product_id: str = ""
    post_id: str = ""


def read_training_pairs(path: str | Path, images: str | None = None) -> list[TrainingPairRow]:
    """The pairs of a file, in its order; a pair that is there twice counts once.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.parquet``, also ``.gz``, also ``s3://``. Columns: ``anchor`` and ``positive``,
            addresses or paths; ``anchor_box`` and ``positive_box``, four numbers (in a CSV between blanks);
            ``category``, ``product_id`` and ``post_id``. All but the first two may be missing; others are not read.
        images: what paths start from: a folder, ``s3://bucket/prefix`` or ``https://host/folder``; the file's own
            folder where it is None.

    Raises:
        UserError: the file cannot be read or holds no pair; or a pair is broken, shows twice the same, or was
            described otherwise before.
    """
    location = str(path)
    root = picture_root(location, images)
    rows: dict[tuple[Any, ...], tuple[int, TrainingPairRow]] = {}
    with open_source(location, own_exports=True) as source:
        for line, record in source.records:
            try:
                _keep(_row(record, root), line, rows)
            except ItemError as error:
                raise UserError(f"{location}: line {line}: {error.message}.") from None
    if not rows:
        raise UserError(f"{location} holds no pair: write one a line, with anchor and positive.")
    return [row for _, row in rows.values()]


def write_training_pairs(path: Path, rows: Iterable[TrainingPairRow]) -> int:
    """Write a file that ``read_training_pairs`` reads, and nothing where an error ends it; returns how many rows.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.parquet``.
        rows: with full addresses, or with paths that start from the file's folder.

    Raises:
        UserError: the name ends otherwise, or the file cannot be written.
    """
    count = 0
    with record_writer(path, COLUMNS) as write:
        waiting = []
        for row in rows:
            waiting.append([getattr(row, name) or None for name in COLUMNS])
            count += 1
            if len(waiting) == ROWS_AT_ONCE:
                write(waiting)
                waiting = []
        write(waiting)
    return count


def _keep(row: TrainingPairRow, line: int, rows: dict[tuple[Any, ...], tuple[int, TrainingPairRow]]) -> None:
    pictures = row.anchor, row.anchor_box, row.positive, row.positive_box
    before, same = rows.setdefault(pictures, (line, row))
    # Two posts may show one photo: it counts once, and which of them it is of says nothing more.
    if (same.category, same.product_id) != (row.category, row.product_id):
        raise ItemError(
            "contradiction", f"these two pictures had another category or product in line {before}; keep one of them"
        )


def _row(record: Mapping[str, Any] | RecordError, root: PictureRoot) -> TrainingPairRow:
    if isinstance(record, RecordError):
        raise _broken(str(record))
    row = TrainingPairRow(
        anchor=_address(record, "anchor", root),
        positive=_address(record, "positive", root),
        anchor_box=_box(record, "anchor_box"),
        positive_box=_box(record, "positive_box"),
        category=_text(record, "category"),
        product_id=_text(record, "product_id"),
        post_id=_text(record, "post_id"),
    )
    if (row.anchor, row.anchor_box) == (row.positive, row.positive_box):
        raise _broken("anchor and positive are the same picture, which teaches nothing; name two")
    return row


def _address(record: Mapping[str, Any], key: str, root: PictureRoot) -> str:
    text = _text(record, key)
    if not text:
        raise _broken(f"no {key}; write the picture's address, or its path from the picture folder")
    try:
        return picture_uri(text, None, root) if "://" in text else picture_uri(None, text, root)
    except ValueError as error:
        raise _broken(f"{key}: {error}") from None


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if isinstance(value, (dict, list, tuple, bool)):
        raise _broken(f"{key} is no text; write it as one text")
    return "" if value is None else str(value).strip()


def _box(record: Mapping[str, Any], key: str) -> Box | None:
    value = record.get(key)
    if isinstance(value, str):
        value = [part for part in _BETWEEN_NUMBERS.split(value.strip(" []()")) if part]
    if value is None or value == []:
        return None
    try:
        left, top, right, bottom = map(_number, value)
    except (TypeError, ValueError):
        raise _broken(
            f"{key} is {str(record[key])[:60]!r}; write four numbers: left, top, right, bottom in pixels"
        ) from None
    if left >= right or top >= bottom or right <= 0 or bottom <= 0:
        raise _broken(
            f"{key} {left:g} {top:g} {right:g} {bottom:g} holds no pixel of the picture; write left, top, right, "
            "bottom, not width and height"
        )
    return left, top, right, bottom


def _broken(message: str) -> ItemError:
    return ItemError("broken_record", message)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(number := float(value)):
        raise ValueError(value)
    return number
