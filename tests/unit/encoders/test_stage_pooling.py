"""Networks read at every stage, against the maps that timm itself gives out."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch.nn.functional import normalize

from shopvision.encoders._fast.folding import fold_batch_norm
from shopvision.encoders.image_networks import build_image, dimension_of
from shopvision.encoders.stage_pooling import SMALL, StagePooling, with_stages
from shopvision.errors import UserError
from shopvision.models.card import Architecture, ModelCard
from shopvision.training.pretrained import PretrainedImage, read_at_stages
from tests.unit.selection.tiny_clik import PREPROCESSING

NAME = "test_efficientnet"
PLAIN = Architecture(name=NAME, arguments={"num_classes": 0})


def test_groups_are_the_last_features_and_mean_and_spread_of_every_stage() -> None:
    torch.manual_seed(0)
    plain, maps = build_image(PLAIN), timm.create_model(NAME, features_only=True).eval()
    maps.load_state_dict(plain.state_dict(), strict=False)
    staged = with_stages(PLAIN)
    assert staged is not None
    network = build_image(staged)
    network.load_state_dict({f"network.{name}": tensor for name, tensor in plain.state_dict().items()})
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        found = network(images)
        groups = [plain(images)]
        for one in maps(images):
            mean = one.mean(dim=(2, 3), keepdim=True)
            groups += [mean.flatten(1), (((one - mean) ** 2).mean(dim=(2, 3)) + SMALL) ** 0.5]
        expected = torch.cat([normalize(one, dim=1) * math.sqrt(one.shape[1]) for one in groups], dim=1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert len(groups) == 11
        assert dimension_of(staged) == found.shape[1] == sum(one.shape[1] for one in groups)
        assert fold_batch_norm(network, images) > 5
        torch.testing.assert_close(network(images), expected, atol=1e-4, rtol=1e-3)


def test_a_picture_of_one_colour_has_gradients() -> None:
    staged = with_stages(PLAIN)
    assert staged is not None
    network = build_image(staged)
    network(torch.zeros(1, 3, 64, 64)).sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in network.parameters())


def test_what_has_no_stages_is_read_at_its_end() -> None:
    transformer = Architecture(name="test_vit", arguments={"num_classes": 0})
    assert with_stages(transformer) is None
    with pytest.raises(UserError, match="VisionTransformer does not tell what its stages see"):
        StagePooling(build_image(transformer))
    staged = with_stages(PLAIN)
    assert staged is not None
    assert with_stages(staged) is None
    with pytest.raises(UserError, match=r"architecture\.arguments\.network: the stages of networks of timm alone"):
        build_image(Architecture(library="shopvision", name="stage_pooling", arguments={"network": staged}))


def test_stages_are_read_of_frozen_encoders_that_tell_them() -> None:
    def read(name: str, *, wanted: bool | None, frozen: bool) -> PretrainedImage:
        architecture = Architecture(name=name, arguments={"num_classes": 0})
        card = ModelCard.model_construct(architecture=architecture, source=f"timm:{name}")
        image = PretrainedImage(card, PREPROCESSING, dimension_of(architecture), build_image(architecture))
        return read_at_stages(image, wanted=wanted, frozen=frozen)

    names = {
        (wanted, frozen): read(NAME, wanted=wanted, frozen=frozen).card.architecture.name
        for wanted in (None, True, False)
        for frozen in (True, False)
    }
    assert [key for key, name in names.items() if name == "stage_pooling"] == [
        (None, True), (True, True), (True, False),
    ]  # fmt: skip
    assert read("test_vit", wanted=None, frozen=True).card.architecture.name == "test_vit"
    with pytest.raises(UserError, match="timm:test_vit does not tell what its stages see"):
        read("test_vit", wanted=True, frozen=True)
