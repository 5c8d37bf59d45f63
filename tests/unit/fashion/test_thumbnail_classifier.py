"""Thumbnail classifiers: probabilities, their temperature, cards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from shopvision.encoders.image_networks import build_image
from shopvision.errors import JobError, UserError
from shopvision.fashion.thumbnails.card import save_classifier
from shopvision.fashion.thumbnails.classifier import ThumbnailClassifier
from shopvision.fashion.thumbnails.network import ClassifierArguments, ClassifierNetwork
from shopvision.models.card import CARD_FILE, Architecture
from shopvision.models.kinds import find_kind
from tests.unit.encoders.tiny_networks import PREPROCESSING, RESNET, save_tiny_projected, transformers_network

KIND = find_kind("thumbnail_classifier")
LABELS = ("bag", "dress", "etc")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def network(backbone: Architecture = RESNET, **arguments: object) -> ClassifierNetwork:
    torch.manual_seed(3)
    built = ClassifierArguments.model_validate({"backbone": backbone, "labels": LABELS, **arguments})
    return ClassifierNetwork(built, build_image(backbone)).eval()


def load(folder: Path) -> ThumbnailClassifier:
    return KIND.load(folder, device="cpu", precision="float32")


@pytest.mark.parametrize("unit", [True, False])
def test_probabilities_are_the_softmax_of_logits_by_the_temperature(
    pictures: np.ndarray, tmp_path: Path, *, unit: bool
) -> None:
    made = network(transformers_network("vit"), unit_features=unit, temperature=1.7)
    card = save_classifier(tmp_path / "model", made, PREPROCESSING, name="tiny", source="made")
    assert (card.kind, card.dimension) == ("thumbnail_classifier", None)
    pixels = torch.from_numpy((pictures.astype(np.float64) / 255 - 0.5) / 0.5).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        features = made.backbone(pixels).double().numpy()
    if unit:
        features *= np.sqrt(features.shape[1]) / np.linalg.norm(features, axis=1, keepdims=True)
    logits = features @ made.head.weight.detach().double().numpy().T + made.head.bias.detach().double().numpy()
    powers = np.exp(logits / 1.7)
    classifier = load(tmp_path / "model")
    assert (classifier.labels, classifier.preprocessing, classifier.temperature) == (LABELS, PREPROCESSING, 1.7)
    found = classifier.probabilities(pictures)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, powers / powers.sum(axis=1, keepdims=True), atol=2e-6)


def test_a_picture_that_the_network_cannot_place_has_no_probabilities(pictures: np.ndarray) -> None:
    class Nowhere(torch.nn.Module):
        head_hidden_size = 4

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            means = images.mean(dim=(2, 3)).repeat(1, 2)[:, :4]
            return torch.where(means < -0.5, torch.nan, means)

    arguments = ClassifierArguments(backbone=RESNET, labels=LABELS)
    classifier = ThumbnailClassifier(
        ClassifierNetwork(arguments, Nowhere()), PREPROCESSING, device=torch.device("cpu"), dtype=torch.float32
    )
    dark = np.concatenate([pictures[:1] // 4, pictures[:1] // 2 + 128])
    assert np.isfinite(classifier.probabilities(dark)).all(axis=1).tolist() == [False, True]


def test_an_encoder_of_ours_can_stand_below(pictures: np.ndarray, tmp_path: Path) -> None:
    encoder = save_tiny_projected(tmp_path / "encoder")
    card = json.loads((tmp_path / "encoder" / CARD_FILE).read_text())
    made = network(Architecture.model_validate(card["architecture"]))
    assert made.head.in_features == encoder.arguments.dimension
    save_classifier(tmp_path / "model", made, PREPROCESSING, name="tiny", source="made")
    np.testing.assert_allclose(load(tmp_path / "model").probabilities(pictures).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": ["bag"]}, UserError, r"card.json: architecture.arguments.labels: Tuple should have at least 2"),
        ({"labels": ["bag", "bag", "hat"]}, UserError, "two labels have one name"),
        ({"temperature": 0}, UserError, "architecture.arguments.temperature: Input should be greater than 0"),
        ({"labels": ["bag", "hat"]}, JobError, r"tensor 'head.weight' has the shape \[3, \d+\]"),
    ],
)
def test_a_wrong_card_is_refused(
    change: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    save_classifier(folder, network(), PREPROCESSING, name="tiny", source="made")
    card = json.loads((folder / CARD_FILE).read_text())
    card["architecture"]["arguments"] |= change
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(error, match=message):
        load(folder)
