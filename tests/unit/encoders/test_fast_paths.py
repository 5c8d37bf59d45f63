"""Fast paths stand behind one switch, beside a plain path that gives the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import structlog
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders import _fast
from shopvision.encoders._fast import accelerate_image_network, accelerate_text_encoder
from shopvision.encoders._fast.bert_on_cpu import ATTENTION
from shopvision.encoders._fast.first_token import FirstTokenLayer
from shopvision.encoders.image_encoder import ImageEncoder
from shopvision.encoders.text_networks import build_text
from shopvision.images.preprocessing import Preprocessing
from tests.unit.rounding import rounding

LAYERS, WIDTH = 2, 32
CONFIG: dict[str, Any] = {
    "model_type": "bert", "vocab_size": 50, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "intermediate_size": 2 * WIDTH, "max_position_embeddings": 40,
}  # fmt: skip


def text_encoder(dtype: torch.dtype, *, accelerated: bool = True) -> Any:
    torch.manual_seed(0)
    network = build_text(CONFIG).to(dtype)
    if accelerated:
        accelerate_text_encoder(network, pooling="cls", layers=(1,))
    return network


def first_tokens(network: Any) -> Tensor:
    ids = torch.randint(3, 50, (4, 12), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(12) < torch.tensor([12, 7, 1, 12])[:, None]).long()
    with torch.inference_mode():
        states: Tensor = network(input_ids=ids, attention_mask=mask).last_hidden_state
    return states[:, 0].double()


def image_network() -> Any:
    torch.manual_seed(0)
    network: Any = timm.create_model("test_resnet", num_classes=0).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return network


def is_plain(network: Any) -> bool:
    return network.config._attn_implementation != ATTENTION and not any(
        isinstance(module, FirstTokenLayer) for module in network.modules()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_text_encoders_give_the_same_either_way(dtype: torch.dtype) -> None:
    fast, plain = text_encoder(dtype), text_encoder(dtype, accelerated=False)
    assert is_plain(plain)
    assert not is_plain(fast)
    # A layer's longest way: projections, scores and feed-forward part. States are of order 1 after LayerNorm.
    largest = rounding(dtype, terms=LAYERS * 5 * WIDTH) if dtype == torch.float32 else 0.1
    torch.testing.assert_close(first_tokens(fast), first_tokens(plain), rtol=0, atol=largest)


@torch.inference_mode()
def test_image_networks_give_the_same_either_way() -> None:
    fast, plain = image_network(), image_network()
    accelerate_image_network(fast, (96, 96))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    pictures = torch.randn(4, 3, 96, 96)
    expected = plain(pictures)
    widest = max(module.weight[0].numel() for module in plain.modules() if isinstance(module, nn.Conv2d))
    largest = rounding(torch.float32, terms=widest) * float(expected.abs().max())
    torch.testing.assert_close(fast(pictures), expected, rtol=0, atol=largest)


def test_the_switch_leaves_networks_as_their_libraries_made_them(set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_FAST_PATHS="false")
    assert is_plain(text_encoder(torch.bfloat16))
    network = image_network()
    accelerate_image_network(network, (96, 96))
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_vectors_agree_with_everything_on_and_off(set_environment: Callable[..., None]) -> None:
    """Least cosine 0.999, as docs/adding-a-model.md says: folded, in bfloat16 and rearranged, or as in a textbook."""
    preprocessing = Preprocessing(size=(96, 96), interpolation="bilinear", resize_mode="squash")
    pictures = np.random.default_rng(2).integers(0, 256, (6, 96, 96, 3), np.uint8)

    def vectors(dtype: torch.dtype) -> tuple[Any, Any]:
        network = image_network()
        encoder = ImageEncoder(
            network, preprocessing, network.num_features, device=torch.device("cpu"), dtype=dtype, compile_mode="never"
        )
        return encoder.encode(pictures), functional.normalize(first_tokens(text_encoder(dtype)), dim=1).numpy()

    fast = vectors(torch.bfloat16)
    set_environment(SHOPVISION_FAST_PATHS="false")
    plain = vectors(torch.float32)
    for one, other in zip(fast, plain, strict=True):
        assert (one * other).sum(1).min() > 0.999


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_other_versions_take_the_plain_path(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {name: f"{tested}.0" for name, tested in _fast.TESTED_WITH.items()} | {library: "99.1"}
    monkeypatch.setattr(_fast, "version", installed.__getitem__)
    with structlog.testing.capture_logs() as logs:
        assert is_plain(text_encoder(torch.bfloat16))
    assert [entry[library] for entry in logs] == ["99.1"]


def test_the_installed_versions_are_those_tested_with() -> None:
    """Fails with a new version: try the fast paths with it, then note it in ``TESTED_WITH``."""
    assert _fast._has_tested_versions()
