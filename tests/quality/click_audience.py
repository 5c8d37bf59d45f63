"""The simulated audience of ``myntra_world`` in A/B tests: two pictures of an item shown by turns, and who was clicked.

An item is what that world calls a plan: a title (``Black Casual Shoes for Men``) with 50 pictures, of which few fit.
Its entities are the values asked for. A test shows each of two random pictures 100 to 3,000 times (log-uniform); clicks
are drawn from a binomial distribution with the audience's own probability, taste included. So of two pictures that fit
alike, luck decides which one looks better.

Five worlds have the same two shops, one to learn from and one to be measured in, and differ in everything else: which
topics are for training, which products plans hold, what the audience likes, what it clicks.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.quality.myntra_world import MISS, Product, Tables, fits, make_ranking_tables, two_shops

SHOPS = 0  # seed of which product is in which shop
TESTS_EACH, VIEWS = 40, (100, 3000)
PICTURES_OF_AN_ENTITY = 10
MANY = 10**9

Row = dict[str, str]
Plans = dict[str, list[Row]]


@dataclass(frozen=True)
class Audience:
    """Files of A/B tests, and the entities with pictures of training products.

    Attributes:
        train: ``pairs`` file.
        test: of other items with other pictures.
        log: ``clicks`` file of the test items, as after so many impressions that luck plays no part.
        entities: with pictures from the training shop.
        exhibitions: tables of the same plans, for CLIK.
        fit: (title of a test item, picture) -> how well it shows what is asked for, of the 50 pictures of each.
        asked: title of a test item -> attribute -> value.
    """

    train: Path
    test: Path
    log: Path
    entities: Path
    exhibitions: Tables
    fit: dict[tuple[str, str], float]
    asked: dict[str, dict[str, str]]

    def fit_of(self, title: str, products: Sequence[Product]) -> NDArray[np.float64]:
        """(products,) how well any pictures show what a test item asks for."""
        return fits(self.asked[title], products)


def make_audience(source: Path, folder: Path, world: int) -> Audience:
    """Write the files of one world into ``folder``, which is made."""
    folder.mkdir()
    tables = make_ranking_tables(source, folder, world, SHOPS)
    generator = np.random.default_rng([world, 1])
    learnt, measured = (_read(table) for table in (tables.train, tables.test))
    for name, plans in (("ab-train", learnt), ("ab-test", measured)):
        _write(folder / f"{name}.csv", [test for plan in plans.values() for test in _tests(plan, generator)])
    _write(folder / "log.csv", [_logged(row) for plan in measured.values() for row in plan])
    _write(folder / "entities.csv", _entities(two_shops(source, SHOPS)[0]))
    return Audience(
        folder / "ab-train.csv",
        folder / "ab-test.csv",
        folder / "log.csv",
        folder / "entities.csv",
        tables,
        fit={
            (row["exhibit_name"], row["image"]): float(row["fit"]) for plan in measured.values() for row in plan
        },
        asked={
            plan[0]["exhibit_name"]: dict(
                zip(plan[0]["asked"].split(","), plan[0]["exhibit_kwds"].split(","), strict=True)
            )
            for plan in measured.values()
        },
    )  # fmt: skip


def _read(table: Path) -> Plans:
    plans: Plans = defaultdict(list)
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            plans[row["exhibit_id"]].append(row)
    return plans


def _item(row: Row) -> Row:
    return {
        "item_id": row["exhibit_id"],
        "title": row["exhibit_name"],
        "entities": "|".join(row["exhibit_kwds"].split(",")),
    }


def _tests(plan: list[Row], generator: np.random.Generator) -> list[Row]:
    rows = []
    for _ in range(TESTS_EACH):
        sides = [plan[number] for number in generator.choice(len(plan), 2, replace=False)]
        views = np.exp(generator.uniform(*np.log(VIEWS), 2)).astype(int)
        clicks = generator.binomial(views, [min(1.0, float(side["chance"])) for side in sides])
        rows.append(
            _item(sides[0])
            | {
                "image_a": sides[0]["image"], "clicks_a": str(clicks[0]), "impressions_a": str(views[0]),
                "image_b": sides[1]["image"], "clicks_b": str(clicks[1]), "impressions_b": str(views[1]),
            }
        )  # fmt: skip
    return rows


def _logged(row: Row) -> Row:
    clicks = round(float(row["chance"]) * MANY)
    return _item(row) | {"image": row["image"], "clicks": str(clicks), "impressions": str(MANY)}


def _entities(products: Sequence[Product]) -> list[Row]:
    """Every value that can be asked for, with its first pictures and how many products have it."""
    pictures: dict[str, list[str]] = defaultdict(list)
    for product in products:
        for name in MISS:
            pictures[product[name]].append(product["image"])
    return [
        {"name": name, "pictures": "|".join(files[:PICTURES_OF_AN_ENTITY]), "n0": str(len(files))}
        for name, files in sorted(pictures.items())
        if name
    ]


def _write(path: Path, rows: list[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
