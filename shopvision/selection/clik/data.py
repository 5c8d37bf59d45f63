"""Where training data comes from: an exhibition table on disk, or the plans of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, select
from sqlalchemy.dialects.postgresql import distinct_on

from shopvision.catalogue.lines_by_key import LinesByKey
from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.tables import Item, ItemImage, Plan, PlanItem
from shopvision.errors import UserError
from shopvision.selection.clik.exhibition_table import (
    EXHIBITION_SLOTS,
    PRODUCT_SLOTS,
    load_column_map,
    open_table,
)
from shopvision.selection.clik.exhibitions import Exhibition, RankingData, Rows, RuleRecord, assemble
from shopvision.selection.clik.products import Products
from shopvision.selection.plan_dates import day_of
from shopvision.selection.topic import Topic

__all__ = [
    "Exhibition",
    "Products",
    "RankingData",
    "RuleRecord",
    "from_catalogue",
    "load_column_map",
    "read_table",
]

CATALOGUE_BATCH_ROWS = 20_000
CATEGORY_DEPTH = 4
SAMPLED_ROWS = 10_000
MEMBERSHIP = "membership"  # the label where there is no column of labels
SEPARATOR = "\x1f"  # ASCII's own unit separator: no text holds it


def read_table(
    path: str | Path,
    *,
    label: str | None,
    images: str | None = None,
    columns: Mapping[str, str] | None = None,
    look_for_pictures: bool = True,
) -> RankingData:
    """An exhibition table (see ``exhibition_table``) as ranking data, read a batch of rows at a time.

    Args:
        path: ``.csv``, ``.csv.gz`` or ``.parquet``.
        label: the numeric column that holds the labels; None gives every row the label 1.
        images: what relative pictures start from: a folder, ``s3://bucket/prefix`` or ``https://host/folder``;
            the table's own folder where it is None.
        columns: our column -> theirs.
        look_for_pictures: False takes every local picture for present, for looking at a table without them.

    Raises:
        UserError: the table cannot be used; one line names what is wrong and the mend.
    """
    table = open_table(Path(path), label, columns)
    root = PictureRoot.parse(images or str(Path(path).parent))
    collector = _ProductCollector()
    topics: dict[str, Topic] = {}
    exhibition_codes: dict[str, int] = {}
    exhibitions, products, labels = [], [], []
    for batch in table.batches():
        exhibitions.append(_exhibitions(table.path, batch, exhibition_codes, topics))
        products.append(collector.codes(_product_columns(batch)))
        labels.append(batch["label"].to_numpy(zero_copy_only=False))
    if not labels:
        raise UserError(f"{path}: there is a header but no row. Export the table again.")
    order, kept = collector.finish(root)
    _check_dates(kept)
    rows = Rows(np.concatenate(exhibitions), order[np.concatenate(products)], np.concatenate(labels))
    return assemble(topics, kept, rows, f"{path}: {label or MEMBERSHIP}", look_for_pictures=look_for_pictures)


def from_catalogue(connection: Connection, label: str | None = None) -> RankingData:
    """The catalogue's plans and their members as ranking data, each item by its leading picture.

    An item's own topic has its title as name, the parts of its category path as cat1 to cat4, and the values of its
    attributes as keywords. Members that are not in the catalogue, or have no picture, are dropped and counted.

    Args:
        connection: to the shop's database.
        label: a numeric key of the items' ``extra``; without one every member has the label 1, which trains the
            matching of topics alone.

    Raises:
        UserError: there are no plans with members, no item holds ``label``, or one of its values is no number.
    """
    topics = {row.plan_id: _plan_topic(row) for row in connection.execute(select(Plan).order_by(Plan.plan_id))}
    collector = _ProductCollector()
    values: list[float] = []
    with connection.execute(_items(), execution_options={"yield_per": CATALOGUE_BATCH_ROWS}) as items:
        for batch in items.partitions():
            collector.codes(_item_columns(batch))
            values += [1.0 if label is None else _number(label, row.item_id, row.extra.get(label)) for row in batch]
    if not topics or not values:
        what = "promotion plan" if not topics else "item"
        raise UserError(f"The catalogue has no {what}. Import plans with their items before training on them.")
    if label is not None and np.isnan(values).all():
        raise UserError(f"No item has a value {label}. Import items with it as a column of their own.")
    order, products = collector.finish(None)
    labels = np.empty(len(values))
    labels[order] = values
    plan_codes = {plan_id: code for code, plan_id in enumerate(topics)}
    members = connection.execute(select(PlanItem.plan_id, PlanItem.item_id)).all()
    item_codes = {item_id: code for code, item_id in enumerate(products.ids)}
    known = [(plan_codes[plan_id], item_codes[item_id]) for plan_id, item_id in members if item_id in item_codes]
    pairs = np.array(known, np.int32).reshape(-1, 2)
    rows = Rows(pairs[:, 0], pairs[:, 1], labels[pairs[:, 1]])
    named = np.bincount([plan_codes[plan_id] for plan_id, _ in members if plan_id in plan_codes], minlength=len(topics))
    data = assemble(topics, products, rows, label or MEMBERSHIP, members=named)
    if len(known) < len(members):
        plans = (len({plan_id for plan_id, _ in members}), len(np.unique(pairs[:, 0])))
        data.read_log.insert(0, RuleRecord("members without an item or picture", *plans, len(members), len(known)))
    return data


class _ProductCollector:
    """Gathers products by column, each at its first occurrence."""

    def __init__(self) -> None:
        self._seen = LinesByKey()
        self._batches: list[Any] = []

    def codes(self, columns: Mapping[str, Any]) -> NDArray[np.int32]:
        """The number of each row's product, counted by first occurrence; products not seen before are kept."""
        encoded = columns["id"].dictionary_encode()
        ids = encoded.dictionary.to_pylist()
        rows, first_rows = encoded.indices.to_numpy(), np.empty(len(ids), np.int64)
        first_rows[rows[::-1]] = np.arange(len(rows))[::-1]
        numbers = np.array(self._seen.lines(ids), np.int32)  # from 1 on; 0 for those not seen before
        new = np.flatnonzero(numbers == 0)
        if len(new):
            numbers[new] = len(self._seen) + 1 + np.arange(len(new))
            self._seen.add([ids[place] for place in new], numbers[new].tolist())
            fresh = pa.record_batch(dict(columns)).take(pa.array(first_rows[new]))
            texts = {name: _clean(name, fresh[name]) for name in fresh.column_names}
            self._batches.append(pa.record_batch(texts))
        codes: NDArray[np.int32] = numbers[rows] - 1
        return codes

    def finish(self, root: PictureRoot | None) -> tuple[NDArray[np.int32], Products]:
        """The products sorted by id, and for each number that ``codes`` gave the place there."""
        table = pa.Table.from_batches(self._batches)
        self._batches.clear()
        order = pc.sort_indices(table["id"])
        places = np.empty(len(order), np.int32)
        places[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
        raw = dict(zip(table.column_names, table.columns, strict=True))
        del table  # so that each column's memory is free once its compact form stands
        columns = {name: _compact(raw.pop(name), order) for name in list(raw)}
        return places, Products(columns, root)


def _clean(name: str, texts: Any) -> Any:
    """Stripped and NFC; names of files are left as they are, for normalising would point to other ones."""
    # large_string, because the texts of a big table may pass the 2 GiB of a plain text array
    texts = texts.cast(pa.large_string())
    return texts if name in {"id", "image"} else pc.utf8_normalize(pc.utf8_trim_whitespace(texts), "NFC")


def _compact(column: Any, order: Any) -> Any:
    """``column`` in this order as one array, by dictionary where texts repeat.

    A sample tells whether they do: building a dictionary takes several times the memory of a column that has none.
    """
    column = column.combine_chunks().take(order)
    sample = column.take(pa.array(np.linspace(0, len(column) - 1, min(len(column), SAMPLED_ROWS)).astype(np.int64)))
    repeats = pc.count_distinct(sample).as_py() <= len(sample) // 2
    return column.dictionary_encode() if repeats else column


def _product_columns(batch: Mapping[str, Any]) -> dict[str, Any]:
    empty = pa.repeat("", len(batch["prod_id"]))
    texts = {slot: batch[column] for slot, column in PRODUCT_SLOTS.items() if column in batch}
    return {"id": batch["prod_id"], "image": batch.get("image", empty), "name": empty} | texts


def _exhibitions(
    path: Path, batch: Mapping[str, Any], codes: dict[str, int], topics: dict[str, Topic]
) -> NDArray[np.int32]:
    """The number of each row's exhibition; new ones get their topic, known ones must repeat it."""
    ids = batch["exhibit_id"].dictionary_encode()
    slots = [slot for slot, column in EXHIBITION_SLOTS.items() if column in batch]
    joined = pc.binary_join_element_wise(*(batch[EXHIBITION_SLOTS[slot]] for slot in slots), SEPARATOR)
    texts = joined.dictionary_encode()
    names, distinct = ids.dictionary.to_pylist(), texts.dictionary.to_pylist()
    pairs = np.unique(np.stack([ids.indices.to_numpy(), texts.indices.to_numpy()], axis=1), axis=0)
    for name, text in pairs.tolist():
        values = dict(zip(slots, map(str.strip, normalize("NFC", distinct[text]).split(SEPARATOR)), strict=True))
        exhibition_id = names[name]
        try:
            topic = Topic(**values)
        except UserError as error:
            raise UserError(f"{path}: exhibition {exhibition_id}: {error}") from None
        known = topics.setdefault(exhibition_id, topic)
        codes.setdefault(exhibition_id, len(codes))
        if known != topic:
            slot = next(slot for slot in slots if getattr(known, slot) != getattr(topic, slot))
            raise UserError(
                f"{path}: exhibition {exhibition_id} has two topics: {EXHIBITION_SLOTS[slot]} is "
                f"{getattr(known, slot)[:80]!r} and {getattr(topic, slot)[:80]!r}. Give each its own id."
            )
    numbers: NDArray[np.int32] = np.array([codes[name] for name in names], np.int32)[ids.indices.to_numpy()]
    return numbers


def _check_dates(products: Products) -> None:
    dates = products.columns.get("date")
    for text in dates.distinct() if dates else ():
        try:
            Topic(name="", date=text)
        except UserError:
            first = products.ids[products.columns["date"].index(text)]
            raise UserError(f"prod_opendate of product {first}: {text!r} is no day. Write YYYY-MM-DD.") from None


def _plan_topic(plan: Row[Any]) -> Topic:
    texts = {f"cat{depth}": getattr(plan, f"cat{depth}") or "" for depth in range(1, CATEGORY_DEPTH + 1)}
    try:
        return Topic(
            name=plan.name,
            desc=plan.description or "",
            date=day_of(plan.date or ""),
            kwds=",".join(plan.keywords),
            **texts,
        )
    except UserError as error:
        raise UserError(f"Plan {plan.plan_id}: {error}") from None


def _items() -> Select[Any]:
    """The items that are in a plan, with the address of their leading picture."""
    leading = (
        select(ItemImage.item_id, ItemImage.uri)
        .ext(distinct_on(ItemImage.item_id))
        .order_by(ItemImage.item_id, ItemImage.position)
        .subquery()
    )
    return (
        select(Item.item_id, Item.title, Item.category, Item.attributes, Item.extra, leading.c.uri)
        .join(leading, leading.c.item_id == Item.item_id)
        .where(Item.item_id.in_(select(PlanItem.item_id)))
    )


def _item_columns(items: Sequence[Row[Any]]) -> dict[str, Any]:
    paths = [(item.category or "").split("/", CATEGORY_DEPTH - 1) for item in items]
    columns: dict[str, list[str]] = {
        "id": [item.item_id for item in items],
        "image": [item.uri for item in items],
        "name": [item.title or "" for item in items],
        "kwds": [",".join(attribute["value"] for attribute in item.attributes) for item in items],
    }
    for depth in range(CATEGORY_DEPTH):
        columns[f"cat{depth + 1}"] = [path[depth] if depth < len(path) else "" for path in paths]
    return {name: pa.array(texts, pa.string()) for name, texts in columns.items()}


def _number(label: str, item_id: str, value: object) -> float:
    try:
        return float("nan") if value is None else float(str(value))
    except ValueError:
        raise UserError(f"Item {item_id}: {label} is {str(value)[:80]!r}, which is no number. Correct it.") from None
