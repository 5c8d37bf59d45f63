"""Padding fixed for one size, against the package that trained networks so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shopvision.encoders._fast.folding import fold_batch_norm
from shopvision.encoders.image_networks import build_image, dimension_of
from shopvision.errors import UserError
from shopvision.models.card import Architecture

B0 = Architecture(name="tf_efficientnet_b0", arguments={"num_classes": 0})


def fixed(size: int, network: Architecture = B0) -> Architecture:
    arguments = {"network": network.model_dump(), "size": size}
    return Architecture(library="shopvision", name="fixed_padding", arguments=arguments)


def test_at_its_own_size_it_is_the_network_itself_and_elsewhere_not() -> None:
    torch.manual_seed(0)
    plain = build_image(B0)
    network = build_image(fixed(75))
    network.load_state_dict(plain.state_dict(), strict=True)
    assert dimension_of(fixed(75)) == dimension_of(B0) == 1280
    with torch.inference_mode():
        for size, is_same in ((75, True), (64, False)):
            images = torch.randn(1, 3, size, size)
            assert torch.allclose(plain(images), network(images), atol=1e-5) == is_same, size
        before = network(images)
        assert fold_batch_norm(network, images) > 40
        torch.testing.assert_close(network(images), before, atol=1e-4, rtol=1e-3)
    # The stem (3 x 3, stride 2) of 75 x 75 pixels gets one row on either side; of 64 x 64 it would be one at the end.
    assert isinstance(network.conv_stem, nn.Conv2d)
    assert network.conv_stem.padding == (1, 1)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (fixed(75, Architecture(name="test_resnet")), "'test_resnet' pads no convolution by its input's size"),
        (fixed(0), r"architecture\.arguments\.size: Input should be greater than 0"),
        (fixed(75, fixed(75)), r"architecture\.arguments\.network: the padding of networks of timm alone"),
    ],
)
def test_what_cannot_be_fixed_is_refused(architecture: Architecture, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_image(architecture)
