"""The family ``coca``: its layers by hand in float64, its masks, its two questions, and what becomes of the answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families.attention import attend, causal_mask, rotate, token_mask
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.card import load_matcher
from shopvision.matching.families.coca import CoCa, CoCaArguments
from shopvision.matching.families.illustrated_items import IllustratedItems
from shopvision.matching.families.multimodal_layers import MultimodalLayer, MultiQueryBlock
from shopvision.matching.families.pair_model import PairModel
from shopvision.matching.scoring.predict import PairScorer
from tests.unit.matching.tiny_matcher import BERT, COSINE, RESNET, save_model, tiny_model

WIDTH, HEADS = 12, 3


def seeded(module: nn.Module, seed: int = 0) -> Any:
    """Every weight random, in float64."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape) / 3)
    return module.double().eval()


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(
    block: Any, states: NDArray[Any], visible: NDArray[np.bool_], picture: NDArray[Any] | None = None
) -> NDArray[Any]:
    """One item: (L, H), (L, S) bool, (S, H) -> (L, H), query by query and head by head; turns as complex numbers."""
    weight = {name: tensor.detach().numpy() for name, tensor in block.state_dict().items()}
    centred = states - states.mean(1, keepdims=True)
    normed = weight["norm.weight"] * centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    seen = normed if picture is None else picture
    own = WIDTH // HEADS
    key_value = seen @ weight["key_value.weight"].T
    keys, values = key_value[:, :own], key_value[:, own:]

    def turned(vector: NDArray[Any], place: int) -> NDArray[Any]:
        if picture is not None:
            return vector
        half = own // 2
        numbers = vector[:half] + 1j * vector[half:]
        numbers = numbers * np.exp(1j * place * 10_000.0 ** (-2 * np.arange(half) / own))
        return np.concatenate([numbers.real, numbers.imag])

    attended = np.zeros_like(states)
    for place, query in enumerate(normed @ weight["query.weight"].T):
        found = []
        for head in query.reshape(HEADS, own):
            allowed = np.flatnonzero(visible[place])
            scores = np.array([turned(head, place) @ turned(keys[other], other) for other in allowed]) / math.sqrt(own)
            shares = np.exp(scores) / np.exp(scores).sum()
            found.append(shares @ values[allowed] if len(allowed) else np.zeros(own))
        attended[place] = weight["attended.weight"] @ np.concatenate(found)
    gate, inner = np.split(normed @ weight["gate_and_values.weight"].T, 2, axis=1)
    result: NDArray[Any] = attended + (gate / (1 + np.exp(-gate)) * inner) @ weight["fed.weight"].T
    return result


def test_a_block_is_multi_query_attention_with_rotary_places_beside_swiglu() -> None:
    block = seeded(MultiQueryBlock(WIDTH, HEADS, 2))
    states, mask = numbers(2, 5, WIDTH), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    for visible in (token_mask(mask), causal_mask(mask)):
        found = block(states, visible).detach().numpy()
        for row in range(2):
            allowed = visible[row, 0].expand(5, 5).numpy()
            np.testing.assert_allclose(found[row], by_hand(block, states[row].numpy(), allowed), atol=1e-12)
    picture, seen = numbers(2, 4, WIDTH, seed=2), torch.tensor([True, False])
    looked = block(states, seen[:, None, None, None], picture).detach().numpy()
    for row in range(2):
        allowed = np.full((5, 4), bool(seen[row]))
        expected = by_hand(block, states[row].numpy(), allowed, picture[row].numpy())
        np.testing.assert_allclose(looked[row], expected, atol=1e-12)
    with pytest.raises(UserError, match="5 heads do not share a width of 12"):
        MultiQueryBlock(12, 5, 2)


def test_products_of_turned_vectors_depend_on_how_far_apart_they_stand() -> None:
    query, key = numbers(8), numbers(8, seed=3)
    turned = rotate(query.expand(9, 8)) @ rotate(key.expand(9, 8)).T
    for distance in range(-8, 9):
        along = torch.diagonal(turned, distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    assert turned[0].std() > 1e-3
    torch.testing.assert_close(turned[0, 0], query @ key)


def test_a_query_that_sees_nothing_is_given_nothing_and_spoils_no_gradient() -> None:
    queries = numbers(2, 3, 4, 6).requires_grad_()
    keys = numbers(2, 1, 5, 6, seed=2).requires_grad_()
    found = attend(queries, keys, keys, torch.tensor([True, False])[:, None, None, None])
    assert not found[1].any()
    found.sum().backward()
    assert torch.isfinite(queries.grad).all()
    assert torch.isfinite(keys.grad).all()
    assert not keys.grad[1].any()


def test_a_new_layer_changes_nothing() -> None:
    states = numbers(2, 4, WIDTH)
    everything = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    layer = MultimodalLayer(WIDTH, HEADS, 2).double()
    assert torch.equal(layer(states, numbers(2, 3, WIDTH), everything, everything), states)


# -- the model --------------------------------------------------------------------------------------------------------


def arguments(**changes: Any) -> CoCaArguments:
    fields: dict[str, Any] = {
        "family": "coca", "axes": COSINE, "text_config": BERT, "texts": {"max_length": 32}, "image": RESNET,
        "pooling": "mean", "heads": 2, "grid": 2, "multimodal_layers": 1,
    }  # fmt: skip
    return CoCaArguments.model_validate(fields | changes)


def model(**changes: Any) -> PairModel:
    """With layers that do something, which new ones do not."""
    made = tiny_model(arguments(**changes))
    with torch.no_grad():
        for weight in made.network.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    return made


def pixels(count: int, seed: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 256, (count, 32, 32, 3)).astype(np.uint8)


ITEMS = [
    Item("a", "red apple watch band", attributes={"size": ("1",), "color": ("blue",)}, brand="nike"),
    Item("b", "shoe"),
    Item("c", "blue nike shoe", attributes={"price": ("3",)}),
    Item("d", "watch band red"),
]


def batch_of(made: PairModel, items: list[Item], pictures: NDArray[np.uint8]) -> IllustratedItems:
    reader: Any = made.reader
    batch: IllustratedItems = reader.batch(reader.read(items), np.arange(len(items)), torch.from_numpy(pictures))
    return batch


@pytest.mark.parametrize("fusion", ["sum", "cross_attn"])
def test_an_items_vector_is_its_own_whatever_else_is_in_the_batch(fusion: str) -> None:
    made = model(fusion=fusion)
    pictures = pixels(4)
    pictures[1] = 0
    together = made.network.encode(batch_of(made, ITEMS, pictures))  # type: ignore[operator, union-attr] # two towers
    for row, item in enumerate(ITEMS):
        alone = made.network.encode(batch_of(made, [item], pictures[row : row + 1]))  # type: ignore[operator, union-attr] # as above
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)
    others = pixels(4, seed=9)
    others[1] = 0
    again = made.network.encode(batch_of(made, ITEMS, others))  # type: ignore[operator, union-attr] # as above
    changed = (again - together).abs().amax(1) > 1e-4
    assert changed.tolist() == [True, False, True, True]  # each looks at its own picture, where it has one


def test_a_sum_is_of_unit_vectors_and_what_an_item_lacks_adds_nothing() -> None:
    made = model(axes=Axes(interaction="two_tower", head="metric", similarity="inner_product", loss="bce"))
    network: Any = made.network
    both = network.encode(batch_of(made, ITEMS[:1], pixels(1)))
    text = network.encode(batch_of(made, ITEMS[:1], np.zeros((1, 32, 32, 3), np.uint8)))
    picture = network.encode(batch_of(made, [Item("x")], pixels(1)))
    torch.testing.assert_close(both, text + picture, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([text, picture]).norm(dim=1), torch.ones(2))


def test_a_picture_is_read_as_the_whole_and_the_cells_of_a_grid() -> None:
    pictures = model(grid=2).network.get_submodule("pictures")
    rows = torch.arange(4.0).view(2, 2).repeat_interleave(2, 0).repeat_interleave(2, 1)
    features = torch.stack([rows, -rows])[None]
    pictures.width = 2  # type: ignore[assignment] # of this map
    pictures.image.forward_features = lambda images: features.expand(len(images), -1, -1, -1)  # type: ignore[assignment, union-attr] # as above
    shown = torch.ones(2, 32, 32, 3, dtype=torch.uint8)
    shown[1] = 0
    tokens: Tensor = pictures(shown)
    assert tokens[0].tolist() == [[1.5, -1.5], [0, 0], [1, -1], [2, -2], [3, -3]]
    assert not tokens[1].any()  # there is none
    kept = pictures.flat(shown)  # type: ignore[operator] # of PictureTokens
    assert torch.equal(pictures(kept), tokens)


# -- its two questions ------------------------------------------------------------------------------------------------


def questions(made: PairModel, items: list[Item]) -> Any:
    family = CoCa()
    asked: Any = family.pretraining(made.network, made.arguments, made.parts, made.reader.read(items))  # type: ignore[arg-type] # of this family
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in asked.named_parameters():
            if not name.startswith("network.") and name != "log_scale":
                weight.add_(0.3 * torch.randn(weight.shape))
    return asked.double().eval()


@pytest.mark.parametrize("fusion", ["sum", "cross_attn"])
def test_no_token_of_a_caption_sees_the_one_it_is_to_say(fusion: str) -> None:
    made = model(fusion=fusion)
    asked = questions(made, ITEMS)
    told: list[Tensor] = []
    asked.words.loss = lambda states, *_: told.append(states) or states.sum()
    batch = batch_of(made, ITEMS[:2], pixels(2))
    asked.losses(batch)
    ids = batch.tokens.input_ids.clone()
    ids[0, 4] = ids[0, 3]
    tokens = TokenBatch(ids, batch.tokens.attention_mask, batch.tokens.token_type_ids)
    asked.losses(IllustratedItems(tokens, batch.worded, batch.pictures))
    before, after = told
    torch.testing.assert_close(after[0, :4], before[0, :4])
    assert (after[0, 4:] - before[0, 4:]).abs().amax(1).min() > 1e-6
    short = int(batch.tokens.attention_mask[1].sum())
    padded = ids.clone()
    padded[1, short:] = 7  # what stands behind a text says nothing
    tokens = TokenBatch(padded, batch.tokens.attention_mask, batch.tokens.token_type_ids)
    asked.losses(IllustratedItems(tokens, batch.worded, batch.pictures))
    torch.testing.assert_close(told[2][1, : short - 1], after[1, : short - 1])


def test_the_losses_are_those_of_the_formulas() -> None:
    made = model(fusion="cross_attn")
    asked = questions(made, ITEMS)
    network: Any = asked.network
    pictures = pixels(4)
    pictures[3] = pictures[0]  # two products with one picture, which are no negatives of each other
    pictures[2] = 0
    batch = batch_of(made, ITEMS, pictures)
    terms = {name: float(term.value.detach()) for name, term in asked.losses(batch).items()}
    both = [0, 1, 3]

    states = network.text_states(batch.tokens, batch.tokens.attention_mask)
    texts = network.text_vectors(states, batch.tokens)[both].detach().numpy()
    shown = network.picture_states(batch.pictures)[0][both, 0].detach().numpy()
    shown = shown / np.linalg.norm(shown, axis=1, keepdims=True)
    scores = np.exp(texts @ shown.T / 0.07)
    scores[0, 2] = scores[2, 0] = 0.0
    rows, columns = (-np.log(np.diag(scores) / scores.sum(axis)) for axis in (1, 0))
    assert terms["contrastive"] == pytest.approx((rows.mean() + columns.mean()) / 2, rel=1e-5)

    words = sorted({*np.unique(made.reader.read(ITEMS).tokens), 1, 3})  # those of the items, unknown and end
    assert asked.words.words.tolist() == words
    told: list[Tensor] = []
    asked.words.dense.register_forward_hook(lambda *given: told.append(given[2]))
    asked.losses(batch)
    hidden = told[0].detach().numpy()
    hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    centred = hidden - hidden.mean(1, keepdims=True)
    hidden = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    norm, bias = asked.words.norm, asked.words.bias.detach().numpy()
    hidden = hidden * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    table = network.text.get_input_embeddings().weight.detach().numpy()
    logits = hidden @ table[words].T + bias
    mask = batch.tokens.attention_mask[both, 1:].bool()
    wanted = [words.index(token) for token in batch.tokens.input_ids[both, 1:][mask].tolist()]
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(wanted)), wanted]
    assert terms["caption"] == pytest.approx(loss.mean(), rel=1e-5)


def test_items_without_words_or_pictures_are_asked_nothing() -> None:
    made = model()
    asked = questions(made, ITEMS)
    batch = batch_of(made, [Item("x"), ITEMS[0]], np.stack([pixels(1)[0], np.zeros((32, 32, 3), np.uint8)]))
    terms = asked.losses(batch)
    assert {name: float(term.value.detach()) for name, term in terms.items()} == {"contrastive": 0.0, "caption": 0.0}
    sum(term.value for term in terms.values()).backward()


def test_an_encoder_that_reads_both_ways_alone_tells_no_captions() -> None:
    made = model()
    made.network.get_submodule("text").config.model_type = "distilbert"  # type: ignore[union-attr] # untyped
    with pytest.raises(UserError, match="text encoder bert reads both ways alone and can tell no captions"):
        questions(made, ITEMS)


# -- stored and used --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["sum", "cross_attn"])
def test_a_stored_model_scores_as_it_did(tmp_path: Path, fusion: str) -> None:
    made = model(fusion=fusion)
    save_model(tmp_path / "model", made)
    loaded = load_matcher(tmp_path / "model").model
    state = made.network.state_dict()
    assert loaded.network.state_dict().keys() == state.keys()
    scorer = PairScorer(tmp_path / "model", device="cpu", precision="float32")
    pictures = pixels(4)
    pictures[1] = 0
    given = [None if not picture.any() else picture for picture in pictures]
    vectors = scorer.item_vectors(ITEMS, given)
    network: Any = made.network
    expected = network.encode(batch_of(made, ITEMS, pictures)).detach().numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    found = scorer.score(ITEMS, np.array([0, 0]), np.array([1, 3]), vectors)
    logits = network.pair_logits(torch.from_numpy(expected[[0, 0]]), torch.from_numpy(expected[[1, 3]]))
    np.testing.assert_allclose(found, torch.sigmoid(2 * logits + 0.5).detach().numpy(), atol=1e-5)
