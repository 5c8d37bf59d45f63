"""Pair models against plain transformers and timm calls with the heads written out by hand, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from shopvision.encoders.image_networks import build_timm, image_dimension
from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.items.item_texts import TextBuilder
from shopvision.matching.families._parts import Parts
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.illustrated import Illustrated
from shopvision.matching.families.image_two_tower import PictureBatch
from shopvision.matching.families.packing import PackedBatch, Packer
from shopvision.matching.families.pair_model import build_model
from shopvision.matching.families.registry import family_names, find_family
from shopvision.matching.families.towers import OneTower, TwoTower
from shopvision.models.card import Architecture
from tests.unit.matching.tiny_matcher import (
    BERT,
    COSINE,
    ONE,
    PREPROCESSING,
    arguments,
    tiny_model,
    tiny_network,
    tiny_tokenizer,
)

ITEMS = [
    Item("a", title="apple watch band", brand="apple", attributes={"color": ("red",), "size": ("1", "2")}),
    Item("b", title="nike shoe", price="3"),
    Item("c", title="red apple watch", description="a b c apple watch"),
]
LEFT, RIGHT = np.array([0, 1, 2]), np.array([1, 2, 0])


def packed(*, image_token: bool = False) -> PackedBatch:
    packer = Packer(
        tiny_tokenizer(), TextBuilder("title_attributes"), max_length=32, token_types=2, image_token=image_token
    )
    return packer.pairs(packer.items(ITEMS), LEFT, RIGHT)


def illustrated(batch: PackedBatch, pictures: Tensor) -> Illustrated:
    assert batch.slots is not None
    return Illustrated(batch.tokens, batch.slots, pictures)


def singles() -> PackedBatch:
    packer = Packer(tiny_tokenizer(), TextBuilder("title_attributes"), max_length=32, token_types=2)
    return packer.singles(packer.items(ITEMS), np.arange(3))


def plain_bert(network: nn.Module) -> BertModel:
    """A plain BERT with the weights of the network's encoder, float64."""
    fields = {name: value for name, value in BERT.items() if name != "model_type"}
    bert = BertModel(BertConfig(**fields), add_pooling_layer=False).double().eval()
    bert.load_state_dict(network.text.state_dict())
    return bert


def states(bert: BertModel, tokens: Any, **inputs: Tensor) -> tuple[Tensor, ...]:
    """All layers' states, the embeddings first; padding cut off row by row is the caller's matter."""
    outputs = bert(
        **(inputs or {"input_ids": tokens.input_ids}), attention_mask=tokens.attention_mask,
        token_type_ids=tokens.token_type_ids, output_hidden_states=True,
    )  # fmt: skip
    return outputs.hidden_states


def plain_pair_head(network: nn.Module, vectors: np.ndarray) -> np.ndarray:
    w = {name: tensor.double().numpy() for name, tensor in network.head.state_dict().items()}
    outputs = np.tanh(vectors @ w["dense.weight"].T + w["dense.bias"]) @ w["out.weight"].T + w["out.bias"]
    return outputs[:, 1] - outputs[:, 0] if outputs.shape[1] == 2 else outputs[:, 0]


@pytest.mark.parametrize("loss", ["ce", "bce"])
@pytest.mark.parametrize(("layers", "layer_pooling"), [((1,), "cat"), ((1, 2), "cat"), ((1, 2), "avg"), ((2,), "cat")])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@torch.no_grad()
def test_one_tower_of_text(loss: str, layers: tuple[int, ...], layer_pooling: str, pooling: str) -> None:
    axes = Axes(interaction="one_tower", head="pair", loss=loss)
    network = tiny_network(
        arguments("text_one_tower", axes, layers=layers, layer_pooling=layer_pooling, pooling=pooling)
    )
    assert isinstance(network, OneTower)
    tokens = packed().tokens
    assert (tokens.attention_mask == 0).any()
    assert (tokens.token_type_ids == 1).any()
    all_states = states(plain_bert(network), tokens)
    chosen = []
    for layer in layers:
        state = all_states[-layer].numpy()
        if pooling == "cls":
            chosen.append(state[:, 0])
        else:
            sizes = tokens.attention_mask.sum(1).tolist()
            chosen.append(np.stack([row[:size].mean(0) for row, size in zip(state, sizes, strict=True)]))
    vectors = np.hstack(chosen) if layer_pooling == "cat" else np.mean(chosen, axis=0)
    np.testing.assert_allclose(network.double()(tokens), plain_pair_head(network, vectors), rtol=1e-9)


@torch.no_grad()
def test_pictures_take_the_places_of_their_tokens() -> None:
    network = tiny_network(arguments("text_image_one_tower", ONE, pooling="cls")).double()
    batch = packed(image_token=True)
    tokens, slots = batch.tokens, batch.slots
    features = torch.nn.functional.normalize(torch.randn(3, 2, 96, dtype=torch.float64), dim=2)
    features[1, 0] = 0  # no picture
    bert = plain_bert(network)
    embeddings = bert.embeddings.word_embeddings(tokens.input_ids).numpy()
    weight, bias = (network.image_projection.state_dict()[name].numpy() for name in ("weight", "bias"))
    for row in range(3):
        for side in (0, 1):
            embeddings[row, slots[row, side]] = weight @ features[row, side].numpy() + bias
    np.testing.assert_allclose(embeddings[1, slots[1, 0]], bias)
    last = states(bert, tokens, inputs_embeds=torch.from_numpy(embeddings))[-1]
    found = network(illustrated(batch, features))
    np.testing.assert_allclose(found, plain_pair_head(network, last[:, 0].numpy()), rtol=1e-9)
    # Which word marks a picture does not matter, and the pictures do.
    tokens.input_ids.scatter_(1, slots, 7)
    np.testing.assert_array_equal(network(illustrated(batch, features)), found)
    assert (network(illustrated(batch, features.roll(1, 0))) - found).abs().min() > 1e-6


@torch.no_grad()
def test_a_head_that_compares_pictures() -> None:
    network = tiny_network(arguments("text_image_one_tower", ONE, compare_pictures=True)).double()
    batch = packed(image_token=True)
    features = torch.nn.functional.normalize(torch.randn(3, 2, 96, dtype=torch.float64), dim=2)
    features[1, 0] = 0  # no picture
    seen: list[Tensor] = []
    network.head.dense.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = network(illustrated(batch, features))
    u, v = features.numpy().transpose(1, 0, 2) * np.sqrt(96)
    weights = {name: tensor.numpy() for name, tensor in network.head.state_dict().items()}
    words = np.tanh(seen[0].numpy() @ weights["dense.weight"].T + weights["dense.bias"])
    both = np.hstack([np.abs(u - v), u * v])
    pictures = np.tanh(both @ weights["compare.weight"].T + weights["compare.bias"])
    outputs = np.hstack([words, pictures]) @ weights["out.weight"].T + weights["out.bias"]
    np.testing.assert_allclose(found, outputs[:, 1] - outputs[:, 0], rtol=1e-9)
    # What stands in the sequence is that of a model without: the pictures' tokens, too.
    plain = tiny_network(arguments("text_image_one_tower", ONE)).double()
    plain.text.load_state_dict(network.text.state_dict())
    plain.image_projection.load_state_dict(network.image_projection.state_dict())
    plain.head.dense.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    plain(illustrated(batch, features))
    np.testing.assert_array_equal(seen[0], seen[1])


def test_near_pictures_are_compared_in_full_precision() -> None:
    """In half precision features are equal that differ by less than a 256th of themselves."""
    network = tiny_network(arguments("text_image_one_tower", ONE, compare_pictures=True)).bfloat16()
    seen: list[Tensor] = []
    network.head.compare.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = packed(image_token=True)
    features = torch.nn.functional.normalize(torch.rand(3, 1, 96), dim=2) * torch.tensor([1.0, 1.001])[:, None]
    network(illustrated(batch, features))
    assert (seen[0][:, :96] > 0).all()


@pytest.mark.parametrize("projection", [None, 5])
@torch.no_grad()
def test_two_towers_of_text(projection: int | None) -> None:
    network = tiny_network(arguments("text_two_tower", COSINE, projection=projection)).double()
    assert isinstance(network, TwoTower)
    tokens = singles().tokens
    last = states(plain_bert(network), tokens)[-1].numpy()
    sizes = tokens.attention_mask.sum(1).tolist()
    vectors = np.stack([row[:size].mean(0) for row, size in zip(last, sizes, strict=True)])
    if projection is not None:
        weight, bias = (network.projection.state_dict()[name].numpy() for name in ("weight", "bias"))
        vectors = vectors @ weight.T + bias
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = network.encode(tokens)
    assert found.shape == (3, network.dimension)
    np.testing.assert_allclose(found, vectors, rtol=1e-9)
    scale, shift = network.head.log_scale.exp().item(), network.head.shift.item()
    expected = scale * (vectors[LEFT] * vectors[RIGHT]).sum(1) + shift
    np.testing.assert_allclose(network.pair_logits(found[LEFT], found[RIGHT]), expected, rtol=1e-9)


@pytest.mark.parametrize("head", ["interaction", "additive"])
@torch.no_grad()
def test_two_towers_with_other_heads_keep_the_length_of_vectors(head: str) -> None:
    axes = Axes(interaction="two_tower", head=head, loss="ce")
    network = tiny_network(arguments("text_two_tower", axes))
    vectors = network.encode(singles().tokens)
    assert vectors.dtype == torch.float32
    assert (vectors.norm(dim=1) - 1).abs().min() > 1e-3
    assert network.pair_logits(vectors[LEFT], vectors[RIGHT]).shape == (3,)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_nfnet"])
@torch.no_grad()
def test_two_towers_of_pictures_on_any_timm_backbone(name: str) -> None:
    size = {"img_size": 32} if "vit" in name else {}
    image = Architecture(name=name, arguments={"num_classes": 0} | size)
    inner = Axes(interaction="two_tower", head="metric", similarity="inner_product", loss="bce")
    network = tiny_network(arguments("image_two_tower", inner, image=image, projection=6))
    pictures = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    backbone = timm.create_model(name, num_classes=0, **size).eval()
    backbone.load_state_dict(network.image.state_dict())
    mean, std = np.array(PREPROCESSING.mean), np.array(PREPROCESSING.std)
    pixels = ((pictures.numpy() / 255 - mean) / std).transpose(0, 3, 1, 2)
    features = backbone(torch.from_numpy(pixels).float()).numpy()
    weight, bias = (network.projection.state_dict()[part].numpy() for part in ("weight", "bias"))
    expected = features @ weight.T + bias
    np.testing.assert_allclose(network.encode(PictureBatch(pictures)), expected, rtol=1e-3, atol=1e-5)
    assert not {"mean", "std"} & set(network.state_dict())


@pytest.mark.parametrize(("name", "length"), [
    ("eca_nfnet_l0", 2304), ("resnetv2_50", 2048), ("vit_base_patch16_384", 768),
])  # fmt: skip
def test_the_published_backbones_are_built_with_their_feature_lengths(name: str, length: int) -> None:
    image = Architecture(name=name, arguments={"num_classes": 0})
    projection = None if length <= 1024 else 512
    wanted = arguments("image_two_tower", COSINE, image=image, projection=projection)
    with torch.device("meta"):
        network: Any = build_model(wanted, Parts(preprocessing=PREPROCESSING)).network
        assert image_dimension(build_timm(image)) == length
        assert network.image(torch.zeros(1, 3, 384, 384)).shape == (1, length)
    assert network.dimension == (projection or length)


def test_vectors_of_more_than_1024_dimensions_are_refused() -> None:
    image = Architecture(name="eca_nfnet_l0", arguments={"num_classes": 0})
    with torch.device("meta"), pytest.raises(UserError, match="2304 dimensions: set projection to at most 1024"):
        build_model(arguments("image_two_tower", COSINE, image=image), Parts(preprocessing=PREPROCESSING))


@pytest.mark.parametrize(("axes", "options"), [(ONE, {}), (ONE, {"compare_pictures": True}), (COSINE, {})])
def test_every_weight_learns(axes: Axes, options: dict[str, Any]) -> None:
    """A weight without a gradient would stop distributed training."""
    family = "text_image_one_tower" if axes is ONE else "text_two_tower"
    network = tiny_network(arguments(family, axes, **options)).train()
    if axes is ONE:
        batch = packed(image_token=True)
        logits = network(illustrated(batch, torch.randn(3, 2, 96)))
    else:
        vectors = network.encode(singles().tokens)
        logits = network.pair_logits(vectors[LEFT], vectors[RIGHT])
    logits.square().sum().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_other_encoders() -> None:
    """Without token types, and with positions that begin behind the padding's."""
    roberta = {
        "model_type": "xlm-roberta", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 66, "type_vocab_size": 1,
        "pad_token_id": 1,
    }  # fmt: skip
    distil = {"model_type": "distilbert", "vocab_size": 40, "dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2}
    for config in (roberta, distil):
        network = tiny_network(arguments("text_image_one_tower", ONE, text_config=config))
        batch = packed(image_token=True)
        if config is roberta:
            batch.tokens.token_type_ids.zero_()
        assert network(illustrated(batch, torch.randn(3, 2, 96))).shape == (3,)


ROBERTA = BERT | {"model_type": "roberta", "max_position_embeddings": 64, "pad_token_id": 0}


@pytest.mark.parametrize(("family", "axes", "changes", "message"), [
    ("text_one_tower", COSINE, {}, "The family text_one_tower is one_tower, not two_tower"),
    ("text_two_tower", COSINE.model_copy(update={"loss": "ce"}), {}, "metric / cosine / ce .* do not go together"),
    ("text_one_tower", ONE, {"layers": (3,)}, r"layers \[3\]: count from the top, 1 to 2"),
    ("text_one_tower", ONE, {"layers": (0,)}, r"layers \[0\]: count from the top, 1 to 2"),
    ("text_one_tower", ONE, {"max_length": 65}, "max_length 65 is more than the encoder's 64 tokens"),
    ("text_two_tower", COSINE, {"max_length": 64, "text_config": ROBERTA}, "more than the encoder's 63 tokens"),
])  # fmt: skip
def test_arguments_that_do_not_fit_the_family(family: str, axes: Axes, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_network(arguments(family, axes, **changes))


@pytest.mark.parametrize(("family", "axes", "changes"), [
    ("text_one_tower", ONE, {"text_config": None}),
    ("text_two_tower", COSINE, {"image": Architecture(name="x")}),
    ("text_one_tower", ONE, {"pooling": "pooler"}),
    ("text_one_tower", ONE, {"projection": 8}),
    ("text_one_tower", ONE, {"compare_pictures": True}),
])  # fmt: skip
def test_arguments_of_other_families(family: str, axes: Axes, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changes))):
        arguments(family, axes, **changes)


def test_families_are_found_by_their_modules() -> None:
    assert {"text_one_tower", "text_two_tower", "image_two_tower", "text_image_one_tower"} <= set(family_names())
    with pytest.raises(UserError, match=r"There is no family 'oracle' of pair models: use one of .*image_two_tower, "):
        find_family("oracle")


def test_the_image_encoder_of_text_and_image_models_stays_beside_the_network() -> None:
    model = tiny_model(arguments("text_image_one_tower", ONE))
    assert model.parts.image_encoder is not None
    assert not any(weight.requires_grad for weight in model.parts.image_encoder.parameters())
    assert not any("image" in name and "projection" not in name for name in model.network.state_dict())


def test_models_without_their_parts() -> None:
    with pytest.raises(UserError, match="needs a tokenizer"):
        build_model(arguments("text_two_tower", COSINE), Parts())
    with pytest.raises(UserError, match="needs their preprocessing"):
        build_model(arguments("image_two_tower", COSINE), Parts())
