"""A small shop whose pairs were scored by a job, for tests of what becomes of them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy import insert

from shopvision.catalogue import upsert_items
from shopvision.database import connect
from shopvision.matching.groups.group_update import update_groups
from shopvision.matching.tables import PairScore
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.tables import ModelRole, ModelVersion
from worker.ledger.tables import Job

JOB = uuid.UUID("11111111-0000-0000-0000-000000000000")
HOSTILE = "</script><script>document.title='taken'</script>"


def add_matcher() -> int:
    """A model version that serves; returns its id."""
    card = ModelCard(
        name="matcher", tag="1", kind="pair_scorer", architecture=Architecture(name="test"), source="test", files={},
        dimension=3, thresholds={"same": 0.9, "different": 0.1, "decision": 0.6},
    )  # fmt: skip
    with connect() as connection:
        version = connection.scalar(
            insert(ModelVersion)
            .values(name="matcher", tag="1", card=card.model_dump(mode="json"))
            .returning(ModelVersion.model_version_id)
        )
        connection.execute(insert(ModelRole).values(role="pair_scorer", model_version_id=version))
    return int(version or 0)


def add_scores(version: int, *pairs: tuple[str, str, float, *tuple[str, ...]], job_id: uuid.UUID = JOB) -> None:
    """(left, right, probability, verdict, what they have exactly)."""
    rows = [
        {
            "left_item_id": left, "right_item_id": right, "model_version_id": version, "probability": probability,
            "verdict": verdict, "exact": exact, "input_hash": b"", "job_id": job_id,
        }
        for left, right, probability, verdict, *exact in pairs
    ]  # fmt: skip
    with connect() as connection:
        connection.execute(insert(PairScore), rows)


def add_job(params: dict[str, Any], job_id: uuid.UUID = JOB, kind: str = "score_pairs") -> None:
    """A row of the ledger."""
    with connect() as connection:
        connection.execute(
            insert(Job).values(job_id=job_id, kind=kind, params=params, state="succeeded", source="test")
        )


def add_items(items: Sequence[dict[str, Any]]) -> None:
    with connect() as connection:
        upsert_items(connection, items)


def paint(folder: Path, name: str, colour: str) -> str:
    """A picture of one colour; returns its address."""
    Image.new("RGB", (60, 80), colour).save(folder / f"{name}.png")
    return (folder / f"{name}.png").as_uri()


def fill_shop(folder: Path) -> int:
    """Seven items in three scripts: two groups, a pair for review and a conflict; returns the model version's id."""
    version = add_matcher()

    def item(item_id: str, title: str, shade: str, brand: str, **attributes: str) -> dict[str, Any]:
        return {
            "item_id": item_id, "title": title, "brand": brand, "category": "Shirts", "price": 20,
            "images": [paint(folder, item_id, shade)],
            "attributes": [{"key": key, "value": value} for key, value in attributes.items()],
        }  # fmt: skip

    add_items(
        [
            item("a1", "Linen shirt, blue", "blue", "Myn", colour="blue", size="M"),
            item("a2", "Blue shirt of linen", "navy", "Myn", colour="navy", size="M"),
            item("a3", "초록 리넨 셔츠", "green", "Myn", size="M"),
            item("b1", "棉 T恤 红", "red", "Sun", fabric="cotton"),
            item("b2", HOSTILE, "darkred", "Sun", fabric="cotton, 5%"),
            item('c"1', "Wool, hat", "gray", "Sun"),
            {"item_id": "c,2", "title": "=Wool hat, grey", "category": "Hats", "images": ["file:///gone.png"]},
        ]
    )
    add_scores(
        version,
        ("a1", "a2", 0.99, "same"), ("a2", "a3", 0.95, "same"), ("b1", "b2", 0.97, "same", "picture"),
        ("a3", "b1", 0.92, "same"), ("a1", "b2", 0.01, "different"), ('c"1', "c,2", 0.55, "review", "code"),
        ("a1", "b1", 0.3, "review"),
    )  # fmt: skip
    add_job({"model": "matcher:1"})
    update_groups(version, JOB)
    return version
