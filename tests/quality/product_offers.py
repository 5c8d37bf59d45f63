"""Real product offers: each side of a labelled pair is an item; sides that are written alike are one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np

from shopvision.items.item import Item
from shopvision.matching.fitting.known_products import connected_products


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


def without_products(data: Path, name: str, split: str, count: int, folder: Path) -> tuple[Path, Path]:
    """Two files of a split's pairs: those of all but ``count`` products, and those within these, which stay together.

    Offers that pairs link as the same are one product. A product is held out after the others that most of its pairs
    are with, so that few pairs are lost because they have one product on each side.
    """
    with gzip.open(data / "er_product_pairs" / f"{name}.{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    titles = [[pair[side]["title"] for side in ("left", "right")] for pair in pairs]
    places = {title: place for place, title in enumerate(dict.fromkeys(chain.from_iterable(titles)))}
    sides = np.array([[places[title] for title in own] for own in titles])
    same = np.array([pair["label"] == 1 for pair in pairs])
    left, right = connected_products(len(places), *sides[same].T)[sides].T
    products = int(max(left.max(), right.max())) + 1
    between = np.zeros((products, products))
    np.add.at(between, (left, right), 1)
    np.fill_diagonal(between := between + between.T, 0)
    held_out = np.zeros(products, bool)
    held_out[0] = True
    while held_out.sum() < count:
        share = between[held_out].sum(0) / np.maximum(between.sum(0), 1)
        held_out[np.where(held_out, -1.0, share).argmax()] = True
    inside = held_out[left].astype(int) + held_out[right]
    files = []
    for part, wanted in (("train", 0), ("valid", 2)):
        files.append(folder / f"{name}.{part}.jsonl")
        chosen = [pair for pair, sides_in in zip(pairs, inside.tolist(), strict=True) if sides_in == wanted]
        files[-1].write_text("".join(json.dumps(pair) + "\n" for pair in chosen))
    return files[0], files[1]


def with_sources(data: Path, name: str, split: str, folder: Path) -> Path:
    """The pairs of a split, whose left items come from one source and whose right items from another; as a file."""
    target = folder / f"{name}.{split}.jsonl"
    if not target.exists():
        with gzip.open(data / "er_product_pairs" / f"{name}.{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            pairs = [json.loads(line) for line in lines]
        for pair in pairs:
            for side, source in zip(("left", "right"), name.split("_"), strict=True):
                pair[side]["source"] = source
        target.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return target
