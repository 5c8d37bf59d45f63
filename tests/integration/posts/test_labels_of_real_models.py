"""label_posts with models as they are trained and saved: a small detector of its own family, and a classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sqlalchemy import select

from shopvision.database import connect
from shopvision.fashion.detection.card import save_detector
from shopvision.fashion.detection.predict import load_detector
from shopvision.fashion.detection.regions import RegionRules
from shopvision.fashion.posts.tables import TrainingPair
from shopvision.fashion.thumbnails.card import save_classifier
from shopvision.images import decoding
from shopvision.models import activate, import_model
from tests.integration.posts.post_shop import PostShop, labelled
from tests.unit.encoders.tiny_networks import PREPROCESSING
from tests.unit.fashion.test_pyramid_detector import tiny
from tests.unit.fashion.test_thumbnail_classifier import network

EVERYTHING = {"score": 0.0, "same_class_iou": 1.0, "any_class_iou": 1.0, "smallest_garment": 0}


@pytest.mark.usefixtures("database")
def test_pairs_are_made_of_the_surest_garment(tmp_path: Path, set_environment: Callable[..., None]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    set_environment(SHOPVISION_IMAGE_ROOTS=str(folder), SHOPVISION_OBJECT_STORE=f"file://{tmp_path}/store")
    save_detector(tmp_path / "detector", tiny(), name="detector", source="test")
    always = network(labels=("bag", "shoes", "etc"))
    with torch.no_grad():
        always.head.bias.copy_(torch.tensor([0.0, 99.0, 0.0]))
    save_classifier(tmp_path / "classifier", always, PREPROCESSING, name="classifier", source="test")
    for role, name in (("fashion_detector", "detector"), ("thumbnail_classifier", "classifier")):
        activate(role, import_model(f"local-dir:{tmp_path / name}").spec)

    shop = PostShop(folder)
    records = [shop.post(f"p{number}", "top", seed=number) for number in range(3)]
    rules = {**EVERYTHING, "classes": ["shoes"], "max_shoes": 10_000}
    job = shop.label(*records, rules=rules)
    assert (job.state, job.error, job.done) == ("succeeded", None, 3)
    assert labelled() == dict.fromkeys(("p0", "p1", "p2"), ("kept", None))
    detector = load_detector(tmp_path / "detector", device="cpu")
    with decoding((folder / "p1.png").read_bytes(), target=detector.target) as decoded:
        (regions,) = detector.detect([detector.prepare(decoded)], RegionRules(0.0, 1.0, 1.0, 0.0))
    assert isinstance(regions, tuple)
    best = next(region for region in regions if region.label == "shoes")
    columns = TrainingPair.__table__.c
    with connect() as connection:
        pair = connection.execute(select(*columns).where(columns.post_id == "p1")).one()
    assert pair.anchor_box == pytest.approx(best.box, abs=0.01)
    assert (pair.garment_score, pair.class_probability) == pytest.approx((best.score, 1.0), abs=1e-5)
    assert pair.category == "shoes"
    strict = shop.label(*records, rules={"score": 1.0})
    assert strict.result is not None
    assert strict.result["posts"] == {"no_garment": 3}
