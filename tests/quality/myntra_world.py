"""A shop made of real photos with a simulated audience: tables to train and measure rankers on, and the rule behind.

The photos, titles and attributes are those of ``myntra_fashion``; plans and clicks are simulated, by this rule:

1. **Two shops that share nothing.** Of every set of identical pictures one is kept. 60 % of the products are for
   training, the others for testing; so no picture of a test plan was seen in training.
2. **Topics.** A plan asks for values of two or three attributes that a photo shows: always the article type, and one or
   two of base colour, gender and usage (``Black Casual Shoes for Men``). A combination of values belongs to training
   or to testing, by chance (70 : 30), so no test topic was seen in training, though each of its words may have been.
3. **Candidates.** 50 products: up to 5 members, which have all the values asked for (a topic needs 3); then up to 40
   near members, which have some of them; the rest are any others.
4. **Clicks.** The audience of a topic clicks on a picture with the probability ``0.12 * product of s(a) * taste``,
   where a runs over the attributes asked for and s(a) is 1 where the picture has the value, and below where not:
   article type 0.15, base colour 0.35, gender 0.35, usage 0.5. ``taste`` is log-normal (sigma 0.25): what no attribute
   says.
   Each picture has 30 to 150 views; its CTR is clicks over views, clicks being drawn from a Poisson distribution. Poor
   fits are mostly zeros, and of equally good members the best is decided by taste and luck, which nobody can predict:
   the column ``fit``, the product of s(a), ranks as well as can be; ``chance`` is the probability itself, and
   ``asked`` names the attributes.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CANDIDATES, MOST_MEMBERS, FEWEST_MEMBERS, MOST_NEAR = 50, 5, 3, 40
TRAINING_PRODUCTS, TRAINING_TOPICS = 0.6, 0.7
MISS = {"articleType": 0.15, "baseColour": 0.35, "gender": 0.35, "usage": 0.5}
ASKED = [
    ("articleType", "baseColour"),
    ("articleType", "gender"),
    ("articleType", "usage"),
    ("articleType", "baseColour", "gender"),
    ("articleType", "baseColour", "usage"),
    ("articleType", "gender", "usage"),
]
CLICK, TASTE, VIEWS = 0.12, 0.25, (30, 150)

Product = dict[str, str]


@dataclass(frozen=True)
class Tables:
    """Exhibition tables with the label ``ctr``; pictures are paths below ``images``."""

    train: Path
    test: Path
    images: Path


def read_products(folder: Path) -> list[Product]:
    """The products, one of each set of identical pictures and of each title, in the order of their ids."""
    with (folder / "identical_pairs.csv").open(newline="", encoding="utf-8") as file:
        twins = {row["id_b"] for row in csv.DictReader(file)}
    with (folder / "styles.csv").open(newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
    by_title = {row["productDisplayName"]: row for row in reversed(rows) if row["id"] not in twins}
    return sorted(by_title.values(), key=lambda row: row["id"])


def two_shops(source: Path, seed: int) -> tuple[list[Product], list[Product]]:
    """The products for training and those for testing."""
    products = read_products(source)
    order = np.random.default_rng(seed).permutation(len(products))
    cut = round(len(products) * TRAINING_PRODUCTS)
    train, test = ([products[number] for number in sorted(of.tolist())] for of in (order[:cut], order[cut:]))
    return train, test


def make_ranking_tables(source: Path, folder: Path, seed: int = 20, shops: int | None = None) -> Tables:
    """Write the tables of the simulated shop into ``folder``.

    Args:
        source: ``myntra_fashion``.
        folder: exists.
        seed: of the world; the models are trained with seeds of their own.
        shops: seed of which product is in which shop; by default that of the world.
    """
    generator = np.random.default_rng(seed)
    products = read_products(source)
    generator.permutation(len(products))  # so that a world is the same whatever its shops
    two = two_shops(source, seed if shops is None else shops)
    topics = sorted(_topics(products))
    for_training = generator.random(len(topics)) < TRAINING_TOPICS
    tables = Tables(folder / "train.csv", folder / "test.csv", source)
    for path, shop, mine in ((tables.train, two[0], for_training), (tables.test, two[1], ~for_training)):
        rows = []
        for number, topic in enumerate(itertools.compress(topics, mine)):
            rows += _plan(f"{path.stem}-{number:04d}", dict(topic), shop, generator)
        _write(path, rows)
    return tables


def _topics(products: list[Product]) -> set[tuple[tuple[str, str], ...]]:
    """Every combination of values that enough products have."""
    sizes: dict[tuple[tuple[str, str], ...], int] = defaultdict(int)
    for product, names in itertools.product(products, ASKED):
        sizes[tuple((name, product[name]) for name in names)] += 1
    return {topic for topic, size in sizes.items() if size >= 2 * FEWEST_MEMBERS and all(v != "NA" for _, v in topic)}


def _plan(
    plan_id: str, asked: dict[str, str], shop: list[Product], generator: np.random.Generator
) -> list[dict[str, Any]]:
    """The rows of one plan, or none where the shop has too few members."""
    matches = np.array([[product[name] == value for name, value in asked.items()] for product in shop])
    members = np.flatnonzero(matches.all(axis=1))
    if len(members) < FEWEST_MEMBERS:
        return []
    members = generator.permutation(members)[:MOST_MEMBERS]
    near = generator.permutation(np.flatnonzero(matches.any(axis=1) & ~matches.all(axis=1)))[:MOST_NEAR]
    others = generator.permutation(np.flatnonzero(~matches.any(axis=1)))
    chosen = np.concatenate([members, near, others])[:CANDIDATES]
    fit = fits(asked, [shop[row] for row in chosen])
    probability = CLICK * fit * generator.lognormal(0, TASTE, len(chosen))
    views = generator.integers(*VIEWS, len(chosen), endpoint=True)
    ctr = generator.poisson(views * probability) / views
    first = shop[members[0]]
    topic = {
        "exhibit_id": plan_id,
        "exhibit_name": title(asked),
        "exhibit_cat1": first["masterCategory"],
        "exhibit_cat2": first["subCategory"],
        "exhibit_kwds": ",".join(asked.values()),
        "asked": ",".join(asked),
    }
    labels = [
        {"ctr": rate, "fit": share, "chance": chance}
        for rate, share, chance in zip(ctr.tolist(), fit.tolist(), probability.tolist(), strict=True)
    ]
    return [topic | product_columns(shop[row]) | label for row, label in zip(chosen, labels, strict=True)]


def fits(asked: dict[str, str], products: Sequence[Product]) -> NDArray[np.float64]:
    """(products,) how well each shows what is asked for: 1 where it has all of it."""
    shares = [[1.0 if product[name] == value else MISS[name] for name, value in asked.items()] for product in products]
    return np.array(shares).prod(axis=1)


def title(asked: dict[str, str]) -> str:
    """``{"articleType": "Heels", "baseColour": "Red", "gender": "Women"}`` -> ``Red Heels for Women``."""
    words = [asked.get("usage", ""), asked.get("baseColour", ""), asked["articleType"]]
    audience = f" for {asked['gender']}" if "gender" in asked else ""
    return " ".join(filter(None, words)) + audience


def product_columns(product: Product) -> dict[str, str]:
    """A product's own columns of an exhibition table."""
    return {
        "prod_id": product["id"],
        "prod_name": product["productDisplayName"],
        "prod_cat1": product["masterCategory"],
        "prod_cat2": product["subCategory"],
        "prod_page_title": ",".join(product[name] for name in MISS),
        "image": product["image"],
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def make_title_table(
    source: Path, path: Path, held_out: int = 500, seed: int = 7
) -> tuple[list[Product], list[Product]]:
    """A table for topic matching alone, see ``write_title_table``.

    Returns:
        The products of the table, and ``held_out`` others whose titles and pictures are not in it.
    """
    products = read_products(source)
    order = np.random.default_rng(seed).permutation(len(products)).tolist()
    unseen, seen = [products[number] for number in order[:held_out]], [products[number] for number in order[held_out:]]
    write_title_table(seen, path)
    return seen, unseen


def write_title_table(products: Sequence[Product], path: Path) -> Path:
    """A table in which every product is an exhibition of its own, with the label ``member`` = 1.

    The exhibition's name says the attributes (``Casual Black Belts for Men``); the product's own text, which text
    augmentation puts in its place, is the shop's title and nothing else.
    """
    _write(
        path,
        [
            {
                "exhibit_id": product["id"],
                "exhibit_name": title({name: product[name] for name in MISS}),
                "prod_id": product["id"],
                "prod_name": product["productDisplayName"],
                "image": product["image"],
                "member": 1,
            }
            for product in products
        ],
    )
    return path


def write_items(products: Sequence[Product], path: Path) -> Path:
    """Products as the catalogue imports items; what plans ask for are their attributes."""
    with path.open("w", encoding="utf-8") as file:
        for product in products:
            record = {
                "item_id": product["id"], "title": product["productDisplayName"],
                "images": [{"file": product["image"]}],
                "category": "/".join(product[name] for name in ("masterCategory", "subCategory", "articleType")),
                "attributes": [{"key": name, "value": product[name]} for name in MISS],
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
    return path
