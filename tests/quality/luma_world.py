"""Labelled pairs of listings in a real clothing shop, where words name the style and only photos show the colour.

A listing is one photo with the title of its style, as somebody in a hurry writes it: a word may be missing, the others
may stand in another order, clothes have a size, and no listing says its colour. Of the style's other attributes it has
about two thirds. Styles of every category are dealt out
to training, validation and test by the seed, so no style is on two sides. The pairs are those of ``pairs.jsonl``, but
for two things:

1. A pair of two styles gets another partner of its category where both would be on different sides.
2. Different items are only paired by their leading photos there, so a view from behind would give a pair away as one of
   the same item. Every pair of two photos of an item therefore gets two counterparts: a photo of it beside one of the
   style's other colours, and beside one of another style.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

# Kinds of pairs; the first two are of the same item.
SAME = ("other photo", "other size")
DIFFERENT = ("other colour", "other style", "other photo, other colour", "other photo, other style")
_KINDS = {
    "other_photo": "other photo", "other_size": "other size", "other_colour": "other colour",
    "other_style_same_category": "other style",
}  # fmt: skip
SIDES, SHARES = ("train", "valid", "test"), (0.6, 0.2, 0.2)

Record = dict[str, Any]


def write_pairs(luma: Path, folder: Path, seed: int) -> dict[tuple[str, str], str]:
    """Write ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``, pairs with both listings, for ``read_pairs``.

    Args:
        luma: folder of the shop's data.
        folder: for the files.
        seed: of the sides of styles, missing words, sizes and partners.

    Returns:
        The kind of each pair, by the ids of its listings in the order of the file.
    """
    shop = _Shop({item["item_id"]: item for item in _records(luma / "items.jsonl")}, np.random.default_rng(seed))
    pairs = _records(luma / "pairs.jsonl")
    for pair in pairs:
        if pair["src_sku"]:
            shop.size_of_photo[pair["src_image"]] = shop.size(pair["src_item_id"], pair["src_sku"])
    written: dict[str, list[Record]] = {side: [] for side in SIDES}
    kinds: dict[tuple[str, str], str] = {}
    for pair in pairs:
        item_id = pair["src_item_id"]
        for left, right, kind in shop.rows(pair):
            key = (left["item_id"], right["item_id"])
            if key not in kinds and key[::-1] not in kinds:
                kinds[key] = kind
                written[shop.side(item_id)].append({"left": left, "right": right, "label": int(kind in SAME)})
    for side, rows in written.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{side}.jsonl").write_text(text, encoding="utf-8")
    return kinds


class _Shop:
    def __init__(self, items: dict[str, Record], generator: np.random.Generator) -> None:
        self.size_of_photo: dict[str, str] = {}
        self._items, self._generator = items, generator
        (self._kept,) = generator.spawn(1)  # attributes that listings have: pairs are the same without it
        self._listings: dict[str, Record] = {}
        self._of_style: defaultdict[str, list[str]] = defaultdict(list)
        self._of_category: defaultdict[str, list[str]] = defaultdict(list)
        for item_id, item in items.items():
            if item["images"]:
                self._of_style[item["style"]].append(item_id)
                self._of_category[item["category"]].append(item_id)
        self._sides: dict[str, str] = {}
        for item_ids in self._of_category.values():
            styles = sorted({items[item_id]["style"] for item_id in item_ids})
            ends = np.rint(np.cumsum(SHARES) * len(styles))
            for place, number in enumerate(generator.permutation(len(styles)).tolist()):
                self._sides[styles[number]] = SIDES[int(np.searchsorted(ends, place, side="right"))]

    def side(self, item_id: str) -> str:
        """``train``, ``valid`` or ``test``."""
        return self._sides[self._items[item_id]["style"]]

    def size(self, item_id: str, sku: str = "") -> str:
        """That of the variant ``sku``; without one any of the item, nothing for what has no sizes."""
        sizes = {variant["sku"]: variant["size"] for variant in self._items[item_id]["variants"]}
        if sku:
            return str(sizes[sku])
        return str(self._generator.choice(sorted(sizes.values()))) if any(sizes.values()) else ""

    def rows(self, pair: Record) -> list[tuple[Record, Record, str]]:
        """Two listings and their kind: the pair itself, and its counterparts."""
        a, b, kind = pair["src_item_id"], pair["tgt_item_id"], _KINDS[pair["kind"]]
        left = self._listing(a, pair["src_image"])
        if kind == "other size":
            size = self.size(a, pair["tgt_sku"])
            other = self._written(b, pair["tgt_image"], f"{left['item_id']} {size}", size)
            return [(left, other, kind)]
        if self.side(a) != self.side(b):
            return [(left, self._leading(partner), kind) for partner in self._other_style(a)]
        right = self._listing(b, pair["tgt_image"])
        if kind != "other photo":
            return [(left, right, kind)]
        colours = [other for other in self._of_style[self._items[a]["style"]] if other != a]
        return [
            (left, right, kind),
            # Of both photos the one that seldom leads.
            *((right, self._any_photo(item_id), f"{kind}, other colour") for item_id in self._one_of(colours)),
            *((right, self._any_photo(item_id), f"{kind}, other style") for item_id in self._other_style(a)),
        ]

    def _other_style(self, item_id: str) -> list[str]:
        """One item of another style, on the same side of the category; none where there is none."""
        item = self._items[item_id]
        return self._one_of([
            other
            for other in self._of_category[item["category"]]
            if self._items[other]["style"] != item["style"] and self.side(other) == self.side(item_id)
        ])  # fmt: skip

    def _one_of(self, item_ids: list[str]) -> list[str]:
        return [str(self._generator.choice(item_ids))] if item_ids else []

    def _leading(self, item_id: str) -> Record:
        return self._listing(item_id, self._items[item_id]["images"][0]["file"])

    def _any_photo(self, item_id: str) -> Record:
        return self._listing(item_id, str(self._generator.choice([i["file"] for i in self._items[item_id]["images"]])))

    def _listing(self, item_id: str, photo: str) -> Record:
        """The listing with that photo, always the same."""
        if photo not in self._listings:
            size = self.size_of_photo[photo] if photo in self.size_of_photo else self.size(item_id)
            self._listings[photo] = self._written(item_id, photo, Path(photo).stem, size)
        return self._listings[photo]

    def _written(self, item_id: str, photo: str, listing_id: str, size: str) -> Record:
        item, generator = self._items[item_id], self._generator
        words = item["title"].split()
        if len(words) > 2 and generator.random() < 0.5:
            words.pop(int(generator.integers(len(words))))
        if generator.random() < 0.25:
            generator.shuffle(words)
        return {
            "item_id": listing_id,
            "title": " ".join([*words, size]).strip(),
            "category": item["category"],
            "attributes": [one for one in item["attributes"] if one["key"] != "color" and self._kept.random() < 2 / 3],
            "image": photo,
        }


def _records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
