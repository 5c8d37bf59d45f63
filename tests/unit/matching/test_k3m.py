"""The family ``k3m``: what it reads, its layers by hand in float64, and its four questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shopvision.items.item import Item
from shopvision.matching.families.attention import MultiHeadAttention, token_mask
from shopvision.matching.families.card import load_matcher
from shopvision.matching.families.k3m import K3M, K3MArguments
from shopvision.matching.families.k3m_layers import InteractiveFusion, StructureAggregation, mean_of_triples
from shopvision.matching.families.k3m_network import Regions
from shopvision.matching.families.k3m_reading import K3MBatch
from shopvision.matching.families.pair_model import PairModel
from shopvision.matching.families.picture_tokens import of_regions
from shopvision.matching.families.text_reading import TextReading
from shopvision.matching.families.word_prediction import WordPrediction
from shopvision.matching.scoring.predict import PairScorer
from tests.unit.matching.tiny_matcher import BERT, COSINE, RESNET, save_model, tiny_model, tiny_tokenizer

WIDTH = 8


def seeded(module: nn.Module, seed: int = 0) -> Any:
    """Every weight random, in float64."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape) / 2)
    return module.double().eval()


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model(**changes: Any) -> PairModel:
    """With layers that do something, which new ones do not."""
    fields: dict[str, Any] = {
        "family": "k3m", "axes": COSINE, "text_config": BERT, "texts": {"max_length": 24}, "image": RESNET,
        "pooling": "mean", "heads": 2, "grid": 2, "interactive_fusion": "soft",
    }  # fmt: skip
    made = tiny_model(K3MArguments.model_validate(fields | changes))
    with torch.no_grad():
        for name, weight in made.network.named_parameters():
            if not name.startswith("pictures."):
                weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    return made


def pixels(count: int, seed: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 256, (count, 32, 32, 3)).astype(np.uint8)


ITEMS = [
    Item("a", "red apple watch band", attributes={"size": ("1", "2"), "color": ("blue",)}, brand="nike"),
    Item("b", "shoe"),
    Item("c", "", attributes={"price": ("3",), "color": ("red",)}),
    Item("d", "watch band red", attributes={"color": ("a b c a b c a b c a b c a b c a b c a b",)}),
]


def batch_of(made: PairModel, items: list[Item], pictures: NDArray[np.uint8]) -> K3MBatch:
    reader: Any = made.reader
    batch: K3MBatch = reader.batch(reader.read(items), np.arange(len(items)), torch.from_numpy(pictures))
    return batch


def test_each_token_of_the_attributes_knows_its_triple() -> None:
    made = model()
    batch = batch_of(made, ITEMS, pixels(4))
    tokenizer = tiny_tokenizer()

    def words(ids: Tensor) -> list[str]:
        return tokenizer.convert_ids_to_tokens(ids.tolist())

    assert words(batch.titles.input_ids[0]) == ["[CLS]", "red", "apple", "watch", "band", "[SEP]"]
    assert words(batch.titles.input_ids[2])[:3] == ["[CLS]", "[SEP]", "[PAD]"]
    assert batch.titled.tolist() == [True, True, False, True]
    expected = ["[CLS]", "brand", ":", "nike", ";", "size", ":", "1", ",", "2", ";", "color", ":", "blue", ";", "[SEP]"]
    assert words(batch.attributes.input_ids[0])[: len(expected)] == expected
    assert batch.triples[0, : len(expected)].tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 0]
    assert batch.is_value[0, : len(expected)].int().tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0]
    assert batch.attributes.attention_mask.sum(1).tolist() == [16, 2, 10, 2]  # the last one's value has no room
    assert made.reader.lengths(made.reader.read(ITEMS)).tolist() == [22, 5, 12, 7]  # type: ignore[call-arg, misc] # of items
    rows = batch.rows(slice(1, 3))
    assert rows.triples.shape == rows.attributes.input_ids.shape == (2, 10)


def test_a_long_value_pushes_out_no_other_attribute() -> None:
    made = tiny_model(model().arguments.model_copy(update={"texts": TextReading(max_length=48)}))
    item = Item("a", "shoe", attributes={"color": (" ".join("abc" * 20),), "size": ("1",)})
    batch = batch_of(made, [item], pixels(1))
    assert [int((batch.triples == triple).sum()) for triple in (1, 2)] == [2 + 24, 2 + 2]  # color: ..., size: 1;


def test_attention_is_that_of_torch() -> None:
    ours, theirs = seeded(MultiHeadAttention(WIDTH, 2)), nn.MultiheadAttention(WIDTH, 2, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    states, others = numbers(2, 3, WIDTH), numbers(2, 4, WIDTH, seed=2)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    expected, _ = theirs(states, others, others, key_padding_mask=mask == 0)
    torch.testing.assert_close(ours(states, others, token_mask(mask)), expected)


def test_interactive_fusion() -> None:
    versions, there = numbers(2, 3, 4, WIDTH), torch.tensor([[True, True, True], [True, False, True]])
    known = versions.numpy()
    mean = InteractiveFusion(WIDTH, "mean")(versions, there).numpy()
    np.testing.assert_allclose(mean[0], known[0].mean(0))
    np.testing.assert_allclose(mean[1], known[1, [0, 2]].mean(0))

    soft = seeded(InteractiveFusion(WIDTH, "soft"))
    weight, bias = soft.score.weight.detach().numpy()[0], float(soft.score.bias.detach())
    scores = np.exp(known @ weight + bias) * there.numpy()[:, :, None]
    shares = scores / scores.sum(1, keepdims=True)
    expected = (shares[..., None] * known).sum(1)
    np.testing.assert_allclose(soft(versions, there).detach().numpy(), expected)

    hard = seeded(InteractiveFusion(WIDTH, "hard"))
    hard.load_state_dict(soft.state_dict())
    best = scores.argmax(1)
    chosen = hard(versions, there).detach().numpy()
    for item, place in np.ndindex(2, 4):
        np.testing.assert_allclose(chosen[item, place], known[item, best[item, place], place])
    hard.train()
    torch.manual_seed(3)
    drawn = torch.stack([hard(versions, there) for _ in range(200)])
    is_version = (drawn[:, :, None] - versions).abs().amax(-1) < 1e-12
    assert (is_version.sum(2) == 1).all()
    assert not is_version[:, 1, 1].any()  # there was nothing to look at
    np.testing.assert_allclose(is_version.double().mean(0).numpy(), shares, atol=0.12)  # drawn by their shares
    hard(versions, there).square().sum().backward()
    assert hard.score.weight.grad.abs().max() > 0


def test_structure_aggregation() -> None:
    states, items = numbers(2, 6, WIDTH), numbers(2, WIDTH, seed=2)
    triples = torch.tensor([[0, 1, 1, 2, 2, 0], [0, 0, 0, 0, 0, 0]])
    is_value = torch.tensor([[0, 0, 1, 0, 1, 0], [0] * 6]).bool()
    keys, there = mean_of_triples(states, triples * ~is_value, 2)
    values, _ = mean_of_triples(states, triples * is_value, 2)
    assert there.tolist() == [[True, True], [False, False]]
    torch.testing.assert_close(keys[0], states[0, [1, 3]])
    both, _ = mean_of_triples(states, triples, 2)
    torch.testing.assert_close(both[0, 0], states[0, 1:3].mean(0))

    layer = seeded(StructureAggregation(WIDTH))
    found = layer(items, keys, values, there).detach().numpy()
    weight = {name: tensor.detach().numpy() for name, tensor in layer.state_dict().items()}
    triple = np.stack([np.concatenate([items[0], keys[0, k], values[0, k]]) for k in range(2)])
    triple = triple @ weight["triple.weight"].T + weight["triple.bias"]
    score = triple @ weight["score.weight"][0] + weight["score.bias"][0]
    score = np.exp(np.where(score > 0, score, 0.2 * score))
    np.testing.assert_allclose(found[0], items[0].numpy() + (score / score.sum()) @ triple)
    np.testing.assert_allclose(found[1], items[1].numpy())


@pytest.mark.parametrize("fusion", ["mean", "soft", "hard"])
def test_an_items_vector_is_its_own_whatever_else_is_in_the_batch(fusion: str) -> None:
    made = model(interactive_fusion=fusion)
    network: Any = made.network
    pictures = pixels(4)
    pictures[1] = 0
    together = network.encode(batch_of(made, ITEMS, pictures))
    assert torch.isfinite(together).all()
    for row, item in enumerate(ITEMS):
        alone = network.encode(batch_of(made, [item], pictures[row : row + 1]))
        torch.testing.assert_close(together[row], alone[0], rtol=1e-3, atol=1e-4)
    nothing = network.encode(batch_of(made, [Item("x")], np.zeros((1, 32, 32, 3), np.uint8)))
    assert torch.isfinite(nothing).all()


@torch.no_grad()
def test_what_an_item_lacks_is_no_part_of_its_mean() -> None:
    network: Any = model().network
    shown, none = pixels(1), np.zeros((1, 32, 32, 3), np.uint8)

    def title(batch: K3MBatch) -> Tensor:
        found: Tensor = network.text_states(batch.titles)[0].mean(0)
        return found

    alone = batch_of(model(), [Item("b", "shoe")], none)
    torch.testing.assert_close(network.features(alone)[0], title(alone))
    picture = batch_of(model(), [Item("c")], shown)
    states = network.modalities(picture, network.regions_of(picture))["picture"].states
    torch.testing.assert_close(network.features(picture)[0], states[0].mean(0))
    both = batch_of(model(), [Item("b", "shoe")], shown)
    modalities = network.modalities(both, network.regions_of(both))
    fused = network.fused(modalities)
    expected = (fused["title"][0].mean(0) + fused["picture"][0].mean(0)) / 2
    torch.testing.assert_close(network.features(both)[0], expected)


def test_regions_are_means_of_the_cells_that_they_lie_in() -> None:
    tokens = torch.tensor([[[9.0], [0], [1], [2], [3]]], dtype=torch.float64)  # the whole, then two rows of two cells
    boxes = torch.tensor([[
        [0.0, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 0.5], [0.25, 0.5, 1.0, 1.0], [0.1, 0.1, 0.2, 0.9], [0, 0, 0, 0],
    ]], dtype=torch.float64)  # fmt: skip
    found = of_regions(tokens, boxes)[0, :, 0]
    torch.testing.assert_close(found, torch.tensor([1.5, 1, (2 + 2 * 3) / 3, 1, 0], dtype=torch.float64))


def test_a_detectors_regions_stand_in_place_of_the_grid() -> None:
    made = model()
    network: Any = made.network
    left, all_of_it = (0.0, 0.0, 0.5, 1.0), (0.0, 0.0, 1.0, 1.0)
    items = [Item("a", "shoe", regions=(left, all_of_it)), Item("b", "shoe"), Item("c", "shoe", regions=(left,))]
    batch = batch_of(made, items, np.repeat(pixels(1), 3, 0))
    regions = network.regions_of(batch)
    assert regions.mask.int().tolist() == [[1, 0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 1, 0]]
    assert regions.boxes[0, 5].tolist() == list(left)
    torch.testing.assert_close(regions.features[0, 5], regions.features[0, [1, 3]].mean(0))
    together = network.encode(batch)
    for row, item in enumerate(items):
        alone = network.encode(batch_of(made, [item], pixels(1)))
        torch.testing.assert_close(together[row], alone[0], rtol=1e-3, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-4


def test_every_process_has_gradients_of_the_same_weights() -> None:
    # Whatever items a process is given: gradients are added up in the order of the weights.
    reached = []
    for items in (ITEMS, [Item("a", "shoe"), Item("b", "red watch")]):
        made = model()
        made.network.encode(batch_of(made, items, pixels(len(items)))).square().sum().backward()
        reached.append({name for name, weight in made.network.named_parameters() if weight.grad is not None})
    assert reached[0] == reached[1]
    assert "structure.triple.weight" in reached[0]


# -- its four questions -----------------------------------------------------------------------------------------------


def questions(made: PairModel, items: list[Item]) -> Any:
    asked: Any = K3M().pretraining(made.network, made.arguments, made.parts, made.reader.read(items))  # type: ignore[arg-type] # of this family
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in asked.named_parameters():
            if not name.startswith("network."):
                weight.add_(0.3 * torch.randn(weight.shape))
    return asked.double().eval()


def test_what_is_asked_for_is_hidden_from_the_item(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    asked = questions(made, ITEMS)
    batch = batch_of(made, ITEMS, pixels(4))
    seen: list[dict[str, Tensor]] = []

    def keep(given: K3MBatch, *_: object) -> Tensor:
        vectors = type(made.network).item_vectors(asked.network, given, *_)  # type: ignore[attr-defined] # of K3M
        seen.append({"items": vectors, "triples": given.triples})
        return vectors

    asked.network.item_vectors = keep
    torch.manual_seed(8)
    asked.losses(batch)
    held_out = (batch.triples > 0) & (seen[0]["triples"] == 0)
    held = [sorted(set(row[mask].tolist())) for row, mask in zip(batch.triples, held_out, strict=True)]
    assert [len(triples) for triples in held] == [1, 0, 1, 0]  # one attribute of each item that has any
    for row, mask, triples in zip(batch.triples, held_out, held, strict=True):
        assert not triples or torch.equal(mask, row == triples[0])
    changed = batch.attributes.input_ids.masked_fill(held_out, 7)
    attributes = replace(batch.attributes, input_ids=changed)
    torch.manual_seed(8)
    asked.losses(replace(batch, attributes=attributes))
    torch.testing.assert_close(seen[1]["items"], seen[0]["items"])

    regions = asked.network.regions_of(batch)
    many = {field: getattr(regions, field).repeat_interleave(50, 0) for field in ("features", "boxes", "mask", "there")}
    hidden, parts = asked._hidden_parts(Regions(**many))
    assert not hidden[parts].any()
    assert not parts[:, 0].any()
    assert torch.equal(hidden[:, 0].abs().amax(1) == 0, parts.any(1))
    assert 0.1 < float(parts[:, 1:].double().mean()) < 0.2


def test_words_are_hidden_as_bert_hides_them() -> None:
    torch.manual_seed(0)
    words = WordPrediction(np.array([9, 5, 7, 5]), 4)
    ids, may = torch.full((200, 50), 5), torch.ones(200, 50, dtype=torch.bool)
    may[:, 0] = False
    shown, asked = words.hide(ids, may, 4)
    assert words.words.tolist() == [5, 7, 9]
    assert not asked[:, 0].any()
    assert torch.equal(shown[~asked], ids[~asked])
    share = {word: float((shown[asked] == word).double().mean()) for word in (4, 5, 7, 9)}
    assert float(asked[:, 1:].double().mean()) == pytest.approx(0.15, abs=0.01)
    assert share == pytest.approx({4: 0.8, 5: 0.1 + 0.1 / 3, 7: 0.1 / 3, 9: 0.1 / 3}, abs=0.03)


def test_the_losses_of_words_parts_and_links_are_those_of_the_formulas() -> None:
    made = model()
    asked = questions(made, ITEMS)
    states, table = numbers(2, 3, 16), numbers(len(tiny_tokenizer()), 16, seed=6)
    words = asked.words
    wanted = torch.tensor([[5, 6, 7], [8, 2, 9]])
    chosen = torch.tensor([[True, False, True], [True, True, False]])  # id 2 is no word of the catalogue
    found = float(words.loss(states, wanted, chosen, table).detach())
    known = words.words.tolist()
    assert 2 not in known
    expected = []
    for row, place in ((0, 0), (0, 2), (1, 0)):
        hidden = words.norm(nn.functional.gelu(words.dense(states[row, place])))
        logits = (table[words.words] @ hidden + words.bias).detach().numpy()
        expected.append(np.log(np.exp(logits).sum()) - logits[known.index(int(wanted[row, place]))])
    assert found == pytest.approx(np.mean(expected), rel=1e-5)

    tokens = numbers(2, 3, made.network.pictures.width, seed=7)  # type: ignore[union-attr] # of K3M
    errors = []
    for row, place in zip(*chosen.nonzero(as_tuple=True), strict=True):
        target = tokens[row, place].numpy()
        target = (target - target.mean()) / np.sqrt(target.var() + 1e-5)
        errors.append(((asked.parts(states[row, place]).detach().numpy() - target) ** 2).mean())
    assert float(asked._parts_loss(states, tokens, chosen).detach()) == pytest.approx(np.mean(errors), rel=1e-9)
    assert float(asked._parts_loss(states, tokens, chosen & False).detach()) == 0.0

    items = [Item(str(n), "shoe", attributes={"color": (value,)}) for n, value in enumerate(("red", "blue", "red"))]
    batch = batch_of(made, items, pixels(3))
    vectors = numbers(3, 16, seed=8)
    loss = float(asked._link_loss(batch, batch.triples == 1, vectors).detach())

    def unit(layer: nn.Module, text: str) -> NDArray[Any]:
        ids = tiny_tokenizer().backend_tokenizer
        ids.no_truncation()
        ids.no_padding()
        sequence = torch.tensor([[2, *ids.encode(text, add_special_tokens=False).ids, 3]])
        mean = asked.network.text(input_ids=sequence).last_hidden_state[0].mean(0)
        vector: NDArray[Any] = layer(mean).detach().numpy()
        return vector / np.linalg.norm(vector)

    heads = vectors.numpy() / np.linalg.norm(vectors.numpy(), axis=1, keepdims=True)
    relation, tails = unit(asked.relation, "color:"), [unit(asked.tail, f"{word};") for word in ("red", "blue", "red")]
    distance = np.array([[np.abs(head + relation - tail).sum() for tail in tails] for head in heads])
    wrong = [(0, 1), (1, 0), (1, 2), (2, 1)]  # the first and the last have the same value
    hinges = [max(0.0, 1.0 + distance[one, one] - distance[one, other]) for one, other in wrong]
    assert loss == pytest.approx(np.mean(hinges), rel=1e-9)


def test_every_weight_of_the_network_is_asked_something() -> None:
    made = model(interactive_fusion="soft")
    asked = questions(made, ITEMS)
    torch.manual_seed(2)
    for _ in range(4):
        terms = asked.losses(batch_of(made, ITEMS, pixels(4)))
        torch.stack([term.value for term in terms.values()]).sum().backward()
    reached = {
        name for name, weight in asked.network.named_parameters() if weight.grad is not None and weight.grad.any()
    }
    missed = {name for name, _ in asked.network.named_parameters()} - reached
    # A softmax does not change when all its scores do, and token type 1 is never read.
    assert {name for name in missed if not name.endswith((".score.bias", "key.bias"))} <= {
        "head.log_scale",
        "head.shift",
    }


@pytest.mark.parametrize("fusion", ["hard"])
def test_a_stored_model_scores_as_it_did(tmp_path: Path, fusion: str) -> None:
    made = model(interactive_fusion=fusion)
    save_model(tmp_path / "model", made)
    assert load_matcher(tmp_path / "model").model.network.state_dict().keys() == made.network.state_dict().keys()
    scorer = PairScorer(tmp_path / "model", device="cpu", precision="float32")
    pictures = pixels(4)
    pictures[1] = 0
    vectors = scorer.item_vectors(ITEMS, [None if not picture.any() else picture for picture in pictures])
    network: Any = made.network
    expected = network.encode(batch_of(made, ITEMS, pictures)).detach()
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-4)
    found = scorer.score(ITEMS, np.array([0, 0]), np.array([1, 3]), vectors)
    logits = network.pair_logits(expected[[0, 0]], expected[[1, 3]])
    np.testing.assert_allclose(found, torch.sigmoid(2 * logits + 0.5).detach().numpy(), atol=1e-4)
