"""Garments instead of whole pictures: composed, refreshed beside the old index through a kill -9, and moved over."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from sqlalchemy import select

from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.fashion.tables import PictureRegion
from shopvision.index.tables import Embedding
from shopvision.models import find, import_model
from tests.acceptance.shop import Shop
from tests.unit.fashion.tiny_members import save_tiny_detector, save_tiny_encoder

pytestmark = pytest.mark.acceptance


def refresh(shop: Shop, *parameters: str) -> dict[str, Any]:
    return dict(shop.cli("jobs", "submit", "refresh_embeddings", *parameters, "--wait"))


def test_garments_instead_of_whole_pictures(shop: Shop) -> None:
    detector = import_model(f"local-dir:{save_tiny_detector(shop.folder / 'finder')}")
    (shop.folder / "categories.json").write_text(json.dumps({"Clothes": "dress", "Clothes/Backpack": "bag"}))
    composed = shop.cli(
        "models", "compose", "--detector", detector.spec, "--encoder", str(save_tiny_encoder(shop.folder / "eye")),
        "--categories", str(shop.folder / "categories.json"), "--smallest-side", "8", "--score", "0.2",
        "--name", "garments",
    )["spec"]  # fmt: skip
    item = shop.some_items(1)[0]
    before = shop.cli("search", "--item", item)["model"]

    job_id = shop.begin_refresh(kind="refresh_one_chunk", model=composed)
    os.kill(shop.holder(job_id)[1], signal.SIGKILL)
    shop.succeeds_exactly_once(job_id)
    with connect() as connection:
        found = set(
            connection.execute(
                select(PictureRegion.image_id, PictureRegion.region).where(
                    PictureRegion.detector_version_id == detector.model_version_id
                )
            ).all()
        )
        embedded = connection.execute(
            select(Embedding.image_id, Embedding.region).where(
                Embedding.model_version_id == find(composed).model_version_id
            )
        ).all()
    assert set(embedded) <= found
    assert any(region for _, region in embedded)

    refresh(shop)  # the plain encoder has its vectors again
    shop.cli("models", "activate", "catalogue_encoder", composed)
    try:
        with connect() as connection:
            last = connection.scalar(select(ItemImage.item_id).order_by(ItemImage.image_id.desc()).limit(1))
        some = refresh(shop, f"item_ids={json.dumps([last])}")
        assert "search stays with that one" in some["result"]["reason"]
        assert shop.cli("search", "--item", item)["model"] == before
        whole = refresh(shop)
        assert (
            whole["counters"]["embedded"]
            == whole["counters"]["detected"]
            == whole["total"] - some["total"] - len(embedded)
        )
        assert (whole["state"], whole["result"]["kind"]) == ("succeeded", "full")
        assert shop.cli("search", "--item", item)["model"] == composed
    finally:
        shop.cli("models", "rollback", "catalogue_encoder")
        refresh(shop)
