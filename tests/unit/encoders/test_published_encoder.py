"""Encoders of the published fashion search: the same vectors as under transformers 4.48, and nothing left at random."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from shopvision.encoders.image_encoder import load_image_encoder
from shopvision.encoders.transformers_4_names import present_name
from shopvision.errors import JobError, UserError
from shopvision.images.preprocessing import prepare
from shopvision.models.importers import fetch
from tests.unit.encoders.published_networks import pictures, read_record, save_encoder, tensors


def imported(tmp_path: Path) -> Path:
    card = fetch(f"encoder:local-dir:{tmp_path / 'published'}", tmp_path / "model")
    assert (card.name, card.source, card.dimension) == ("published", "encoder:local-dir:published", 6)
    return tmp_path / "model"


def test_the_vectors_are_those_of_version_4_48(tmp_path: Path) -> None:
    record = save_encoder(tmp_path / "published")
    encoder = load_image_encoder(imported(tmp_path), device="cpu", precision="float32")
    np.testing.assert_allclose(encoder.encode(pictures()), record["outputs"], atol=1e-5)


def test_a_file_in_the_names_of_version_5_is_read_too(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    record = save_encoder(tmp_path / "published")
    renamed = {}
    for name, values in tensors(record).items():
        part, _, rest = name.partition(".")
        present = present_name(rest) if part == "swin" else rest
        if present is not None:
            renamed[f"{part}.{present}"] = values
    assert len(renamed) == len(record["shapes"]) - len(record["buffers"])
    save_file(renamed, tmp_path / "published" / "model.safetensors", metadata={"format": "pt"})
    encoder = load_image_encoder(imported(tmp_path), device="cpu", precision="float32")
    np.testing.assert_allclose(encoder.encode(pictures()), record["outputs"], atol=1e-5)


def test_pictures_are_squashed_as_by_torchvision(tmp_path: Path) -> None:
    save_encoder(tmp_path / "published")
    encoder = load_image_encoder(imported(tmp_path), device="cpu", precision="float32")
    noise = np.random.default_rng(1).integers(0, 256, (90, 50, 3), np.uint8)
    expected = np.asarray(functional.resize(Image.fromarray(noise), [32, 32]))
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    np.testing.assert_array_equal(prepare(file.getvalue(), encoder.preprocessing), expected)
    assert encoder.preprocessing.mean == (0.485, 0.456, 0.406)


def test_an_older_plain_file(tmp_path: Path) -> None:
    record = save_encoder(tmp_path / "published")
    (tmp_path / "published" / "model.safetensors").unlink()
    (tmp_path / "published" / "preprocessor_config.json").unlink()
    state = {name: torch.from_numpy(values) for name, values in tensors(record).items()}
    torch.save(state, tmp_path / "published" / "image_encoder.pt")
    encoder = load_image_encoder(imported(tmp_path), device="cpu", precision="float32")
    np.testing.assert_allclose(encoder.encode(pictures()), record["outputs"], atol=1e-5)
    torch.save({"model": state}, tmp_path / "published" / "image_encoder.pt")
    with pytest.raises(UserError, match="holds more than the tensors of a network by name"):
        imported(tmp_path)
    torch.save(Path("/tmp"), tmp_path / "published" / "image_encoder.pt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint of plain tensors"):
        imported(tmp_path)


def test_alone_it_is_taken_for_the_swin_that_was_published(tmp_path: Path) -> None:
    torch.save({"embedding_layer.weight": torch.zeros(128, 1024)}, tmp_path / "image_encoder.pt")
    with pytest.raises(JobError, match=r"is missing \(424 in all\)"):
        fetch(f"encoder:local-dir:{tmp_path}", tmp_path / "model")


def _rename(record: dict[str, Any], old: str, new: str) -> None:
    record["shapes"] = {new if name == old else name: shape for name, shape in record["shapes"].items()}


TABLE = "swin.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda r: r["shapes"].pop(TABLE), JobError, r"layers.0.blocks.0.*bias_table' is missing \(1 in all\)"),
        (lambda r: r["shapes"].pop("embedding_layer.bias"), JobError, "tensor 'projection.bias' is missing"),
        (lambda r: r["shapes"].pop("embedding_layer.weight"), UserError, "tensor 'embedding_layer.weight' is missing"),
        (lambda r: r["shapes"].update({"swin.more": [2]}), JobError, "'backbone.network.more' is not in the arch"),
        (lambda r: r["shapes"].update({"logit_scale": [1]}), JobError, "tensor 'logit_scale' is not in the arch"),
        (
            lambda r: r["shapes"].update({"embedding_layer.weight": [6, 31]}),
            JobError,
            r"'projection.weight' has the shape \[6, 31\], the architecture wants \[6, 32\]",
        ),
        (lambda r: r["config"].update(window_size=8), JobError, r"bias_table' has the shape \[49, 2\]"),
        (lambda r: r["config"].update(model_type="resnet"), UserError, "is a network of the type 'resnet'"),
        (lambda r: r["preprocessor"].pop("image_mean"), UserError, "preprocessing with mean None is not supported"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Any]], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    record = read_record("swin_encoder")
    change(record)
    save_encoder(tmp_path / "published", record)
    with pytest.raises(error, match=message):
        imported(tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_folder_that_lacks_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder: name the folder of a transformers model"):
        imported(tmp_path)
    (tmp_path / "published").mkdir()
    with pytest.raises(UserError, match=r"holds neither model.safetensors nor image_encoder.pt"):
        imported(tmp_path)
    save_encoder(tmp_path / "published")
    (tmp_path / "published" / "preprocessor_config.json").write_text(json.dumps([]))
    with pytest.raises(UserError, match=r"preprocessor_config.json is no JSON object"):
        imported(tmp_path)
    (tmp_path / "published" / "config.json").unlink()
    with pytest.raises(UserError, match=r"holds no config.json: copy it"):
        imported(tmp_path)
    with pytest.raises(UserError, match="Encoder source 'elsewhere:x' is unknown"):
        fetch("encoder:elsewhere:x", tmp_path / "model")
