"""Real product offers: each side of a labelled pair is an item; sides that are written alike are one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from shopvision.items.item import Item


def offers(data: Path, name: str, splits: Iterable[str]) -> tuple[list[Item], list[tuple[str, str]]]:
    """Items, and the pairs that are labelled as the same product."""
    items: dict[tuple[str, ...], Item] = {}
    positives = []
    # Abt's and Buy's offers are two catalogues: an offer written alike in both is two items.
    apart = name == "abt_buy"
    for split in splits:
        with gzip.open(data / "er_product_pairs" / f"{name}.{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for pair in map(json.loads, lines):
                ids = []
                for side in ("left", "right"):
                    texts = [pair[side][field] for field in ("title", "brand", "price", "description")]
                    item = Item(f"{side}-{len(items)}", *_of(texts))
                    ids.append(items.setdefault((side if apart else "", *texts), item).item_id)
                if pair["label"] == 1 and ids[0] != ids[1]:
                    positives.append((ids[0], ids[1]))
    return list(items.values()), positives


def _of(texts: list[str]) -> tuple[str, str, str, str, str]:
    title, brand, price, description = texts
    return title, "", brand, price, description
