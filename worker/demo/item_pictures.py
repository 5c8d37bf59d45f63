"""The demo's pictures by text: a recall model learns from the catalogue, words find items, and each item gets its best
picture.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from worker.demo.guide import NEIGHBOURS, SHOWN

if TYPE_CHECKING:
    from worker.demo.guide import Guide

FEWEST_ITEMS = 20
TEXTS = 5


def train_recall_model(guide: Guide) -> bool:
    """Train a small recall model on titles and pictures, and let it serve; False where there is too little."""
    from shopvision import models
    from shopvision.selection.recall.config import RecallConfig
    from shopvision.selection.recall.train import train_recall
    from worker.demo.plans import has_asian_titles

    records = _records()
    if len(records) < FEWEST_ITEMS:
        guide.say(f"no search by text: fewer than {FEWEST_ITEMS} items have a title and a picture")
        return False
    text = "wheel:e5-small" if has_asian_titles() else "wheel:minilm"
    guide.say(f"training a recall model on the titles of {len(records)} items, with frozen encoders ...")
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "items.jsonl")
        file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        config = RecallConfig.model_validate(
            {
                "data": {"items": file},
                "model": {"name": "demo-recall", "dimension": 128, "text_form": "name_attributes", "text": text},
                "train": {"batch_size": min(64, len(records) // 2)},
            }
        )
        ref, _ = guide.learn(partial(train_recall, config))
    models.activate("image_recall", ref.spec, force=True)  # a demonstration shows what little data give
    guide.say(f"{ref.spec} reads texts now")
    return True


def _records() -> list[dict[str, Any]]:
    """Items with a title and pictures, as a file of items has them."""
    from shopvision.catalogue.tables import Item, ItemImage
    from shopvision.database import connect

    images = func.array_agg(ItemImage.uri)
    query = (
        select(Item.item_id, Item.title, Item.category, Item.brand, Item.attributes, images.label("images"))
        .join(ItemImage, ItemImage.item_id == Item.item_id)
        .where(Item.title.is_not(None))
        .group_by(Item.item_id)
        .order_by(Item.item_id)
    )
    with connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def show_texts(guide: Guide) -> None:
    """Search by some of the catalogue's own words, and show what is found."""
    from shopvision.search import SearchOptions, VisualSearch

    titles = [record["title"] for record in _records()]
    texts = titles[:: max(1, len(titles) // TEXTS)][:TEXTS]
    found = VisualSearch().by_text(texts, SearchOptions(k=NEIGHBOURS))
    shown = [
        (one.text, ", ".join(f"{item.title or item.item_id} {item.score:.2f}" for item in one.items)) for one in found
    ]
    guide.show(("text", "items whose pictures show it"), shown)


def show_selections(guide: Guide, output: Path, job_id: uuid.UUID) -> None:
    """Write the page of a job that selected items' pictures, and show some of it."""
    from shopvision.selection.item_pictures.report import items_of, write_report
    from worker.ledger.progress import job_progress, list_failures

    items = items_of(job_id)
    progress = job_progress(job_id)
    facts = [
        ("pictures compared", f"{progress.counters.get('candidates', 0):,}"),
        ("recall", str(progress.params.get("recall")).partition(":")[0]),
    ]
    write_report(output, items, facts=facts, failures=list_failures(job_id, limit=200))
    shown = [
        (
            item.heading,
            f"{item.best[0].title or item.best[0].item_id} {item.best[0].score:.2f}, {item.best[0].reasons[-1]}",
        )
        for item in items[:SHOWN]
        if item.best
    ]
    guide.show(("item", "picture that represents it"), shown)
