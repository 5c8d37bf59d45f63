"""Item files: JSONL of the catalogue and of CCKS 2022, tables (CSV, Parquet), and K3M's rows of Taobao items."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.errors import ItemError, UserError
from shopvision.items.item import Item
from shopvision.items.pair_table import OnFailure
from shopvision.items.record_parsing import item_from_record, picture_root, record_id

# Their addresses repeat the host, once or twice: https://img.example/folder/https://img.example/folder/picture.jpg
_REPEATED_HOSTS = re.compile(r"^https?:\S*(?:https?:|/)//")
_TAOBAO_FIELDS = ("item_id", "title", "image", "item_pvs", "category")


def read_items(
    path: str | Path, *, images: str | None = None, strict: bool = True, on_failure: OnFailure | None = None
) -> dict[str, Item]:
    """The items of a file, by id, in its order.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.parquet`` (also ``.gz``, also ``s3://``), whose records
            ``shopvision.items.record_parsing`` explains; or ``.tsv`` without a header: id, title, address of the
            picture, attribute string, category.
        images: what relative pictures start from: a folder, ``s3://bucket/prefix`` or ``https://host/folder``; the
            file's own folder where it is None. An ``item_image_name``, as CCKS 2022 has it, lies below ``item_images``
            there.
        strict: False leaves out broken items, where True raises.
        on_failure: is told of each one left out.

    Raises:
        UserError: the file cannot be read; or, if strict, an item is broken or described in two ways.
    """
    location = str(path)
    root = picture_root(location, images)
    items: dict[str, Item] = {}
    for line, record in _records(location):
        try:
            _keep(_item(record, root), items)
        except ItemError as error:
            failure = ItemError(error.code, f"{location}: line {line}: {error.message}")
            if strict:
                raise UserError(f"{failure.message}.") from None
            if on_failure is not None:
                on_failure(failure)
    return items


def _keep(item: Item, items: dict[str, Item]) -> None:
    if items.setdefault(item.item_id, item) != item:
        raise ItemError("contradiction", f"item {item.item_id!r} was described otherwise before; keep one line")


def _item(record: dict[str, Any] | RecordError, root: PictureRoot) -> Item:
    if isinstance(record, RecordError):
        raise ItemError("broken_record", str(record))
    item_id = record_id(record)
    if not item_id:
        raise ItemError("broken_record", "no item_id; every item needs one")
    try:
        return item_from_record(record, item_id, root)
    except ItemError as error:
        raise ItemError(error.code, f"item {item_id!r}: {error.message}") from None


def _records(location: str) -> Iterator[tuple[int, dict[str, Any] | RecordError]]:
    if ".tsv" in Path(location).suffixes[-2:]:
        yield from _taobao(Path(location))
        return
    with open_source(location, own_exports=True) as source:
        yield from source.records


def _taobao(path: Path) -> Iterator[tuple[int, dict[str, Any] | RecordError]]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. Check the path.")
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                cells = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n").split("\t")
            except UnicodeDecodeError:
                yield number, RecordError("not valid UTF-8; save the file as UTF-8")
                continue
            if len(cells) != len(_TAOBAO_FIELDS):
                wanted = ", ".join(_TAOBAO_FIELDS)
                yield number, RecordError(f"{len(cells)} cells between tabs, not {len(_TAOBAO_FIELDS)}: {wanted}")
                continue
            record: dict[str, Any] = dict(zip(_TAOBAO_FIELDS, cells, strict=True))
            record["image"] = _REPEATED_HOSTS.sub("https://", record["image"])
            yield number, record
