"""A one-tower that compares both items' states: against plain BERT and a cosine written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from shopvision.items.item import Item
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.sides import SidedPairs, SidesTower
from tests.unit.matching.test_pair_models import plain_bert, states
from tests.unit.matching.tiny_matcher import arguments, tiny_model

ITEMS = [
    Item("a", title="red apple watch", brand="apple"),
    Item("b", title="nike shoe", price="1", attributes={"size": ("1", "2")}),
    Item("c", title="watch"),
]


@pytest.mark.parametrize("similarity", ["cosine", "inner_product"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(("layers", "layer_pooling"), [((1,), "cat"), ((1, 2), "cat"), ((1, 2), "avg")])
@torch.no_grad()
def test_similar_sides_are_the_same_product(
    similarity: Any, pooling: str, layers: tuple[int, ...], layer_pooling: str
) -> None:
    axes = Axes(interaction="one_tower", head="metric", similarity=similarity, loss="bce")
    chosen: dict[str, Any] = {"layers": layers, "layer_pooling": layer_pooling, "pooling": pooling}
    model = tiny_model(arguments("text_one_tower", axes, **chosen))
    network: Any = model.network.double()
    assert isinstance(network, SidesTower)
    reader: Any = model.reader
    batch = reader.batch(reader.read(ITEMS), np.array([0, 1, 2]), np.array([1, 2, 0]), None)
    assert isinstance(batch, SidedPairs)
    tokens = batch.tokens
    all_states = states(plain_bert(network), tokens)
    w = {name: tensor.numpy() for name, tensor in network.head.state_dict().items()}
    expected = []
    for row in range(3):
        ids, types = tokens.input_ids[row].tolist(), tokens.token_type_ids[row].tolist()
        begins, size = types.index(1), int(tokens.attention_mask[row].sum())  # token types tell the sides apart
        assert int(batch.second[row]) == begins
        assert ids[begins - 1] == 3  # [SEP]
        parts = [([0], [begins - 1])] if pooling == "cls" else [(range(begins), range(begins, size))]
        vectors = []
        for side in (0, 1):
            read = [all_states[-layer][row].numpy()[list(parts[0][side])].mean(0) for layer in layers]
            state = np.concatenate(read) if layer_pooling == "cat" else np.mean(read, axis=0)
            vectors.append(np.tanh(w["dense.weight"] @ state + w["dense.bias"]))
        u, v = vectors
        s = u @ v / (np.linalg.norm(u) * np.linalg.norm(v) if similarity == "cosine" else 1.0)
        expected.append(np.exp(w["metric.log_scale"]) * s + w["metric.shift"])
    np.testing.assert_allclose(network(batch), expected, rtol=1e-9)
    part = batch.rows(slice(2, 3))
    np.testing.assert_allclose(network(part), expected[2:], rtol=1e-9)


def test_scoring_keeps_the_states_of_both_sides() -> None:
    axes = Axes(interaction="one_tower", head="metric", similarity="cosine", loss="bce")
    model = tiny_model(arguments("text_one_tower", axes, pooling="cls"))
    reader: Any = model.reader
    batch = reader.batch(reader.read(ITEMS), np.array([0, 1]), np.array([1, 2]), None)
    with torch.no_grad():
        before = model.network(batch)
        model.network.prepare_for_scoring(torch.device("cpu"), torch.float32)
        torch.testing.assert_close(model.network(batch), before, rtol=1e-4, atol=1e-5)


def test_every_weight_learns() -> None:
    axes = Axes(interaction="one_tower", head="metric", similarity="cosine", loss="bce")
    model = tiny_model(arguments("text_one_tower", axes))
    reader: Any = model.reader
    batch = reader.batch(reader.read(ITEMS), np.array([0, 1]), np.array([1, 2]), None)
    model.network.train()(batch).square().sum().backward()
    assert [name for name, weight in model.network.named_parameters() if weight.grad is None] == []
