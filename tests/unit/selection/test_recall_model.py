"""The dual tower as a model version: the same vectors from memory, from its folder and one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from shopvision import models
from shopvision.encoders.text_networks import pool
from shopvision.errors import JobError, UserError
from shopvision.items.item import Item
from shopvision.models.weights import read_tensors, save_tensors
from shopvision.selection.recall.card import load_recall
from shopvision.selection.recall.predict import RecallModel
from shopvision.selection.recall.texts import other_texts, recall_text
from tests.unit.selection.tiny_clik import PREPROCESSING
from tests.unit.selection.tiny_recall import recall_arguments, save_tiny_recall

TEXTS = ["summer dresses", "linen", "", "men shoe sale women dress summer autumn " * 5, "[SEP] dress"]
FORMS: dict[str, dict[str, Any]] = {
    "published": {"scale": "plain", "relations": ("has_category", "has_picture", "has_title")},
    "usual": {"pooling": "mean", "image_head": "linear", "unit_features": True, "text_head": "two_linear"},
}


@pytest.fixture(scope="module", params=FORMS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(request.param)
    save_tiny_recall(made, recall_arguments(**FORMS[request.param]), thresholds={"score": 0.25})
    return made


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def by_hand(features: torch.Tensor, head: Any, *, unit_features: bool) -> np.ndarray:
    """Features through a head in float64."""
    if unit_features:
        features = functional.normalize(features) * features.shape[1] ** 0.5
    vectors = features.double().numpy()
    for layer in (head.linear, head.second):
        if layer is not None:
            vectors = vectors @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    return vectors


@torch.no_grad()
def test_vectors_are_those_of_the_network_as_saved(folder: Path, pictures: np.ndarray) -> None:
    loaded = load_recall(folder)
    network, unit = loaded.network, loaded.arguments.unit_features
    normalised = (pictures.astype(np.float64) / 255 - PREPROCESSING.mean) / PREPROCESSING.std
    images = torch.from_numpy(normalised.transpose(0, 3, 1, 2)).float()
    raw = by_hand(network.image.network(images), network.image.head, unit_features=unit)
    model: RecallModel = models.load(folder, device="cpu", precision="float32")
    np.testing.assert_allclose(model.encode(pictures), raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=2e-6)
    np.testing.assert_allclose(network.image(images, unit=False).numpy(), raw, rtol=1e-5, atol=1e-5)

    found = model.encode_texts(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        tokens = loaded.tokenizer.encode([text])
        outputs = network.text.network(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        features = pool(outputs, tokens.attention_mask, loaded.arguments.pooling)
        raw = by_hand(features, network.text.head, unit_features=unit)[0]
        np.testing.assert_allclose(vector, raw / np.linalg.norm(raw), atol=2e-6)
    assert model.encode_texts([]).shape == (0, 8)
    np.testing.assert_allclose(model.scores(TEXTS[:2], list(pictures)), found[:2] @ model.encode(pictures).T, atol=1e-6)
    assert (model.dimension, model.batch_size, model.logit_scale) == (8, 32, pytest.approx(2.0, abs=0.2))
    assert model.card.thresholds == {"score": 0.25}


def test_texts_become_tokens_as_the_tokenizer_itself_makes_them(folder: Path) -> None:
    tokenizer = load_recall(folder).tokenizer
    plain = TEXTS[:4]
    batch = tokenizer.encode(plain)
    expected = tokenizer.tokenizer(plain, truncation=True, max_length=12, padding=True, return_tensors="pt")
    # The tiny tokenizer adds no special tokens by itself.
    for row, text in enumerate(plain):
        words = tokenizer.tokenizer(text).input_ids[:10]
        assert batch.input_ids[row, : len(words) + 2].tolist() == [2, *words, 3]
        assert batch.attention_mask[row].sum() == len(words) + 2
    assert batch.input_ids.shape[1] == min(expected.input_ids.shape[1], 12)
    assert tokenizer.encode(["[SEP] dress"]).input_ids.tolist() == [[2, 1, 7, 3]]  # an unknown word


def test_what_is_read_of_an_item() -> None:
    attributes = {"Colour": ("blue", "red"), "New": ("Yes",), "Size": ("42",), "currency": ("EUR",), "Maker": ("Acme",)}
    item = Item("1", "Runner  3", "shoes", "Acme", "9.99", "words", attributes)
    assert recall_text(item) == "Runner 3"
    assert recall_text(item, "attributes") == "Acme, blue, red"
    assert recall_text(item, "name_attributes") == "Runner 3, Acme, blue, red"
    assert recall_text(Item("1"), "name_attributes") == ""
    assert other_texts(item, "name") == ("Acme, blue, red", "Runner 3, Acme, blue, red")
    assert other_texts(Item("1", "Cap"), "name") == ()


def test_a_damaged_version_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    tensors = read_tensors(copy / "model.safetensors")
    tensors["image.head.linear.weights"] = tensors.pop("image.head.linear.weight")
    save_tensors(tensors, copy / "model.safetensors")
    with pytest.raises(JobError, match=r"tensor 'image\.head\.linear\.weight' is missing"):
        load_recall(copy)
    save_tiny_recall(tmp_path / "long", recall_arguments(max_length=200))
    with pytest.raises(UserError, match=r"max_length 200 is more than the encoder's 128 tokens"):
        load_recall(tmp_path / "long")
