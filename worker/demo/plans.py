"""Promotion plans for a catalogue that comes without any: one for each category, to learn from and then to fill."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, select

from shopvision.catalogue.importing import PLANS_KIND, Importer
from shopvision.catalogue.source_files import Source
from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect

if TYPE_CHECKING:
    from shopvision.selection.clik.config import ClikConfig

SMALLEST_PLAN = 3  # items
KEYWORDS = 5


@dataclass(frozen=True)
class CategoryPlan:
    """A plan about one category.

    Attributes:
        path: the category.
        keywords: the commonest attribute values of its items.
        members: its items.
        candidates: its items and those of the categories beside it, among which a ranker has to find the right ones.
    """

    path: str
    keywords: tuple[str, ...]
    members: tuple[str, ...]
    candidates: tuple[str, ...]

    def record(self, item_ids: Sequence[str]) -> dict[str, Any]:
        """The plan as a record to import, with these items."""
        *above, name = self.path.split("/")
        levels = {f"cat{depth}": level for depth, level in enumerate([*above, name][:4], start=1)}
        return {
            "plan_id": f"category:{self.path}",
            "name": name,
            **levels,
            "kwds": list(self.keywords),
            "member_item_ids": list(item_ids),
        }


def category_plans() -> list[CategoryPlan]:
    """A plan for every category of the catalogue that holds enough items with pictures."""
    items: dict[str, list[str]] = defaultdict(list)
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for item_id, category, attributes in _items():
        items[category].append(item_id)
        values[category].update(attribute["value"] for attribute in attributes)
    beside: dict[str, list[str]] = defaultdict(list)
    for category, members in items.items():
        beside[category.rpartition("/")[0]] += members
    return [
        CategoryPlan(
            category,
            tuple(value for value, _ in values[category].most_common(KEYWORDS)),
            tuple(members),
            tuple(beside[category.rpartition("/")[0]]),
        )
        for category, members in items.items()
        if len(members) >= SMALLEST_PLAN
    ]


def _items() -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    with connect() as connection:
        yield from connection.execute(
            select(Item.item_id, Item.category, Item.attributes)
            .where(Item.category.is_not(None), Item.item_id.in_(select(ItemImage.item_id)))
            .order_by(Item.item_id)
        )


def import_plans(source: Source) -> int:
    """Import plans, and say how many there were."""
    report = Importer(PLANS_KIND, source).run()
    return report.rows - report.refused


def ranker_config(plans: int) -> ClikConfig:
    """Matching alone, which needs no click counts, without a test split: there is too little to hold any of it back."""
    from shopvision.selection.clik.config import ClikConfig

    text_encoder, language = ("wheel:e5-small", "ko") if has_asian_titles() else ("wheel:minilm", "en")
    refine = {"fractions": (1, 0, 0), "min_positive": 1, "min_distinct_labels": 1, "min_products": 2}
    return ClikConfig.model_validate(
        {
            "data": {"catalogue": True},
            "refine": {**refine, "shared_products": True},
            "model": {"name": "demo-clik", "frozen": True, "text": text_encoder, "season_language": language},
            "train": {"groups": 0, "epochs": 60, "matching_batch": min(plans, 64), "select_by": "last"},
        }
    )


def has_asian_titles() -> bool:
    """Whether the catalogue needs encoders of more languages than English."""
    with connect() as connection:
        return bool(
            connection.scalar(
                select(exists().where(Item.title.regexp_match("[\u1100-\u11ff\u3040-\u9fff\uac00-\ud7af]")))
            )
        )
