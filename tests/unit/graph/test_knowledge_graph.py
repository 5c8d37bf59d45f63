"""Knowledge graphs in numbers: what items say, what is held out, what is drawn as wrong, and ranks by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from shopvision.errors import UserError
from shopvision.graph.facts import item_facts
from shopvision.graph.knowledge import KnowledgeGraph, file_statements, hold_out, item_statements
from shopvision.graph.link_prediction import LinkTask
from shopvision.graph.negatives import Corruption
from shopvision.graph.row_optimizer import RowAdagrad
from shopvision.graph.vectors import GraphVectors
from shopvision.items.item import Item

SHOE = Item(
    "1",
    category="Men/Shoes",
    brand="ACME ",
    attributes={"Colour:": ("Blue", "red"), "colour": ("RED",), "currency": ("EUR",)},
)


def graph_of(count: int = 400, seed: int = 0) -> KnowledgeGraph:
    """Items of four kinds; colour and size follow from the kind, and the maker says nothing."""
    rng = np.random.default_rng(seed)
    said = []
    for item in range(count):
        kind = int(rng.integers(4))
        said += [(f"/item/{item}", "kind", f"/value/kind {kind}")]
        said += [(f"/item/{item}", "maker", f"/value/{rng.integers(20)}")]
        said += [(f"/item/{item}", "colour", f"/value/colour {2 * kind + side}") for side in range(2)]
        said += [(f"/item/{item}", "size", f"/value/size {kind}")]
    return KnowledgeGraph.of_statements(said)


def test_every_value_of_every_key_is_a_triple() -> None:
    facts = [("brand", "acme"), ("category", "men/shoes"), ("colour", "blue"), ("colour", "red")]
    assert item_facts(SHOE) == facts
    assert item_facts(Item("2", industry="Sports ", category="Shoes")) == [
        ("category", "shoes"),
        ("industry", "sports"),
    ]
    others = [Item(str(number), brand="acme", attributes={"colour": ("red",)}) for number in range(2, 8)]
    said = item_statements([SHOE, *others], fewest=2)  # what one item alone says is left out
    assert said[:2] == [("/item/1", "brand", "/value/acme"), ("/item/1", "colour", "/value/red")]
    graph = KnowledgeGraph.of_statements(item_statements([SHOE, *others]))
    assert graph.relations == ("colour", "brand", "category")  # 8, 7 and 1 triples
    assert graph.entities[:4] == ("/item/1", "/value/acme", "/value/men/shoes", "/value/blue")
    assert graph.triples[:4].tolist() == [[0, 1, 1], [0, 2, 2], [0, 0, 3], [0, 0, 4]]


def test_a_file_of_triples(tmp_path: Path) -> None:
    path = tmp_path / "graph.csv"
    path.write_text("head,relation,tail\n7,Colour:,Dark  Red\n/value/shoe,kind of,/value/thing\n")
    assert file_statements(path) == [
        ("/item/7", "colour", "/value/dark red"), ("/value/shoe", "kind of", "/value/thing"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="The graph has 2 triples: give 10 or more"):
        KnowledgeGraph.of_statements(file_statements(path))


def test_what_is_held_out_is_known_of_otherwise() -> None:
    graph = graph_of(60)
    held = hold_out(graph.triples, 0.1, seed=3)
    assert held.sum() == round(0.1 * len(graph))
    kept = graph.triples[~held]
    assert set(graph.triples[:, 1]) == set(kept[:, 1])
    assert set(graph.triples[:, [0, 2]].ravel()) == set(kept[:, [0, 2]].ravel())
    assert (held == hold_out(graph.triples, 0.1, seed=3)).all()
    assert hold_out(graph.triples, 1e-6, seed=3).sum() == 1  # of a small graph a small share is one, not none
    alone = np.array([[2 * row, 0, 2 * row + 1] for row in range(12)])
    assert not hold_out(alone, 0.5, seed=3).any()


def test_wrong_triples_are_wrong_in_one_place_drawn_as_bernoulli() -> None:
    # Relation 0: three heads, one tail each, all the same. Relation 1: one head with four tails.
    triples = np.array([[0, 0, 3], [1, 0, 3], [2, 0, 3], *([0, 1, tail] for tail in (4, 5, 6, 7))])
    corruption = Corruption(triples, 8, 2, relation_share=0.25, alike=0.0)
    # 3 triples of 3 heads and 1 tail: 1 tail a head, 3 heads a tail. 4 triples of 1 head and 4 tails: 4 and 1.
    np.testing.assert_allclose(corruption.head_share, [1 / (1 + 3), 4 / (4 + 1)])
    right = np.repeat(triples[[0, 3]], 4000, axis=0)
    wrong, fine = corruption.draw(right, np.random.default_rng(1))
    assert ((wrong != right).sum(1)[fine] == 1).all()
    known = set(map(tuple, triples.tolist()))
    assert not known & set(map(tuple, wrong[fine].tolist()))
    assert set(wrong[:, 0]) == {0, 1, 2}  # values never stand for items
    assert set(wrong[:, 2]) == {3, 4, 5, 6, 7}
    changed = (wrong != right).reshape(2, 4000, 3)
    assert changed[:, :, 1].mean() == pytest.approx(0.25, abs=0.02)
    # Every other head of (?, 0, 3) is true as well, so that hardly any wrong one is found.
    assert changed[0, fine[:4000], 0].sum() == 0
    assert not fine[:4000].all()
    assert changed[1, fine[4000:], 0].mean() == pytest.approx(0.75 * 0.8, abs=0.03)

    alike = Corruption(triples, 8, 2, relation_share=0.0, alike=1.0)
    wrong, fine = alike.draw(np.repeat([[1, 1, 4]], 200, axis=0), np.random.default_rng(1))
    assert set(wrong[fine, 2]) <= {4, 5, 6, 7}


def test_filtered_ranks_by_hand() -> None:
    vectors = GraphVectors(6, 1, 2)
    with torch.no_grad():
        vectors.entities.copy_(torch.tensor([[1.0, 0], [0, 1], [0.6, 0.8], [0.8, 0.6], [-1, 0], [0.6, 0.8]]))
        vectors.relations.zero_()
    # Tails 1 to 5; head 0 has 3 and 2. Squared distances of 0 from 1..5: 2, 0.8, 0.4, 4, 0.8.
    triples = np.array([[0, 0, 3], [0, 0, 2], [2, 0, 1], [3, 0, 4], [1, 0, 5]])
    ranks = LinkTask(triples, np.array([1, 3])).ranks(vectors)
    # Of (0, ?): 3 is nearer but true, 5 is as near. Of (3, ?): 4 is the farthest of five, and nothing else is true.
    assert (ranks.better.tolist(), ranks.tied.tolist(), ranks.sizes.tolist()) == ([0, 4], [2, 1], [4, 5])
    measured = ranks.measured(resamples=0)
    assert measured["mrr"].value == pytest.approx(((1 + 1 / 2) / 2 + 1 / 5) / 2)
    assert measured["hits_1"].value == pytest.approx((1 / 2 + 0) / 2)
    assert measured["hits_3"].value == pytest.approx((1 + 0) / 2)
    assert measured["hits_3"].random == pytest.approx((3 / 4 + 3 / 5) / 2)
    assert measured["mrr"].random == pytest.approx(((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4 + 137 / 60 / 5) / 2)


def test_rows_that_a_step_sees_alone_are_changed() -> None:
    table = torch.nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    optimizer = RowAdagrad([{"name": "t", "params": [table], "lr": 0.5, "unit": True}])
    gradient = torch.tensor([[3.0, 4.0]])
    for _ in range(2):
        table.grad = torch.sparse_coo_tensor(
            torch.tensor([[1]]), gradient, (3, 2), is_coalesced=True, check_invariants=False
        )
        optimizer.step()
    first = np.array([0.0, 1.0]) - 0.5 * np.array([3, 4]) / 5
    first /= np.linalg.norm(first)
    second = first - 0.5 * np.array([3, 4]) / np.sqrt(50)
    expected = second / np.linalg.norm(second)
    np.testing.assert_allclose(table.detach().numpy(), [[1, 0], expected, [0.6, 0.8]], rtol=1e-5)
