"""Where clicks on pictures come from: the published file of pairs, tables of A/B tests, click logs.

============  ==========================================================================================================
``records``   ten fields joined by ``$record$``, see ``shopvision.selection.click.records``. Its ids number the lines:
              records of the same title, category and sights are of one item.
``pairs``     ``item_id``, ``image_a``, ``image_b``; then ``clicks_a``, ``impressions_a``, ``clicks_b``,
              ``impressions_b``, or only the rates ``ctr_a`` and ``ctr_b``.
``clicks``    ``item_id``, ``image``, ``clicks``, ``impressions``: every picture of an item against every other.
============  ==========================================================================================================

The last two are ``.csv``, ``.parquet`` or ``.jsonl``, and may say ``title``, ``category`` and ``entities`` (joined by
``|``) of the item where no file of items does.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import columns_of_csv, open_source
from shopvision.errors import ItemError, UserError
from shopvision.items.item import Item
from shopvision.items.record_parsing import picture_address, picture_root, record_id
from shopvision.selection.click.collecting import ClickCollector
from shopvision.selection.click.data import ClickData, ClickItem
from shopvision.selection.click.entities import NAMED, EntityKey, as_list, entities_of
from shopvision.selection.click.records import rate, read_records

SourceKind = Literal["records", "pairs", "clicks"]

COUNTS = ("clicks_a", "impressions_a", "clicks_b", "impressions_b")
RATES = ("ctr_a", "ctr_b")
ITEM_COLUMNS = ("item_id", "title", "category", "entities")
COLUMNS: dict[SourceKind, tuple[str, ...]] = {
    "records": (),
    "pairs": (*ITEM_COLUMNS, "image_a", "image_b", *COUNTS, *RATES),
    "clicks": (*ITEM_COLUMNS, "image", "clicks", "impressions"),
}


@dataclass(frozen=True)
class ClickSource:
    """What to read, and how.

    Attributes:
        path: the file.
        kind: of the file.
        images: what relative pictures start from; the file's own folder where it is None. Of ``records``: where copies
            of their pictures lie, under the names at the end of the addresses; None takes the addresses.
        items: what ids stand for; their entities are those of the catalogue.
        columns: our column -> theirs.
        min_impressions: a picture that was shown less often says nothing.
        max_p_value: pairs whose difference is as likely by luck alone are left out; None keeps all.
    """

    path: Path
    kind: SourceKind
    images: str | None = None
    items: Mapping[str, Item] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    min_impressions: float = 1
    max_p_value: float | None = None


def read_clicks(source: ClickSource) -> ClickData:
    """Read a file; records that cannot be used are in ``failures`` of what it gives.

    Raises:
        UserError: the file cannot be read, lacks a column, or not one pair of it can be used.
    """
    location = str(source.path)
    collector = ClickCollector(location, min_impressions=source.min_impressions, max_p_value=source.max_p_value)
    if source.kind == "records":
        _read_records(source, collector)
    else:
        _read_table(source, collector)
    data = collector.finish()
    if not len(data.comparisons):
        why = [f"{count:,} pairs: {reason}" for reason, count in data.left_out.items()]
        why += (
            [f"{len(data.failures):,} broken records, the first: {data.failures[0].message}"] if data.failures else []
        )
        raise UserError(f"{location}: no pair of pictures can be used ({'; '.join(why) or 'it is empty'}). Correct it.")
    return data


def _read_records(source: ClickSource, collector: ClickCollector) -> None:
    copies = None if source.images is None else picture_root(str(source.path), source.images)
    for line, record in read_records(source.path):
        try:
            if isinstance(record, ItemError):
                collector.fail(line, record)
                continue
            names = tuple(EntityKey(NAMED, name) for name in record.names)
            content = "\0".join((record.title, record.cate_name, record.poi_names))
            item = collector.item(
                ClickItem(
                    hashlib.sha256(content.encode()).hexdigest()[:32], record.title.strip(), record.cate_name.strip(),
                    names,
                )
            )  # fmt: skip
            rates = record.rates
            first = collector.picture(record.url_a, _copy(record.oss_url, copies))
            second = collector.picture(record.url_b, _copy(record.oss_url2, copies))
            collector.add_order(line, item, first, second, rates)
        except ItemError as error:
            collector.fail(line, error)


def _copy(address: str, copies: PictureRoot | None) -> str:
    """Where the copy of a picture lies."""
    return address if copies is None else picture_address(posixpath.basename(urlsplit(address).path), "oss_url", copies)


def _read_table(source: ClickSource, collector: ClickCollector) -> None:
    location = str(source.path)
    root = picture_root(location, source.images)
    _require_columns(source)
    renamed = {theirs: ours for ours, theirs in source.columns.items()}
    add: Callable[[int, dict[str, Any]], None]

    def picture(record: Mapping[str, Any], key: str) -> int:
        if record.get(key) in (None, ""):
            raise ItemError("broken_record", f"no {key}; every record needs it")
        return collector.picture(picture_address(record[key], key, root))

    def add_pair(line: int, record: dict[str, Any]) -> None:
        item = collector.item(_item(record, source.items))
        first, second = picture(record, "image_a"), picture(record, "image_b")
        if any(record.get(name) not in (None, "") for name in COUNTS):
            clicks_a, views_a, clicks_b, views_b = (rate(record.get(name, ""), name) for name in COUNTS)
            collector.add_counts(item, first, second, (clicks_a, clicks_b), (views_a, views_b))
        else:
            one, two = (rate(record.get(name, ""), name) for name in RATES)
            collector.add_order(line, item, first, second, (one, two))

    def add_log(_: int, record: dict[str, Any]) -> None:
        item = collector.item(_item(record, source.items))
        clicks, views = (rate(record.get(name, ""), name) for name in ("clicks", "impressions"))
        collector.add_log(item, picture(record, "image"), clicks, views)

    add = add_pair if source.kind == "pairs" else add_log
    with open_source(location, own_exports=True) as opened:
        for line, record in opened.records:
            try:
                add(line, _ours(record, renamed))
            except ItemError as error:
                collector.fail(line, error)


def _ours(record: dict[str, Any] | RecordError, renamed: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(record, RecordError):
        raise ItemError("broken_record", str(record))
    return {renamed.get(key, key): value for key, value in record.items()}


def _require_columns(source: ClickSource) -> None:
    ours = COLUMNS[source.kind]
    for name in source.columns:
        if name not in ours:
            raise UserError(f"{source.path}: the mapping names {name}, which is no column of ours: {', '.join(ours)}.")
    if ".csv" not in source.path.suffixes[-2:] or str(source.path).startswith("s3:"):
        return
    header, _ = columns_of_csv(source.path)
    there = {name for name in ours if source.columns.get(name, name) in header}
    if source.kind == "clicks":
        needed: tuple[str, ...] = ("item_id", "image", "clicks", "impressions")
    else:
        needed = ("item_id", "image_a", "image_b", *(COUNTS if there & set(COUNTS) else RATES))
    for name in needed:
        if name not in there:
            raise UserError(
                f"{source.path}: there is no column {source.columns.get(name, name)}; a file of {source.kind} needs "
                f"{', '.join(needed)}. There are: {', '.join(header)}."
            )


def _item(record: Mapping[str, Any], known: Mapping[str, Item] | None) -> ClickItem:
    item_id = record_id(record)
    if not item_id:
        raise ItemError("broken_record", "no item_id; every record needs one")
    if known is None:
        names = tuple(EntityKey(NAMED, str(name)) for name in as_list(record.get("entities")))
        return ClickItem(item_id, _text(record, "title"), _text(record, "category"), names)
    if item_id not in known:
        raise ItemError("unknown_item", f"item {item_id[:80]!r} is unknown; add it to the items")
    item = known[item_id]
    return ClickItem(item_id, item.title, item.category, entities_of(item))


def _text(record: Mapping[str, Any], key: str) -> str:
    return str(record.get(key) or "").strip()
