"""Pairs that encoders learn from and are measured on: of a training-pairs file, or of a shop's own items."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.errors import ItemError, UserError
from shopvision.fashion.composition.wanted import class_of
from shopvision.fashion.encoding.views import View
from shopvision.fashion.pair_file import TrainingPairRow, read_training_pairs
from shopvision.items.record_parsing import item_from_record, picture_root, pictures_of, record_id

Product = Literal["item", "style"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A view that asks, and one of the product that it shows.

    Attributes:
        anchor: the view that asks.
        positive: the view that answers; the anchor itself where a product has a single picture: two changes of it are
            then a pair to train on, and none to measure on.
        product: what both show.
        category: of the product; empty where it is unknown.
        bound: what must not be on two sides of a split: the product, its style, the post, both pictures.
    """

    anchor: View
    positive: View
    product: str
    category: str
    bound: tuple[str, ...]

    @property
    def is_single(self) -> bool:
        """Whether both views are one picture."""
        return self.anchor == self.positive


@dataclass(frozen=True, slots=True)
class Shown:
    """A view of the gallery, and the product that it shows."""

    view: View
    product: str
    category: str


@dataclass(frozen=True)
class PairData:
    """Pairs, and what else is searched among.

    Attributes:
        pairs: in the order of their file.
        others: views of further products: a gallery is as hard as the shop is large.
    """

    pairs: tuple[Pair, ...]
    others: tuple[Shown, ...] = ()

    @property
    def measured(self) -> tuple[Pair, ...]:
        """The pairs of two pictures."""
        return tuple(pair for pair in self.pairs if not pair.is_single)

    def with_pairs(self, pairs: Iterable[Pair]) -> PairData:
        """Other pairs beside the same further products."""
        return replace(self, pairs=tuple(pairs))

    def of_category(self, name: str) -> PairData:
        """What belongs to one category."""
        return PairData(
            tuple(pair for pair in self.pairs if pair.category == name),
            tuple(one for one in self.others if one.category == name),
        )

    def readable(self, views: Collection[View]) -> PairData:
        """What can be shown by these views alone."""
        return PairData(
            tuple(pair for pair in self.pairs if pair.anchor in views and pair.positive in views),
            tuple(one for one in self.others if one.view in views),
        )

    def shown(self) -> tuple[Shown, ...]:
        """What is searched among; a view that shows several products stands there for each of them."""
        return (*self.others, *(Shown(pair.positive, pair.product, pair.category) for pair in self.measured))

    def gallery(self) -> tuple[Shown, ...]:
        """Everything that is searched among, each view once."""
        return tuple({one.view: one for one in self.shown()}.values())

    def views(self) -> tuple[View, ...]:
        """Every view, once."""
        paired = (view for pair in self.pairs for view in (pair.anchor, pair.positive))
        return tuple(dict.fromkeys((*paired, *(one.view for one in self.others))))

    def products_by_category(self) -> dict[str, int]:
        """How many products each category has, the largest first."""
        category_of = {pair.product: pair.category for pair in self.pairs}
        return dict(Counter(category_of.values()).most_common())

    def fingerprint(self) -> str:
        """Sha256 of what the pairs say, wherever their pictures lie."""

        def named(view: View) -> tuple[str, Any]:
            return view.uri.rpartition("/")[2], view.box

        told = [[named(pair.anchor), named(pair.positive), pair.product, pair.category] for pair in self.pairs]
        others = [[named(one.view), one.product, one.category] for one in self.others]
        return hashlib.sha256(json.dumps([told, others]).encode()).hexdigest()


def pairs_of_file(path: str | Path, images: str | None = None) -> PairData:
    """The pairs of a training-pairs file.

    Raises:
        UserError: see ``read_training_pairs``.
    """
    return PairData(tuple(_pair_of(row) for row in read_training_pairs(path, images)))


def _pair_of(row: TrainingPairRow) -> Pair:
    anchor, positive = View(row.anchor, row.anchor_box), View(row.positive, row.positive_box)
    product = row.product_id or json.dumps([positive.uri, positive.box])
    bound = [f"product {product}", f"picture {anchor.uri}", f"picture {positive.uri}"]
    if row.post_id:
        bound.append(f"post {row.post_id}")
    return Pair(anchor, positive, product, row.category, tuple(bound))


def pairs_of_items(
    path: str | Path,
    images: str | None = None,
    *,
    product: Product = "item",
    classes: Mapping[str, str] | None = None,
) -> PairData:
    """The pairs that a shop's own pictures make: each further picture of an item finds the leading one.

    Items of one style are never on two sides of a split. Items with one picture become pairs of it with itself, to
    train on, and are searched among.

    Args:
        path: items as the catalogue imports them, with all their ``images``, and ``style`` where they have one.
        images: what relative pictures start from; the file's own folder where it is None.
        product: what counts as found: the item (its own colour), or any item of its style.
        classes: category path, or the beginning of one -> category; without it the path is the category.

    Raises:
        UserError: the file cannot be read, an item is broken, or none has a picture.
    """
    location = str(path)
    root = picture_root(location, images)
    pairs: list[Pair] = []
    leading: dict[View, Shown] = {}
    with open_source(location, own_exports=True) as source:
        for line, record in source.records:
            if isinstance(record, RecordError):
                raise UserError(f"{location}: line {line}: {record}.")
            item = _item(record, root, f"{location}: line {line}")
            if not item.views:
                continue
            shown = item.item_id if product == "item" else item.style
            category = item.category if classes is None else class_of(item.category, classes) or ""
            main, *further = item.views
            leading.setdefault(main, Shown(main, shown, category))
            for view in further or [main]:
                bound = tuple(f"picture {one.uri}" for one in dict.fromkeys((main, view)))
                pairs.append(Pair(view, main, shown, category, (f"product {shown}", f"style {item.style}", *bound)))
    if not pairs:
        raise UserError(f"{location} has no item with a picture: give images, or another file.")
    return PairData(tuple(pairs), tuple(leading.values()))


@dataclass(frozen=True, slots=True)
class _Item:
    item_id: str
    style: str
    category: str
    views: tuple[View, ...]


def _item(record: Mapping[str, Any], root: PictureRoot, where: str) -> _Item:
    try:
        item_id, style = record_id(record), record_id(record, ("style",))
    except ItemError as error:
        raise UserError(f"{where}: {error.message}.") from None
    if not item_id:
        raise UserError(f"{where}: no item_id; every item needs one.")
    try:
        item = item_from_record(record, item_id, root)
        views = tuple(map(View, pictures_of(record, item, root)))
    except ItemError as error:
        raise UserError(f"{where}: item {item_id!r}: {error.message}.") from None
    style = style or item_id
    return _Item(item_id, style, item.category_path or item.category, views)


def require_categories(data: PairData, names: Sequence[str]) -> None:
    """Refuse categories that no pair has.

    Raises:
        UserError: names them and those there are.
    """
    known = data.products_by_category()
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(name or "(none)" for name in known)
        raise UserError(f"No pair is of the category {', '.join(unknown)}; there are {there}: correct per_category.")
