"""The published thumbnail classifier: the same logits as under transformers 4.48, and nothing left at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shopvision.errors import JobError, UserError
from shopvision.models.importers import fetch
from shopvision.models.kinds import find_kind
from tests.unit.encoders.published_networks import pictures, read_record, tensors

LABELS = ("bag", "bottom", "dress", "hat", "outer", "shoes", "top", "etc")


def save(path: Path, record: dict[str, Any]) -> None:
    torch.save({name: torch.from_numpy(values) for name, values in tensors(record).items()}, path)


def test_the_probabilities_are_those_of_version_4_48(tmp_path: Path) -> None:
    record = read_record("vit_classifier")
    save(tmp_path / "classifier.pt", record)
    card = fetch(f"classifier:{tmp_path / 'classifier.pt'}", tmp_path / "model")
    assert (card.kind, card.source) == ("thumbnail_classifier", "classifier:classifier.pt")
    classifier = find_kind(card.kind).load(tmp_path / "model", device="cpu", precision="float32")
    assert classifier.labels == LABELS
    powers = np.exp(record["outputs"])
    np.testing.assert_allclose(
        classifier.probabilities(pictures()), powers / powers.sum(axis=1, keepdims=True), atol=1e-5
    )
    assert classifier.preprocessing.model_dump() == {
        "size": (32, 32), "crop_fraction": 1.0, "interpolation": "bilinear", "resize_mode": "squash",
        "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
    }  # fmt: skip


def test_other_classes_are_told_as_an_option(tmp_path: Path) -> None:
    record = read_record("vit_classifier")
    record["shapes"] |= {"fc.weight": [2, 128], "fc.bias": [2]}
    save(tmp_path / "classifier.pt", record)
    source = f"classifier:{tmp_path / 'classifier.pt'}"
    with pytest.raises(UserError, match="tells 2 classes apart, not 8: give `--option labels="):
        fetch(source, tmp_path / "model")
    with pytest.raises(UserError, match="--option labels=bag,bag: two labels have one name"):
        fetch(source, tmp_path / "model", {"labels": "bag,bag"})
    card = fetch(source, tmp_path / "model", {"labels": "bag, hat"})
    assert card.architecture.arguments["labels"] == ["bag", "hat"]


FIRST = "vit.encoder.layer.0.attention.attention.query.weight"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda shapes: shapes.pop(FIRST), JobError, r"'backbone.network.layers.0.attention.q_proj.weight' is missing"),
        (lambda shapes: shapes.pop("fc.weight"), UserError, "tensor 'fc.weight' is missing"),
        (lambda shapes: shapes.pop("fc.bias"), JobError, "tensor 'head.bias' is missing"),
        (lambda shapes: shapes.update({"vit.more": [2]}), JobError, "'backbone.network.more' is not in the arch"),
        (lambda shapes: shapes.update({"more": [2]}), JobError, "tensor 'more' is not in the arch"),
        (lambda shapes: shapes.update({FIRST: [128, 64]}), JobError, r"has the shape \[128, 64\]"),
        (lambda shapes: shapes.update({"fc.weight": [8, 64]}), JobError, r"'head.weight' has the shape \[8, 64\]"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Any]], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    record = read_record("vit_classifier")
    change(record["shapes"])
    save(tmp_path / "classifier.pt", record)
    with pytest.raises(error, match=message):
        fetch(f"classifier:{tmp_path / 'classifier.pt'}", tmp_path / "model")


def test_a_file_that_holds_more_than_tensors_is_not_opened(tmp_path: Path) -> None:
    torch.save({"vit": tmp_path}, tmp_path / "classifier.pt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint of plain tensors"):
        fetch(f"classifier:{tmp_path / 'classifier.pt'}", tmp_path / "model")
    with pytest.raises(UserError, match="There is no file"):
        fetch(f"classifier:{tmp_path / 'none.pt'}", tmp_path / "model")
