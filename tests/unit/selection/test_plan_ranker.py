"""Ranking without a queue: every way to give a picture, the order, and the errors a caller sees."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shopvision.encoders.image_encoder import ImageEncoder
from shopvision.errors import ItemError, UserError
from shopvision.selection.clik.card import load_clik
from shopvision.selection.clik.predict import TOPICS_AT_ONCE, PlanRanker, RankedPicture
from shopvision.selection.topic import Topic
from tests.unit.selection.tiny_clik import PREPROCESSING, arguments, save_tiny

PLAN = {"name": "Summer dresses", "kwds": ["linen", "sale"], "date": "2021-05-01"}


@pytest.fixture(scope="module", params=["test_vit", "test_resnet"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    save_tiny(made, arguments(request.param))
    return made


@pytest.fixture(scope="module")
def ranker(folder: Path) -> PlanRanker:
    return PlanRanker(folder, device="cpu", precision="float32")


@pytest.fixture
def pictures() -> list[np.ndarray]:
    """Of the model's input size, so that nothing is resized; each of one colour with some noise."""
    rng = np.random.default_rng(3)
    return list(rng.integers(0, 200, (40, 1, 1, 3), np.uint8) + rng.integers(0, 56, (40, 32, 32, 3), np.uint8))


@torch.no_grad()
def plain_scores(folder: Path, plan: dict[str, object], pictures: list[np.ndarray]) -> np.ndarray:
    """The model as it was saved, one plan and one picture at a time."""
    loaded = load_clik(folder)
    topics = loaded.clik.txt_encoder(loaded.topic_tokenizer.encode([Topic.from_mapping(plan)]))
    scores = []
    for picture in pictures:
        normalised = (picture.astype(np.float64) / 255 - PREPROCESSING.mean) / PREPROCESSING.std
        vector = loaded.clik.img_encoder(torch.from_numpy(normalised.transpose(2, 0, 1)[None]).float())
        scores.append(loaded.clik.compatibility(topics, vector[None]).item())
    return np.array(scores)


def test_pictures_are_ranked_by_compatibility(folder: Path, ranker: PlanRanker, pictures: list[np.ndarray]) -> None:
    expected = plain_scores(folder, PLAN, pictures)
    assert np.ptp(expected) > 1e-4
    ranked = ranker(PLAN, pictures)
    np.testing.assert_allclose([expected[place.index] for place in ranked], sorted(expected, reverse=True), atol=1e-5)
    np.testing.assert_allclose([place.score for place in ranked], [expected[p.index] for p in ranked], atol=1e-5)
    assert ranker(PLAN, pictures, top_k=3) == ranked[:3]
    assert ranker(PLAN, pictures, top_k=99) == ranked
    assert isinstance(ranked[0], RankedPicture)


def test_half_precision_is_close(folder: Path, ranker: PlanRanker, pictures: list[np.ndarray]) -> None:
    halves = PlanRanker(folder, device="cpu", precision="bfloat16")
    exact, rough = (np.stack(model.image_encoder(pictures)) for model in (ranker, halves))
    assert ((exact * rough).sum(axis=1) > 0.98).all()  # noise goes farther through random weights than trained ones
    assert not np.array_equal(exact, rough)
    assert halves.query_vectors([Topic.from_mapping(PLAN)]).dtype == np.float32
    np.testing.assert_array_equal(*(model.query_vectors([Topic.from_mapping(PLAN)]) for model in (ranker, halves)))


def test_equal_scores_keep_the_given_order(ranker: PlanRanker, pictures: list[np.ndarray]) -> None:
    ranked = ranker(PLAN, [pictures[0], pictures[1], pictures[0], pictures[1], pictures[0]])
    first, second = sorted([[0, 2, 4], [1, 3]], key=lambda group: [place.index for place in ranked].index(group[0]))
    assert [place.index for place in ranked] == first + second


def test_paths_addresses_and_arrays_are_the_same_picture(
    ranker: PlanRanker, pictures: list[np.ndarray], tmp_path: Path, set_environment: Callable[..., None]
) -> None:
    file = tmp_path / "photo 1.png"
    Image.fromarray(pictures[0]).save(file)
    set_environment(SHOPVISION_IMAGE_ROOTS=str(tmp_path))
    ranked = ranker(
        Topic.from_mapping(PLAN), [file, str(file), file.as_uri(), pictures[0], pictures[0][:, ::-1][:, ::-1]]
    )
    assert len({place.score for place in ranked}) == 1
    assert [place.index for place in ranked] == [0, 1, 2, 3, 4]


def test_addresses_keep_the_rules_of_the_door(ranker: PlanRanker, tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    Image.new("RGB", (9, 9)).save(file)
    assert ranker(PLAN, [file])
    with pytest.raises(ItemError, match=r"Picture 0: file://.* leads out of the allowed folders") as found:
        ranker(PLAN, [file.as_uri()])
    assert found.value.code == "outside_roots"
    with pytest.raises(ItemError, match=r"Picture 1: ftp://shop/a\.jpg: only file://"):
        ranker(PLAN, [file, "ftp://shop/a.jpg"])


def test_unreadable_pictures_are_named(ranker: PlanRanker, pictures: list[np.ndarray], tmp_path: Path) -> None:
    page = tmp_path / "page.jpg"
    page.write_text("<html>not found</html>")
    missing = tmp_path / "missing.jpg"
    for wrong, code, message in (
        (page, "html", rf"Picture 1 \({re.escape(str(page))}\): This is a web page"),
        (missing, "not_found", rf"Picture 1: {re.escape(str(missing))}: No such file"),
        (tmp_path, "not_a_file", r"Picture 1: .* is not an ordinary file"),
    ):
        with pytest.raises(ItemError, match=message) as found:
            ranker(PLAN, [pictures[0], wrong])
        assert found.value.code == code


def test_a_picture_without_a_vector_is_named(folder: Path, pictures: list[np.ndarray]) -> None:
    ranker = PlanRanker(folder, device="cpu", precision="float32")
    assert ranker(PLAN, pictures[:2])
    with torch.no_grad():
        ranker._image_tower.proj.linear_out.bias.fill_(torch.nan)
    with pytest.raises(ItemError, match="Picture 0: The model gives this picture no finite vector") as found:
        ranker(PLAN, pictures[:2])
    assert found.value.code == "bad_vector"


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_arrays_must_be_pictures(ranker: PlanRanker, wrong: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"Picture 0: An array must be uint8 \(height, width, 3\), RGB"):
        ranker(PLAN, [wrong])


def test_wrong_calls(folder: Path, ranker: PlanRanker, pictures: list[np.ndarray]) -> None:
    assert ranker(PLAN, []) == []
    with pytest.raises(UserError, match="top_k is 0"):
        ranker(PLAN, pictures, top_k=0)
    with pytest.raises(UserError, match="no slot 'title'"):
        ranker({"title": "x"}, pictures)
    with pytest.raises(UserError, match="Device 'abacus' is unknown"):
        PlanRanker(folder, device="abacus")


def test_many_topics_at_once_are_the_topics_one_by_one(ranker: PlanRanker) -> None:
    words = ["summer", "dress", "linen", "shoes", "sale"]
    rng = np.random.default_rng(1)
    topics = [Topic(" ".join(rng.choice(words, rng.integers(0, 30)))) for _ in range(TOPICS_AT_ONCE + 20)]
    together = ranker.query_vectors(topics)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([ranker.query_vectors([topic]) for topic in topics])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert ranker.query_vectors([]).shape == (0, 8)


def test_scores_are_dot_products_with_the_image_encoder(ranker: PlanRanker, pictures: list[np.ndarray]) -> None:
    assert isinstance(ranker.image_encoder, ImageEncoder)
    assert ranker.image_encoder.dimension == 8
    vectors = ranker.image_encoder.encode(np.stack(pictures))
    scores = vectors @ ranker.query_vectors([Topic.from_mapping(PLAN)])[0]
    for place in ranker(PLAN, pictures):
        assert place.score == pytest.approx(scores[place.index], abs=1e-5)
