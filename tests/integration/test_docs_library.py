"""Every block of docs/library.md runs, one after the other, as a reader would try them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sqlalchemy import text

import shopvision
from shopvision import models
from shopvision.catalogue import upsert_items
from shopvision.database import connect
from shopvision.index.publish import publish
from tests.integration.index.catalogue import embed
from tests.unit.matching import tiny_matcher
from tests.unit.selection import tiny_clik, tiny_recall

PAGE = (Path(__file__).parents[2] / "docs" / "library.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> Path:
    """Where a reader tries the page: his files, four small models, and two indexes of two items."""
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    monkeypatch.chdir(tmp_path)
    for name, colour in (("photo", (200, 30, 0)), ("other", (0, 90, 220))):
        Image.new("RGB", (64, 48), colour).save(f"{name}.jpg")
    Path("offers.jsonl").write_text("".join(json.dumps({"item_id": name, "title": name}) + "\n" for name in "ab"))
    Path("pairs.csv").write_text("left_id,right_id,label\na,b,1\n")

    torch.manual_seed(1)
    timm.models.save_for_hf(
        timm.create_model("test_resnet", num_classes=2), tmp_path / "encoder", safe_serialization=True
    )
    encoder = models.import_model("local-dir:encoder")
    models.activate("catalogue_encoder", encoder.spec)
    words = (*tiny_matcher.WORDS, "linen", "shirt")  # of the page: an item of which a model knows no word is refused
    monkeypatch.setattr(tiny_matcher, "WORDS", words)
    monkeypatch.setitem(tiny_matcher.BERT, "vocab_size", len(tiny_matcher.SPECIAL) + len(words) + 1)
    tiny_matcher.save_tiny(tmp_path / "matcher", tiny_matcher.arguments("text_two_tower", tiny_matcher.COSINE))
    models.import_model("local-dir:matcher", name="my-matcher", tag="v3")
    tiny_clik.save_tiny(tmp_path / "runs" / "ranker" / "model", tiny_clik.arguments())

    with connect() as connection:
        upsert_items(connection, [{"item_id": f"B-{n}", "images": [f"https://shop.example/b-{n}.jpg"]} for n in (1, 2)])
        pictures = connection.scalars(text("SELECT image_id FROM item_images ORDER BY item_id")).all()
    embed(encoder, pictures, models.load(encoder.spec)(["photo.jpg", "other.jpg"]).astype(np.float16))
    publish("catalogue", encoder)
    tiny_recall.save_tiny_recall(tmp_path / "recall")
    recall = models.import_model("local-dir:recall")
    embed(recall, pictures, models.load(recall.spec).image_encoder(["photo.jpg", "other.jpg"]).astype(np.float16))
    publish("catalogue-text", recall)
    return tmp_path


def test_the_page_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE):
        exec(compile(block, "library.md", "exec"), names)  # the page is ours
    assert (names["known"]["B-1"].title, names["pairs"].labels.tolist()) == ("Linen shirt, white", [1])
    assert names["vectors"].shape == (2, names["encoder"].dimension)
    assert names["found"].verdict in {"same", "different", "review"}
    assert [item.item_id for item in names["result"].garments[0].items] == ["B-1", "B-2"]
    assert [item.item_id for item in names["others"].items] == ["B-2"]
    assert (names["garment"].number, names["garment"].box) == (0, (8, 8, 40, 40))
    assert names["outcome"] == shopvision.PhotoFailure(
        "missing.jpg", "not_found", "missing.jpg: No such file or directory."
    )
    assert [hit.item_id for hit in names["hits"]] == ["B-2", "B-1"]
    assert capsys.readouterr().out.endswith("not_found Picture 0: missing.jpg: No such file or directory.\n")


def test_the_page_names_the_whole_surface() -> None:
    shown = set(re.findall(r"\w+", "".join(re.findall(r"```python\n.*?```|`[^`\n]+`", PAGE, flags=re.DOTALL))))
    assert set(shopvision.__all__) - shown == {"__version__"}
