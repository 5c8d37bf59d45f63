"""The encoder: unit vectors, the same for every batch size, out-of-memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from shopvision.encoders.devices import best_precision
from shopvision.encoders.image_encoder import ImageEncoder, load_image_encoder
from shopvision.errors import JobError, UserError
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import CARD_FILE, Architecture, ModelCard

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSING = Preprocessing(size=(64, 48), crop_fraction=1.0, interpolation="bicubic", mean=MEAN, std=STD)


def tiny(
    dtype: torch.dtype = torch.float32, network: nn.Module | None = None, compile_mode: str = "auto"
) -> ImageEncoder:
    torch.manual_seed(3)
    network = network or timm.create_model("test_resnet", num_classes=0).eval()
    return ImageEncoder(
        network, PREPROCESSING, network.num_features, device=torch.device("cpu"), dtype=dtype, compile_mode=compile_mode
    )


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 64, 48, 3), np.uint8)


def test_vectors_equal_a_plain_float32_computation(pictures: np.ndarray) -> None:
    torch.manual_seed(3)
    plain = timm.create_model("test_resnet", num_classes=0).eval()
    normalised = (pictures.astype(np.float64) / 255 - MEAN) / STD
    with torch.inference_mode():
        expected = plain(torch.from_numpy(normalised.transpose(0, 3, 1, 2)).float()).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = tiny().encode(pictures)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    halves = tiny(torch.bfloat16).encode(pictures)
    assert ((halves * expected).sum(axis=1) > 0.999).all()


@pytest.mark.parametrize("size", [1, 2, 4, 9])
def test_the_batch_size_does_not_matter(pictures: np.ndarray, size: int) -> None:
    encoder = tiny(torch.bfloat16)
    whole = encoder.encode(pictures)
    parts = np.concatenate([encoder.encode(pictures[start : start + size]) for start in range(0, 9, size)])
    assert ((whole * parts).sum(axis=1) > 0.999).all()
    np.testing.assert_allclose(np.linalg.norm(parts, axis=1), 1, atol=1e-3)


class Hungry(nn.Module):
    """Fits at most ``most`` pictures and notes the batch sizes it was given."""

    num_features = 3

    def __init__(self, most: int, error: BaseException) -> None:
        super().__init__()
        self.most, self.error, self.seen = most, error, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise self.error
        return images.mean(dim=(2, 3))


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
    ],
)
def test_out_of_memory_halves_the_batch_and_is_remembered(pictures: np.ndarray, error: BaseException) -> None:
    network = Hungry(3, error)
    encoder = tiny(network=network)
    expected = tiny(network=Hungry(99, error)).encode(pictures)
    network.seen.clear()
    np.testing.assert_array_equal(encoder.encode(pictures), expected)
    assert network.seen == [9, 4, 2, 2, 2, 2, 1]
    network.seen.clear()
    encoder.encode(pictures[:4])
    assert network.seen == [2, 2]


def test_not_even_one_picture_fits(pictures: np.ndarray) -> None:
    encoder = tiny(network=Hungry(1, MemoryError()))
    encoder.network.module.network.most = 0
    with pytest.raises(JobError, match="Not enough memory on cpu for one picture"):
        encoder.encode(pictures)


def test_other_errors_are_not_taken_for_memory(pictures: np.ndarray) -> None:
    encoder = tiny(network=Hungry(1, RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        encoder.encode(pictures)


@pytest.mark.parametrize("wrong", [np.zeros((1, 48, 64, 3), np.uint8), np.zeros((1, 64, 48, 3), np.float32)])
def test_unprepared_pictures_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(JobError, match=r"wants uint8 pictures of \(64, 48\)"):
        tiny().encode(wrong)


def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in (
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx2": True}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert best_precision(torch.device("cpu")) == expected


def test_cards_of_other_kinds_and_devices_that_are_not_there(tmp_path: Path) -> None:
    card = ModelCard(name="a", tag="b", kind="pair_scorer", architecture=Architecture(name="x"), source="s", files={})
    (tmp_path / CARD_FILE).write_bytes(card.to_bytes())
    with pytest.raises(UserError, match=r"a:b is of the kind pair_scorer .*, not image_encoder"):
        load_image_encoder(tmp_path)
    image = card.model_copy(update={"kind": "image_encoder", "preprocessing": PREPROCESSING, "dimension": 4})
    (tmp_path / CARD_FILE).write_bytes(image.to_bytes())
    with pytest.raises(UserError, match="Device 'toaster' is unknown"):
        load_image_encoder(tmp_path, device="toaster")
