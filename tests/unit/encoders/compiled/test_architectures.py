"""Networks that encoders are made of, compiled by the real process: each takes as long as a real one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from shopvision.encoders.image_encoder import ImageEncoder
from shopvision.encoders.projected_network import ProjectedNetwork
from shopvision.images.preprocessing import Preprocessing


class _Swin(nn.Module):
    """A Swin of transformers, pooled."""

    head_hidden_size = 32

    def __init__(self) -> None:
        super().__init__()
        from transformers import SwinConfig, SwinModel

        self.model = SwinModel(
            SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=4)
        )

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.model(images).pooler_output
        return pooled


class _Projected(nn.Module):
    """As ``ProjectedNetwork`` computes, without a card."""

    head_hidden_size = 8
    forward = ProjectedNetwork.forward

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("test_efficientnet", num_classes=0)
        self.projection = nn.Linear(self.backbone.head_hidden_size, 8)


def _timm(name: str, **arguments: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=0, **arguments)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "timm CNN": _timm("test_efficientnet"),
    "timm ViT": _timm("test_vit", img_size=64),
    "timm Swin": _timm(
        "swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(1, 1), embed_dim=24, num_heads=(1, 2)
    ),
    "transformers Swin": _Swin,
    "projected": _Projected,
}


@pytest.mark.slow
@pytest.mark.parametrize("unit_length", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_compiled_vectors_are_those_of_the_network(
    name: str, unit_length: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encoder(mode: str) -> ImageEncoder:
        torch.manual_seed(0)
        network = NETWORKS[name]().eval()
        return ImageEncoder(
            network, Preprocessing(size=(64, 64)), network.head_hidden_size, device=torch.device("cpu"),
            dtype=torch.float32, compile_mode=mode, unit_length=unit_length,
        )  # fmt: skip

    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    pictures = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
    compiled, plain = encoder("always"), encoder("never")
    compiled.encode(pictures)
    for count in (9, 5, 2, 1):
        expected = plain.encode(pictures[:count])
        np.testing.assert_allclose(compiled.encode(pictures[:count]), expected, rtol=1e-3, atol=1e-5)
    if compiled.network.way == "eager":  # tiny networks may be no faster compiled; anything else is a fault
        packages = compiled.network._packages
        assert "no faster" in str(packages.refusal(compiled.network.key))
