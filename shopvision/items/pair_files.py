"""Pair files: pairs of ids, or pairs with both items written out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.errors import ItemError, UserError
from shopvision.items.item import Item, pair_key
from shopvision.items.pair_table import UNKNOWN, OnFailure, PairCollector, PairTable
from shopvision.items.record_parsing import item_from_record, picture_root, record_id

LEFT_KEYS = ("left_item_id", "src_item_id", "left_id", "id_left", "ltable_id")
RIGHT_KEYS = ("right_item_id", "tgt_item_id", "right_id", "id_right", "rtable_id")
LABEL_KEYS = ("label", "item_label", "is_match", "gold")
LABELS = {"": UNKNOWN, "0": 0, "1": 1, "false": 0, "true": 1, "0.0": 0, "1.0": 1}


def read_pairs(
    path: str | Path,
    items: Mapping[str, Item] | None = None,
    *,
    images: str | None = None,
    strict: bool = True,
    on_failure: OnFailure | None = None,
) -> PairTable:
    """The pairs of a file, in its order.

    A side is an id (``left_item_id``, ``src_item_id``, ``left_id``...), or an item written out: an object under
    ``left`` and ``right``, or columns ``left_title``, ``left_brand``..., as ``shopvision.items.record_parsing``
    explains. Labels are 0 and 1 under ``label``, ``item_label``, ``is_match`` or ``gold``.

    Pairs of the same two ids, in whichever order, are merged. An item written out without an id of its own is known by
    its content: it is one item in however many pairs it is, but its pairs are never merged, because other offers may
    look alike; a pair of two that look alike stays a pair of two items.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.parquet``, also ``.gz``, also ``s3://``.
        items: what ids stand for, whatever else the pair says of them. Without it an id alone stands for an item of
            which nothing else is known.
        images: what relative pictures of items written out start from; the file's own folder where it is None.
        strict: False leaves out pairs that cannot be used, where True raises.
        on_failure: is told of each one left out.

    Raises:
        UserError: the file cannot be read; or, if strict, a pair is broken, names an unknown item or the same item
            twice, or is labelled both ways.
    """
    location = str(path)

    def fail(error: ItemError) -> None:
        if strict:
            raise UserError(f"{error.message}.")
        if on_failure is not None:
            on_failure(error)

    reader = _Reader(location, items, images)
    with open_source(location, own_exports=True) as source:
        for line, record in source.records:
            try:
                reader.add(line, record)
            except ItemError as error:
                fail(ItemError(error.code, f"{location}: line {line}: {error.message}"))
    return reader.collector.finish(fail)


class _Reader:
    """Items are kept once; of a pair only row numbers stay."""

    def __init__(self, location: str, items: Mapping[str, Item] | None, images: str | None) -> None:
        self.collector = PairCollector(location)
        self._root = picture_root(location, images)
        self._known = items
        self._rows: dict[str, int] = {}
        self._parsed: dict[bytes, tuple[Item, bool]] = {}

    def add(self, line: int, record: dict[str, Any] | RecordError) -> None:
        if isinstance(record, RecordError):
            raise ItemError("broken_record", str(record))
        label = _label(record)
        left, left_is_anonymous = self._side(record, "left", LEFT_KEYS)
        right, right_is_anonymous = self._side(record, "right", RIGHT_KEYS)
        anonymous = left_is_anonymous or right_is_anonymous
        if anonymous and left.item_id == right.item_id:
            right = replace(right, item_id=f"{right.item_id}#2")
        pair_key(left.item_id, right.item_id)
        self.collector.add(line, self._row(left), self._row(right), label, anonymous=anonymous)

    def _side(self, record: Mapping[str, Any], side: str, id_keys: tuple[str, ...]) -> tuple[Item, bool]:
        """The item on one side, and whether it goes by its content for want of an id."""
        written = _written_out(record, side, id_keys)
        item_id = record_id(record, id_keys) or record_id(written)
        if item_id and (self._known is not None or not written):
            return self._by_id(item_id), False
        if not written:
            raise ItemError("broken_record", f"no {side} item; give {id_keys[0]}, or the item under {side!r}")
        key = blake2b(to_json((item_id, written)), digest_size=16).digest()
        parsed = self._parsed.get(key)
        if parsed is None:
            try:
                item = item_from_record(written, item_id, self._root)
            except ItemError as error:
                raise ItemError(error.code, f"{side} item {item_id!r}: {error.message}") from None
            named = item if item_id else replace(item, item_id=item.content_hash().hex()[:32])
            parsed = self._parsed[key] = (named, not item_id)
        return parsed

    def _by_id(self, item_id: str) -> Item:
        row = self._rows.get(item_id)
        if row is not None:
            return self.collector.items[row]
        if self._known is None:
            return Item(item_id)
        try:
            return self._known[item_id]
        except KeyError:
            raise ItemError(
                "unknown_item", f"item {item_id[:80]!r} is unknown; add it to the items, or leave the pair out"
            ) from None

    def _row(self, item: Item) -> int:
        row = self._rows.setdefault(item.item_id, len(self.collector.items))
        if row == len(self.collector.items):
            self.collector.items.append(item)
        elif self.collector.items[row] is not item and self.collector.items[row] != item:
            raise ItemError("contradiction", f"item {item.item_id!r} was described otherwise before; keep one form")
        return row


def _written_out(record: Mapping[str, Any], side: str, id_keys: tuple[str, ...]) -> Mapping[str, Any]:
    """The record of an item that the pair itself holds; empty where it only holds an id."""
    inner = record.get(side)
    if isinstance(inner, Mapping):
        return inner
    prefix = f"{side}_"
    return {
        key.removeprefix(prefix): value
        for key, value in record.items()
        if key.startswith(prefix) and key not in id_keys
    }


def _label(record: Mapping[str, Any]) -> int:
    for key in LABEL_KEYS:
        value = record.get(key)
        if value is not None:
            label = LABELS.get(str(value).strip().lower())
            if label is None:
                raise ItemError("broken_record", f"{key} is {str(value)[:40]!r}; write 0 or 1")
            return label
    return UNKNOWN
