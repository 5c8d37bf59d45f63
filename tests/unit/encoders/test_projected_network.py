"""Networks of transformers and networks with a projection: as encoders, beside other models, and wrong cards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from shopvision.encoders.image_encoder import load_image_encoder
from shopvision.encoders.image_networks import build_image, dimension_of
from shopvision.errors import JobError, UserError
from shopvision.models.card import CARD_FILE, Architecture
from shopvision.training.pretrained import fetch_image
from tests.unit.encoders.tiny_networks import (
    PREPROCESSING,
    RESNET,
    SWIN,
    VIT,
    projected,
    save_tiny_projected,
    transformers_network,
)

BACKBONES = {
    "timm": RESNET,
    "swin": transformers_network("swin"),
    "vit": transformers_network("vit"),
    "vit-cls": transformers_network("vit", "cls"),
}


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_saved_network_gives_the_vectors_of_the_one_in_memory(
    name: str, pictures: np.ndarray, tmp_path: Path
) -> None:
    network = save_tiny_projected(tmp_path / "model", BACKBONES[name])
    normalised = (pictures.astype(np.float64) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        features = network.backbone(torch.from_numpy(normalised.transpose(0, 3, 1, 2)).float()).double().numpy()
    layer = network.projection
    expected = features @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    encoder = load_image_encoder(tmp_path / "model", device="cpu", precision="float32")
    assert encoder.dimension == 6
    np.testing.assert_allclose(encoder.encode(pictures), expected, atol=2e-6)
    halves = load_image_encoder(tmp_path / "model", device="cpu", precision="bfloat16").encode(pictures)
    assert ((halves * expected).sum(axis=1) > 0.99).all()


def test_trainings_start_from_one_as_from_any_other(tmp_path: Path) -> None:
    network = save_tiny_projected(tmp_path / "model", transformers_network("swin"))
    image = fetch_image(f"local-dir:{tmp_path / 'model'}")
    assert (image.dimension, image.preprocessing) == (6, PREPROCESSING)
    for name, tensor in image.network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])
    assert dimension_of(image.card.architecture) == 6


def test_pooling_by_hand(pictures: np.ndarray) -> None:
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255.0
    for name in ("swin", "vit"):
        torch.manual_seed(3)
        network = build_image(transformers_network(name, "mean"))
        with torch.inference_mode():
            tokens = network.network(pixels).last_hidden_state.numpy()
            np.testing.assert_allclose(network(pixels).numpy(), tokens.mean(axis=1), atol=1e-6)


def test_without_a_bias_there_is_none() -> None:
    assert projected(RESNET, bias=False).projection.bias is None


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (Architecture(library="transformers", name="bert"), "'bert' pooled by pooler is no image network"),
        (transformers_network("swin", "cls"), "cls is of vit alone"),
        (
            Architecture(library="transformers", name="vit", arguments={"config": VIT, "pool": "cls"}),
            "'vit': pool: Extra inputs",
        ),
        (
            Architecture(library="transformers", name="vit", arguments={"config": {**VIT, "hidden_size": "wide"}}),
            "transformers cannot build 'vit'",
        ),
        (
            Architecture(library="transformers", name="swin", arguments={"config": {**SWIN, "num_heads": [2]}}),
            "transformers cannot build 'swin'",
        ),
        (
            Architecture(library="shopvision", name="projected", arguments={"backbone": RESNET.model_dump()}),
            "architecture.arguments.dimension: Field required",
        ),
        (
            Architecture(
                library="shopvision",
                name="projected",
                arguments={
                    "dimension": 2,
                    "backbone": {"library": "shopvision", "name": "projected"},
                },
            ),
            "architecture.arguments.backbone: a projection stands on a network of timm or transformers",
        ),
        (Architecture(library="shopvision", name="clik"), "'clik' is not a timm architecture"),
    ],
)
def test_a_card_that_builds_nothing_is_refused(architecture: Architecture, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_image(architecture)


def test_weights_of_another_projection_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_tiny_projected(folder)
    card = json.loads((folder / CARD_FILE).read_text())
    card["architecture"]["arguments"]["dimension"] = 7
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(JobError, match=r"tensor 'projection.weight' has the shape \[6, \d+\]"):
        load_image_encoder(folder, device="cpu")
