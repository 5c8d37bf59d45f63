"""GCNII on unrolled neighbourhoods: the same as on the whole graph, worked out densely in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from shopvision.graph.convolution import GCNII, Trees
from shopvision.graph.facts import item_facts
from shopvision.graph.neighbourhoods import ItemValueGraph, grow
from shopvision.items.item import Item

ALPHA, THETA, WIDTH, HIDDEN = 0.2, 0.7, 5, 8
ITEMS = [
    Item("a", brand="acme", category="shoe", attributes={"colour": ("red",)}),
    Item("b", brand="acme", category="shoe", attributes={"colour": ("blue", "red")}),
    Item("c", brand="other", category="hat", attributes={"colour": ("blue",)}),
    Item("d", brand="other", category="hat", attributes={"maker": ("other", "third")}),
    Item("e"),
]
NEW = Item("new", brand="acme", category="boot", attributes={"colour": ("blue",)})


def network(layers: int, relations: int | None = None) -> GCNII:
    torch.manual_seed(layers)
    gcn = GCNII(WIDTH, HIDDEN, layers=layers, alpha=ALPHA, theta=THETA, dropout=0.3, relations=relations)
    if gcn.gates is not None:
        torch.nn.init.uniform_(gcn.gates, 0.5, 1.5)
    return gcn.double().eval()


def dense(gcn: GCNII, features: Tensor, edges: dict[tuple[int, int], int]) -> Tensor:
    """All states, by the paper's formula with the symmetric normalisation of the graph with self-loops."""
    count = len(features)
    gates = torch.ones(count, count, HIDDEN, dtype=torch.float64)
    adjacency = torch.eye(count, dtype=torch.float64)
    for (one, other), relation in edges.items():
        for i, j in ((one, other), (other, one)):
            adjacency[i, j] = 1
            if gcn.gates is not None:
                gates[i, j] = gcn.gates[relation]
    degree = adjacency.sum(1)
    shares = (adjacency / torch.sqrt(degree[:, None] * degree[None, :]))[..., None] * gates
    x = torch.relu(gcn.project(features))
    h = x
    for number, layer in enumerate(gcn.layers, start=1):
        s = (1 - ALPHA) * (shares * h[None]).sum(1) + ALPHA * x
        beta = math.log(THETA / number + 1)
        h = (1 - beta) * s + beta * layer(s)
        if number < len(gcn.layers):
            h = torch.relu(h)
    return h


def whole(items: list[Item]) -> tuple[list[str], dict[tuple[int, int], int], list[str]]:
    """Nodes and edges as one would draw them."""
    values = list(dict.fromkeys(value for item in items for _, value in item_facts(item)))
    relations = sorted({key for item in items for key, _ in item_facts(item)})
    edges: dict[tuple[int, int], int] = {}
    for row, item in enumerate(items):
        for key, value in item_facts(item):
            edges.setdefault((row, len(items) + values.index(value)), 1 + relations.index(key))
    return values, edges, relations


def trees(graph: ItemValueGraph, items: list[Item], features: Tensor, own: Tensor, depth: int, most: int = 99) -> Trees:
    """Trees whose roots have the rows of ``own`` in order, new values behind each."""
    roots = [graph.root(item, most) for item in items]
    starts = np.cumsum([0, *(1 + sum(node < 0 for node in root.values) for root in roots)])[:-1]
    levels = grow(graph, roots, (len(graph) + starts).tolist(), depth=depth, most=most)
    return Trees.of(torch.cat([features, own]), levels, np.concatenate([level.features for level in levels]))


@pytest.mark.parametrize(("layers", "typed"), [(1, False), (2, False), (2, True), (3, False), (4, True)])
def test_known_items_have_the_states_of_the_whole_graph(layers: int, typed: bool) -> None:
    values, edges, relations = whole(ITEMS)
    graph = ItemValueGraph.of_items(ITEMS, 99, seed=0)
    assert (list(graph.values), list(graph.relations)) == (values, relations)
    gcn = network(layers, len(relations) if typed else None)
    features = torch.randn(len(graph), WIDTH, dtype=torch.float64)
    expected = dense(gcn, features, edges)[: len(ITEMS)]
    found = gcn(trees(graph, ITEMS, features, features[: len(ITEMS)], layers))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)  # degrees are float32


@pytest.mark.parametrize("layers", [1, 2])
def test_a_new_item_has_the_state_of_a_graph_that_it_is_put_into(layers: int) -> None:
    graph = ItemValueGraph.of_items(ITEMS, 99, seed=0)
    gcn = network(layers)
    features, own = torch.randn(len(graph), WIDTH, dtype=torch.float64), torch.randn(2, WIDTH, dtype=torch.float64)
    values, edges, _ = whole([*ITEMS, NEW])
    assert values[-1] == "boot"  # which nobody else has
    order = [features[: len(ITEMS)], own[:1], features[len(ITEMS) :], own[1:]]
    expected = dense(gcn, torch.cat(order), edges)[len(ITEMS)]
    found = gcn(trees(graph, [NEW], features, own, layers))
    torch.testing.assert_close(found[0], expected, rtol=1e-6, atol=1e-6)


def test_a_gradient_reaches_every_item_of_a_batch_and_parts_are_what_the_whole_is() -> None:
    graph = ItemValueGraph.of_items(ITEMS, 99, seed=0)
    gcn = network(2)
    features = torch.randn(len(graph), WIDTH, dtype=torch.float64)
    own = torch.randn(len(ITEMS), WIDTH, dtype=torch.float64, requires_grad=True)
    batch = trees(graph, ITEMS, features, own, 2)
    states = gcn(batch)
    (gradient,) = torch.autograd.grad(states.sum(), own, retain_graph=True)
    assert (gradient.abs().sum(1) > 0).all()
    for start, stop in ((0, 2), (2, 5), (1, 4), (4, 5)):
        part = batch.rows(slice(start, stop))
        assert len(part) == stop - start
        assert len(part.features) <= len(batch.features)
        torch.testing.assert_close(gcn(part), states[start:stop])


def test_memory_is_bounded_by_the_neighbours_that_are_kept() -> None:
    crowd = [Item(str(row), brand="acme", attributes={"size": (str(row % 3),)}) for row in range(500)]
    graph = ItemValueGraph.of_items(crowd, 4, seed=1)
    assert len(graph.neighbours) == 500 * 2 + 4 * 4
    features = torch.zeros(len(graph), WIDTH, dtype=torch.float64)
    batch = trees(graph, [Item("new", brand="acme")], features, features[:1], 2, most=4)
    assert [len(level.features) for level in batch.levels] == [1, 1, 3]
    assert batch.levels[1].degrees.tolist() == [5.0]  # itself, the new item, three others
    drawn = {tuple(ItemValueGraph.of_items(crowd, 4, seed=seed).neighbours[-16:].tolist()) for seed in (1, 1, 2)}
    assert len(drawn) == 2
