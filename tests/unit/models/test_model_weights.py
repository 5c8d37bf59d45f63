"""Strict loading, the Lite0 renaming and BatchNorm folding."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn

from shopvision.encoders._fast.folding import fold_batch_norm
from shopvision.encoders.image_networks import build_timm
from shopvision.encoders.image_sources import rename_lite0_tensor
from shopvision.errors import JobError, UserError
from shopvision.models.card import Architecture
from shopvision.models.weights import load_strictly


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def test_every_tensor_must_fit() -> None:
    right = network().state_dict()
    target = network()
    load_strictly(target, right, "here")
    assert torch.equal(target[0].weight, right["0.weight"])
    missing = {name: tensor for name, tensor in right.items() if name != "1.bias"}
    with pytest.raises(JobError, match=r"here: tensor '1\.bias' is missing"):
        load_strictly(network(), missing, "here")
    with pytest.raises(JobError, match=r"tensor 'head\.weight' is not in the architecture"):
        load_strictly(network(), right | {"head.weight": torch.zeros(1)}, "here")
    with pytest.raises(JobError, match=r"tensor '0\.weight' has the shape \[3, 2\], the architecture wants \[2, 3\]"):
        load_strictly(network(), right | {"0.weight": torch.zeros(3, 2)}, "here")


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_are_finite(number: float) -> None:
    tensors = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    tensors["1.weight"][0, 1] = number
    with pytest.raises(JobError, match=r"here: tensor '1\.weight' holds numbers that are not finite"):
        load_strictly(network(), tensors, "here")
    masked = nn.Linear(2, 1)
    masked.register_buffer("mask", torch.zeros(2))
    given = {**masked.state_dict(), "mask": torch.tensor([0.0, number])}
    if number == math.inf:
        load_strictly(masked, given, "here")
        return
    with pytest.raises(JobError, match="tensor 'mask' holds"):
        load_strictly(masked, given, "here")


def test_a_refused_checkpoint_changes_nothing() -> None:
    target = network()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(JobError):
        load_strictly(target, {name: tensor + 1 for name, tensor in before.items() if name != "1.bias"}, "here")
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_unknown_architectures_and_arguments_are_named() -> None:
    with pytest.raises(UserError, match="'resnet9000' is not a timm architecture"):
        build_timm(Architecture(name="resnet9000"))
    with pytest.raises(UserError, match="timm cannot build 'resnet18' with"):
        build_timm(Architecture(name="resnet18", arguments={"wheels": 4}))


def test_the_lite0_names_match_the_published_table() -> None:
    assert rename_lite0_tensor("_conv_stem.weight") == "conv_stem.weight"
    assert rename_lite0_tensor("_blocks.0._project_conv.weight") == "blocks.0.0.conv_pw.weight"
    assert rename_lite0_tensor("_blocks.0._bn2.bias") == "blocks.0.0.bn2.bias"
    assert rename_lite0_tensor("_blocks.1._expand_conv.weight") == "blocks.1.0.conv_pw.weight"
    assert rename_lite0_tensor("_blocks.15._bn2.running_var") == "blocks.6.0.bn3.running_var"
    assert rename_lite0_tensor("_fc.bias") == "classifier.bias"
    for unknown in (
        "_blocks.16._bn0.bias",
        "_blocks.0._expand_conv.weight",
        "_blocks.3._se_reduce.weight",
        "head.weight",
    ):
        with pytest.raises(UserError, match=unknown):
            rename_lite0_tensor(unknown)


def randomised(name: str) -> nn.Module:
    """A seeded network whose BatchNorms are not the identity."""
    torch.manual_seed(5)
    made = timm.create_model(name, num_classes=0).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return made


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "resnet10t"])
@torch.inference_mode()
def test_folding_keeps_the_output(name: str) -> None:
    made = randomised(name)
    pictures = torch.randn(4, 3, 96, 96)
    before = made(pictures)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert fold_batch_norm(made, torch.randn(1, 3, 96, 96)) == norms > 0
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert (made(pictures) - before).abs().max() < 1e-5 * before.abs().max()


@torch.inference_mode()
def test_a_fold_that_would_change_the_output_is_taken_back() -> None:
    class Shared(nn.Module):
        """The convolution's output is used twice, so its BatchNorm cannot be folded."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.norm.running_mean.fill_(1.0)

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            found = self.conv(pictures)
            return self.norm(found) + 10 * found

    made = Shared().eval()
    pictures = torch.randn(2, 3, 8, 8)
    before = made(pictures)
    assert fold_batch_norm(made, pictures[:1]) == 0
    assert torch.equal(made(pictures), before)
    assert isinstance(made.norm, nn.BatchNorm2d)


@torch.inference_mode()
def test_weights_that_overflow_when_they_are_folded_are_left_as_they_are() -> None:
    """Each of them is finite, and so is what comes out: behind ReLU6 an overflow looks like a large number."""
    made = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)
    ).eval()
    made[0].weight.fill_(1e37)
    made[0].bias.fill_(1e37)
    made[1].weight.fill_(1e3)
    pictures = torch.rand(2, 3, 8, 8) * 1e-3
    before = made(pictures)
    assert torch.isfinite(before).all()
    assert fold_batch_norm(made, pictures[:1]) == 1
    assert isinstance(made[1], nn.BatchNorm2d)
    assert not isinstance(made[4], nn.BatchNorm2d)
    assert all(torch.isfinite(weight).all() for weight in made.parameters())
    assert torch.allclose(made(pictures), before, rtol=1e-5)


@torch.inference_mode()
def test_a_network_whose_output_is_not_finite_is_not_folded() -> None:
    made = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    made[1].weight.fill_(3e38)
    assert fold_batch_norm(made, torch.full((1, 3, 8, 8), 1e3)) == 0
    assert isinstance(made[1], nn.BatchNorm2d)
