"""What a ranker learns from: exhibitions (promotion plans) with their topics, products and labels, stored by column.

Everything is in one canonical order (exhibitions and products by id, an exhibition's rows by label), so neither the
order of rows in a file nor the hash seed of the process changes anything that is drawn from it later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.selection.clik.products import Products
from shopvision.selection.topic import SLOTS, Topic

EXAMPLES = 3  # of wrong things named in a message


@dataclass(frozen=True, slots=True)
class RuleRecord:
    """What one rule dropped: exhibitions and rows (product in exhibition) before and after it."""

    rule: str
    exhibitions_before: int
    exhibitions_after: int
    rows_before: int
    rows_after: int
    split: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass
class Exhibition:
    """A promotion plan with its labelled products.

    Attributes:
        category: what the exhibitions are stratified by: the topic's cat2 or, where that is empty, cat1.
        products: (n,) int32, indices into ``Products``; by label descending, ties by product id.
        labels: (n,) float32, not negative.
        members: how many products the plan names.
        available: how many of these are for sale and have a picture, labelled or not.
    """

    exhibition_id: str
    topic: Topic
    category: str
    products: NDArray[np.int32]
    labels: NDArray[np.float32]
    members: int
    available: int

    def keep(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Exhibition:
        """The same exhibition with these rows, in their order."""
        return replace(self, products=self.products[rows], labels=self.labels[rows])


@dataclass
class RankingData:
    """Exhibitions by id, the products they point into, and what reading left out."""

    exhibitions: list[Exhibition]
    products: Products
    read_log: list[RuleRecord] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many (exhibition, product) rows there are."""
        return sum(len(exhibition.products) for exhibition in self.exhibitions)

    def used_products(self) -> NDArray[np.int32]:
        """Indices of the products that occur in an exhibition, ascending."""
        if not self.exhibitions:
            return np.empty(0, np.int32)
        return np.unique(np.concatenate([exhibition.products for exhibition in self.exhibitions]))

    def with_exhibitions(self, exhibitions: Iterable[Exhibition]) -> RankingData:
        """The same products with these exhibitions."""
        return replace(self, exhibitions=list(exhibitions))

    def fingerprint(self) -> str:
        """SHA-256 of the content (topics, labels, the products that occur): the mark of training data in a card."""
        digest = hashlib.sha256()
        used = self.used_products()
        self.products.update_digest(digest, used)
        for exhibition in self.exhibitions:
            texts = [exhibition.exhibition_id, *(getattr(exhibition.topic, slot) for slot in SLOTS)]
            digest.update("\0".join(texts).encode())
            digest.update(np.searchsorted(used, exhibition.products).astype("<i8").tobytes())
            digest.update(exhibition.labels.astype("<f4").tobytes())
        return digest.hexdigest()


@dataclass
class Rows:
    """Raw rows: which exhibition, which product (both by position), and the label (NaN: none)."""

    exhibitions: NDArray[np.int32]
    products: NDArray[np.int32]
    labels: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, mask: NDArray[np.bool_]) -> Rows:
        """The rows where ``mask`` holds."""
        return Rows(self.exhibitions[mask], self.products[mask], self.labels[mask])


def assemble(
    topics: Mapping[str, Topic],
    products: Products,
    rows: Rows,
    label: str,
    *,
    members: NDArray[np.int64] | None = None,
    look_for_pictures: bool = True,
) -> RankingData:
    """Checked data in canonical order.

    Rows without a label and products without a picture are dropped from everything and counted in ``read_log``.

    Args:
        topics: exhibition id -> topic; ``rows.exhibitions`` are positions in it.
        products: sorted by id; ``rows.products`` are positions in it.
        rows: in any order.
        label: what the labels are called in messages.
        members: how many products each exhibition names, also those that are in no row; by default as many as rows.
        look_for_pictures: whether missing local pictures are found out.

    Raises:
        UserError: no rows, a label is negative or infinite or all are zero or absent, a product is in one exhibition
            twice, or every picture is missing.
    """
    ids = list(topics)
    if not len(rows):
        raise UserError("There is no row: the table has a header only, or no exhibition has a product.")
    log: list[RuleRecord] = []
    _check_labels(rows, ids, products, label)
    raw, rows = rows, _drop(rows, ~np.isnan(rows.labels), "rows without a label", log)
    _check_twice(rows, ids, products)
    present = _present(products) if look_for_pictures else np.ones(len(products), bool)
    rows = _drop(rows, present[rows.products], "rows without a picture", log)
    if not len(rows):
        raise UserError("No row has both a label and a picture. Check the label column and the picture folder.")
    named = np.bincount(raw.exhibitions, minlength=len(ids)) if members is None else members
    available = np.bincount(raw.exhibitions[present[raw.products]], minlength=len(ids))
    return RankingData(*_grouped(topics, products, rows, named, available), log)


def _grouped(
    topics: Mapping[str, Topic],
    products: Products,
    rows: Rows,
    members: NDArray[np.int64],
    available: NDArray[np.int64],
) -> tuple[list[Exhibition], Products]:
    used = np.unique(rows.products)
    if len(used) < len(products):
        products = products.take(used)
        rows.products = np.searchsorted(used, rows.products).astype(np.int32)
    order = np.lexsort((rows.products, -rows.labels, rows.exhibitions))
    codes, starts = np.unique(rows.exhibitions[order], return_index=True)
    ends = [*starts[1:].tolist(), len(order)]
    chosen, labels = rows.products[order], rows.labels[order].astype(np.float32)
    ids = list(topics)
    exhibitions = []
    for code, start, end in zip(codes.tolist(), starts.tolist(), ends, strict=True):
        topic = topics[ids[code]]
        category = topic.cat2 or topic.cat1
        counts = int(members[code]), int(available[code])
        exhibitions.append(Exhibition(ids[code], topic, category, chosen[start:end], labels[start:end], *counts))
    return sorted(exhibitions, key=lambda exhibition: exhibition.exhibition_id), products


def _present(products: Products) -> NDArray[np.bool_]:
    present = products.present()
    if not present.any():
        raise UserError(
            f"All {len(products):,} pictures are missing, {products.image(0)} first. Check the picture folder (images)."
        )
    return present


def _drop(rows: Rows, mask: NDArray[np.bool_], rule: str, log: list[RuleRecord]) -> Rows:
    if mask.all():
        return rows
    kept = rows.keep(mask)
    exhibitions = (len(np.unique(rows.exhibitions)), len(np.unique(kept.exhibitions)))
    log.append(RuleRecord(rule, *exhibitions, len(rows), len(kept)))
    return kept


def _check_labels(rows: Rows, ids: Sequence[str], products: Products, label: str) -> None:
    wrong = np.flatnonzero((rows.labels < 0) | np.isinf(rows.labels))
    if len(wrong):
        value, product = rows.labels[wrong[0]], products.ids[rows.products[wrong[0]]]
        raise UserError(
            f"{label}: {len(wrong):,} labels are negative or infinite, {value:g} of product {product} in exhibition "
            f"{ids[rows.exhibitions[wrong[0]]]} first. Give rates or counts from 0 on."
        )
    if not (rows.labels > 0).any():
        raise UserError(
            f"{label}: every label is zero or absent, so there is nothing to learn. Choose another label column."
        )


def _check_twice(rows: Rows, ids: Sequence[str], products: Products) -> None:
    keys = rows.exhibitions.astype(np.int64) * len(products) + rows.products
    keys.sort()
    twice = np.unique(keys[1:][keys[1:] == keys[:-1]])
    if len(twice):
        named = ", ".join(
            f"{products.ids[key % len(products)]} in {ids[key // len(products)]}" for key in twice[:EXAMPLES].tolist()
        )
        raise UserError(f"{len(twice):,} products are in one exhibition twice: {named}. Keep one row of each.")
