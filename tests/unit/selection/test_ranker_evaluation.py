"""Evaluation of a ranker: against metrics of one exhibition at a time, and on a world where the answer is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import ndcg_score

from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.selection.clik.card import load_clik
from shopvision.selection.clik.data import read_table
from shopvision.selection.clik.evaluate import evaluate_ranker, evaluate_vectors
from shopvision.selection.clik.exhibitions import RankingData
from shopvision.selection.clik.predict import PlanRanker
from shopvision.settings import get_settings
from tests.unit.selection.clik_world import PRODUCTS, RANDOM_MRR, World, make_world
from tests.unit.selection.tiny_clik import arguments, save_tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), topics=24)


@pytest.fixture(scope="module")
def exhibitions(world: World) -> RankingData:
    data = read_table(world.table, label="ctr", images=str(world.images))
    named = [
        replace(exhibition, category="sunny" if "summer" in exhibition.topic.name else "other")
        for exhibition in data.exhibitions
    ]
    return data.with_exhibitions(named)


@pytest.fixture
def door(world: World) -> PictureDoor:
    settings = get_settings().model_copy(update={"image_roots": (world.images.resolve(),)})
    with PictureDoor(settings) as opened:
        yield opened  # type: ignore[misc] # pytest knows fixtures that yield


def unit(rows: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_metrics_are_those_of_each_exhibition_by_itself(exhibitions: RankingData) -> None:
    count, used = len(exhibitions.exhibitions), exhibitions.used_products()
    topics, queries, images = unit(count, 0), unit(count, 1), unit(len(used), 2)
    report = evaluate_vectors(exhibitions, topic_vectors=topics, query_vectors=queries, image_vectors=images)
    place = {product: row for row, product in enumerate(used.tolist())}
    reciprocal, top5, gains, best = [], [], [], []
    for exhibition, query in zip(exhibitions.exhibitions, queries, strict=True):
        rows = [place[product] for product in exhibition.products.tolist()]
        order = np.argsort(-(images[rows] @ query))
        reciprocal.append(1 / (order.tolist().index(0) + 1))
        top5.append(float(order[0] < 5))
        gains.append(ndcg_score(exhibition.labels[None], (images[rows] @ query)[None], k=10))
        best.append(images[rows[0]])
    metrics = report.metrics
    assert metrics["mrr"].value == pytest.approx(np.mean(reciprocal))
    assert metrics["mrr"].random == pytest.approx(RANDOM_MRR)
    assert metrics["top5_top1"].value == pytest.approx(np.mean(top5))
    assert metrics["top5_top1"].random == pytest.approx(5 / PRODUCTS)
    assert metrics["ndcg_10"].value == pytest.approx(np.mean(gains))
    similarity = topics @ np.array(best).T
    assert metrics["topic_to_image"].value == pytest.approx((similarity.argmax(1) == np.arange(count)).mean())
    assert metrics["image_to_topic"].value == pytest.approx((similarity.argmax(0) == np.arange(count)).mean())
    assert metrics["recall_1"].value == metrics["topic_to_image"].value
    assert metrics["recall_10"].random == pytest.approx(10 / count)
    sunny = [exhibition.category == "sunny" for exhibition in exhibitions.exhibitions]
    assert set(report.categories) == {"sunny", "other"}
    assert report.categories["sunny"]["mrr"].value == pytest.approx(np.mean(np.array(reciprocal)[sunny]))
    assert report.categories["sunny"]["mrr"].units == sum(sunny)
    for metric in metrics.values():
        assert metric.low <= metric.value <= metric.high


def test_a_ranker_that_knows_the_labels_gets_everything_right(exhibitions: RankingData) -> None:
    count, used = len(exhibitions.exhibitions), exhibitions.used_products()
    images = np.zeros((len(used), count + 1), np.float32)
    for number, exhibition in enumerate(exhibitions.exhibitions):
        rows = np.searchsorted(used, exhibition.products)
        images[rows, number] = exhibition.labels + 0.1
    queries = np.eye(count, count + 1, dtype=np.float32)
    report = evaluate_vectors(exhibitions, topic_vectors=queries, query_vectors=queries, image_vectors=images)
    for name, metric in report.metrics.items():
        if name != "linear":
            assert metric.value == pytest.approx(1.0), name
            assert metric.random < 1.0 or name in {"top5_top5"}, name


def test_linear_evaluation_tells_categories_from_pictures(exhibitions: RankingData) -> None:
    count, used = len(exhibitions.exhibitions), exhibitions.used_products()
    images = 0.1 * unit(len(used), 3)
    for exhibition in exhibitions.exhibitions:
        if exhibition.category == "sunny":
            images[np.searchsorted(used, exhibition.products), 0] += 1.0
    vectors = unit(count, 4)
    full = evaluate_vectors(exhibitions, topic_vectors=vectors, query_vectors=vectors, image_vectors=images)
    assert full.metrics["linear"].value > 0.97
    assert full.metrics["linear"].random == 0.5
    fast = evaluate_vectors(
        exhibitions, topic_vectors=vectors, query_vectors=vectors, image_vectors=images, resamples=0, linear=False
    )
    assert "linear" not in fast.metrics
    assert fast.summary().as_dict()["metrics"]["mrr"]["low"] is None
    assert fast.metrics["mrr"].value == full.metrics["mrr"].value


def spread_vectors(folder: Path, world: World) -> None:
    """Give topics and pictures of an untrained ranker vectors of their own.

    All would have nearly one, and places of candidates whose scores differ by 1e-5 be a matter of rounding.
    """
    tensors = load_file(folder / "model.safetensors")
    tensors["txt_encoder.enc.embeddings.word_embeddings.weight"] *= 30
    tower = load_clik(folder).clik.img_encoder
    pixels = [np.asarray(Image.open(path).convert("RGB").resize((32, 32))) for path in world.images.glob("*.png")]
    pictures = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        tensors["img_encoder.proj.linear_out.bias"] -= tower.proj(tower.enc(pictures)).mean(0)
    save_file(tensors, folder / "model.safetensors")


def test_a_model_version_is_evaluated_as_plans_are_ranked(
    world: World, exhibitions: RankingData, door: PictureDoor, tmp_path: Path
) -> None:
    save_tiny(tmp_path, arguments("test_vit"))
    spread_vectors(tmp_path, world)
    seen: list[tuple[int, int]] = []
    report = evaluate_ranker(
        tmp_path, exhibitions, door, device="cpu", on_progress=lambda done, total: seen.append((done, total))
    )
    assert (report.exhibitions, report.pictures, report.unreadable) == (24, 24 * PRODUCTS, 0)
    assert report.model == load_clik(tmp_path).card.spec
    assert report.data_fingerprint == exhibitions.fingerprint()
    assert seen[-1] == (240, 240)
    ranker = PlanRanker(tmp_path, device="cpu")
    reciprocal = []
    for exhibition in exhibitions.exhibitions:
        paths = [world.images / f"{exhibitions.products.ids[product]}.png" for product in exhibition.products]
        order = [place.index for place in ranker(exhibition.topic, paths)]
        reciprocal.append(1 / (order.index(0) + 1))
    # Vectors travel in half precision, 11 bits, and scores lie some hundredths apart: few neighbours change places.
    assert report.metrics["mrr"].value == pytest.approx(np.mean(reciprocal), abs=0.03)
    assert len(set(reciprocal)) > 4
    assert json.loads(json.dumps(report.summary().as_dict(), allow_nan=False))["metrics"]["mrr"]["units"] == 24


def test_unreadable_pictures_are_left_out_and_counted(
    world: World, exhibitions: RankingData, door: PictureDoor, tmp_path: Path
) -> None:
    save_tiny(tmp_path / "model", arguments("test_resnet"))
    few = exhibitions.with_exhibitions(exhibitions.exhibitions[:3])
    lost = [world.images / f"{few.products.ids[product]}.png" for product in few.exhibitions[1].products]
    lost.append(world.images / f"{few.products.ids[int(few.exhibitions[2].products[0])]}.png")
    for path in lost:
        path.rename(tmp_path / path.name)
    try:
        report = evaluate_ranker(tmp_path / "model", few, door, device="cpu", resamples=50)
    finally:
        for path in lost:
            (tmp_path / path.name).rename(path)
    assert (report.unreadable, report.exhibitions, report.pictures) == (PRODUCTS + 1, 2, 2 * PRODUCTS - 1)


def test_nothing_to_evaluate_is_said(exhibitions: RankingData, door: PictureDoor, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no exhibition to evaluate on"):
        evaluate_ranker(tmp_path, exhibitions.with_exhibitions([]), door)
