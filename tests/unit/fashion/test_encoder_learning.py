"""Training finds what pictures of one product share, and leaves out what differs between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shopvision.encoders.projected_network import ProjectedArguments, ProjectedNetwork
from shopvision.fashion.encoding.config import EncoderConfig
from shopvision.fashion.encoding.features import ViewFeatures
from shopvision.fashion.encoding.fitting import Fitted, Materials, fit_encoder
from shopvision.fashion.encoding.inputs import FeatureInputs
from shopvision.fashion.encoding.pairs import Pair, PairData
from shopvision.fashion.encoding.start import Start
from shopvision.fashion.encoding.views import View
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import Architecture
from shopvision.training.run import TrainingRun

PRODUCTS, LEARNT = 240, 180
# Of 20 numbers 8 are the product's and 12 are others in every picture, twice as strong; a rotation mixes them.
OWN, PASSING, STRENGTH = 8, 12, 2.0


class Features(nn.Module):
    """Stands in the place of an image network: nothing asks it, because features are kept."""

    head_hidden_size = OWN + PASSING


def views(product: int) -> tuple[View, View]:
    return View(f"file:///{product}-0.jpg"), View(f"file:///{product}-1.jpg")


def materials(seed: int) -> Materials:
    """Two views of each product, by what a frozen network would say of them."""
    generator = np.random.default_rng(seed)
    own = generator.normal(size=(PRODUCTS, 1, OWN)).repeat(2, axis=1)
    passing = generator.normal(scale=STRENGTH, size=(PRODUCTS, 2, PASSING))
    turn, _ = np.linalg.qr(generator.normal(size=(OWN + PASSING, OWN + PASSING)))
    features = np.concatenate([own, passing], axis=2).reshape(2 * PRODUCTS, -1) @ turn
    torch.manual_seed(seed)
    network = ProjectedNetwork(ProjectedArguments(backbone=Architecture(name="none"), dimension=OWN), Features())
    image: Any = None  # nothing asks for it
    everything = [view for product in range(PRODUCTS) for view in views(product)]
    inputs = FeatureInputs(
        everything,
        Preprocessing(size=(8, 8)),
        torch.device("cpu"),
        ViewFeatures(features.astype(np.float16), np.arange(2 * PRODUCTS)[:, None]),
    )
    return Materials(Start(image, network, projected=False), inputs, {view: row for row, view in enumerate(everything)})


def pairs(products: range) -> PairData:
    return PairData(tuple(Pair(*views(number), str(number), "bag", (str(number),)) for number in products))


def learnt(folder: Path, seed: int = 0, **train: Any) -> Fitted:
    """An encoder that was taught, and never asked on the way how good it is on what measures it in the end."""
    settings = {"epochs": 12, "batch_size": 20, "lr": 3e-2, "patience": None, "select_by": "last", "seed": seed}
    config = EncoderConfig.model_validate(
        {"data": {"pairs": "none.jsonl"}, "model": {"dimension": OWN, "start": "random"}, "train": settings | train}
    )
    train_pairs, unseen = pairs(range(LEARNT)), pairs(range(LEARNT, PRODUCTS))
    return fit_encoder(config, materials(seed), train_pairs, unseen, TrainingRun(output=folder))


@pytest.mark.parametrize(
    ("train", "least"),
    [
        ({}, 0.8),
        ({"both_directions": False, "learn_temperature": True, "micro_batch": 16}, 0.8),
        ({"loss": "triplet"}, 0.45),
    ],
)
def test_products_that_were_never_seen_are_found(tmp_path: Path, train: dict[str, Any], least: float) -> None:
    """Of six seeds the worst finds 0.98 with the contrastive losses, and 0.67 with triplets."""
    fitted = learnt(tmp_path, **train)
    assert fitted.frozen["map"].value < 0.3
    assert fitted.valid["map"].value > least


def test_without_learning_nothing_is_gained(tmp_path: Path) -> None:
    assert learnt(tmp_path, epochs=1, lr=1e-12).valid["map"].value < 0.3
