"""The family ``pkgm``: service vectors by hand, places of their own in a sequence, and items that no graph knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shopvision.errors import JobError, UserError
from shopvision.graph.card import NAMES_FILE, save_graph
from shopvision.graph.service import ServiceNames, ServiceVectors
from shopvision.graph.vectors import GraphVectors
from shopvision.items.item import Item
from shopvision.matching.families.card import load_matcher
from shopvision.matching.families.pair_model import Beginning, begin_training
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.train import train_matcher
from shopvision.matching.scoring.predict import PairScorer
from shopvision.training.run import TrainingRun
from tests.unit.matching.matcher_world import World, make_world, save_encoders
from tests.unit.matching.tiny_matcher import save_model

WIDTH = 6
ENTITIES = ("/item/a", "/value/Red", "/item/b", "/value/blue", "/value/nike", "/value/1", "/value/watch", "/value/shoe")
RELATIONS = ("Colour", "brand", "category", "size")
A = Item("a", "red watch", brand="Nike", attributes={"colour": ("RED", "blue")})
B = Item("b", "blue shoe", attributes={"colour": ("purple",)})
NEW = Item("new", "watch", brand="nike", attributes={"colour": ("red", "blue"), "material": ("gold",)})
BARE = Item("bare", "band")


def save_tiny_graph(folder: Path) -> Path:
    torch.manual_seed(3)
    save_graph(folder, GraphVectors(len(ENTITIES), len(RELATIONS), WIDTH), ENTITIES, RELATIONS, name="g", source="test")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pkgm")
    save_encoders(folder, 8)
    save_tiny_graph(folder / "graph")
    return folder


def begin(folder: Path, **changes: Any) -> Beginning:
    from shopvision.matching.families.pkgm import PkgmOptions
    from shopvision.matching.families.text_reading import TextOptions

    options = PkgmOptions.model_validate(
        {"text": f"local-dir:{folder / 'text'}", "graph": str(folder / "graph"), "keys": 4} | changes
    )
    return begin_training(options, TextOptions(builder="title", max_length=24), [A, B], seed=1)


def by_hand(told: list[tuple[str, str]], attributes: list[str]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Triple and relation queries of an item that says this, from the tables of the graph, float64."""
    torch.manual_seed(3)
    vectors = GraphVectors(len(ENTITIES), len(RELATIONS), WIDTH).double()
    e, r, m = (table.detach().numpy() for table in (vectors.entities, vectors.relations, vectors.matrix))
    relation = {name: r[row] for row, name in enumerate(RELATIONS)}
    entity = {name: e[row] for row, name in enumerate(ENTITIES)}
    h = sum((entity[value] - relation[key] for key, value in told), np.zeros(WIDTH))
    if not told:
        h = entity["/item/a"] + entity["/item/b"]
    h = h / np.linalg.norm(h)
    return np.stack([h + relation[key] for key in attributes]), np.stack([m @ h - relation[key] for key in attributes])


@pytest.mark.parametrize(
    ("item", "told", "attributes"),
    [
        (A, [("brand", "/value/nike"), ("Colour", "/value/Red"), ("Colour", "/value/blue")], ["Colour", "brand"]),
        (NEW, [("brand", "/value/nike"), ("Colour", "/value/Red"), ("Colour", "/value/blue")], ["Colour", "brand"]),
        (B, [], ["Colour"]),  # an attribute with a value that nobody knows: what items have in common
    ],
)
def test_service_vectors_by_hand(folder: Path, item: Item, told: list[tuple[str, str]], attributes: list[str]) -> None:
    model = begin(folder).model
    batch = model.reader.batch(model.reader.read([item, BARE]), np.array([0]), np.array([1]), None)
    network = model.network.double()
    triples, relations = network.graph(batch.rows_of_items[0], batch.told[0], batch.attributes[0])
    expected = by_hand(told, attributes)
    np.testing.assert_allclose(triples[0].detach().numpy(), expected[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(relations[0].detach().numpy(), expected[1], rtol=1e-6, atol=1e-7)
    own = network.graph.items(batch.rows_of_items[0], batch.told[0])
    np.testing.assert_allclose(own.norm(dim=1).detach().numpy(), 1, rtol=1e-9)


def test_known_items_may_have_their_own_rows(folder: Path) -> None:
    model = begin(folder, item_vectors="graph").model
    batch = model.reader.batch(model.reader.read([B, NEW]), np.array([0]), np.array([1]), None)
    torch.manual_seed(3)
    vectors = GraphVectors(len(ENTITIES), len(RELATIONS), WIDTH)
    found = model.network.graph.items(batch.rows_of_items[0], batch.told[0])
    torch.testing.assert_close(found[0], vectors.entities[2])
    told = model.reader.batch(model.reader.read([A, NEW]), np.array([0]), np.array([1]), None)
    assert told.told[0, 0].any()  # what it says of itself as well
    own = model.network.graph.items(told.rows_of_items[0], told.told[0])
    torch.testing.assert_close(own[0], vectors.entities[0])
    np.testing.assert_allclose(
        found[1].numpy() if not found.requires_grad else found[1].detach().numpy(),
        by_hand([("brand", "/value/nike"), ("Colour", "/value/Red"), ("Colour", "/value/blue")], ["brand"])[0][0]
        - vectors.relations[1].detach().numpy(),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip


def test_sequences_end_with_what_is_there_and_nothing_else_is_attended(folder: Path) -> None:
    model = begin(folder).model
    reader, network = model.reader, model.network
    kept = reader.read([A, B, NEW, BARE])
    left, right = np.array([0, 1, 3, 0]), np.array([1, 0, 3, 2])
    batch = reader.batch(kept, left, right, None)
    # [CLS] red watch [SEP] blue shoe [SEP], then 2 triple and 2 relation queries of A, 1 and 1 of B.
    assert reader.lengths(kept, left, right).tolist() == [7 + 6, 7 + 6, 5, 6 + 8]
    assert batch.tokens.attention_mask.sum(1).tolist() == [13, 13, 5, 14]
    assert batch.tokens.token_type_ids[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0]
    assert batch.places[0].tolist() == [[[7, 8], [9, 10]], [[11, -1], [12, -1]]]
    assert (batch.places[2] == -1).all()
    embeddings = network.embeddings(batch)
    triples, relations = by_hand(
        [("brand", "/value/nike"), ("Colour", "/value/Red"), ("Colour", "/value/blue")], ["Colour", "brand"]
    )
    for layer, queries, columns in (
        (network.triple_projection, triples, slice(7, 9)), (network.relation_projection, relations, slice(9, 11)),
    ):  # fmt: skip
        expected = layer(torch.from_numpy(queries).float())
        torch.testing.assert_close(embeddings[0, columns], expected, rtol=1e-4, atol=1e-5)
    words = network.text.get_input_embeddings()(batch.tokens.input_ids)
    torch.testing.assert_close(embeddings[0, :7], words[0, :7])
    with torch.no_grad():
        together = network(batch)
        for row in range(4):
            alone = reader.batch(kept, left[row : row + 1], right[row : row + 1], None)
            torch.testing.assert_close(network(alone)[0], together[row], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(network(batch.rows(slice(row, row + 1)))[0], together[row], rtol=1e-4, atol=1e-5)


def test_an_item_has_service_vectors_of_so_many_attributes_and_no_more(folder: Path) -> None:
    reader: Any = begin(folder, keys=1).model.reader
    kept = reader.read([A, B])
    batch = reader.batch(kept, np.array([0]), np.array([1]), None)
    assert batch.attributes.tolist() == [[[1], [1]]]  # colour, of the smallest number
    assert batch.told[0, 0].tolist() == [[2, 3], [1, 1], [1, 2]]  # its vector comes from all that it says
    assert reader.lengths(kept, np.array([0]), np.array([1])).tolist() == [7 + 4]


def test_what_a_graph_knows_makes_a_difference_and_is_enough_to_read(folder: Path, tmp_path: Path) -> None:
    model = begin(folder).model
    save_model(tmp_path / "model", model)
    scorer = PairScorer(tmp_path / "model", device="cpu", precision="float32")
    plain, red = Item("p", "watch"), Item("q", "watch", attributes={"colour": ("red",)})
    scores = scorer.score([BARE, plain, red], np.array([0, 0]), np.array([1, 2]))
    assert scores[0] != scores[1]
    scorer.check(Item("t", "", attributes={"colour": ("red",)}))
    with pytest.raises(Exception, match="has no words that the model reads"):
        scorer.check(Item("t", "", attributes={"material": ("gold",)}))


@torch.no_grad()
def test_what_items_state_is_told_beside_the_graph(folder: Path) -> None:
    told, plain = begin(folder, agreement=True).model, begin(folder).model
    plain.network.load_state_dict({name: told.network.state_dict()[name] for name in plain.network.state_dict()})
    rows = np.array([0, 1]), np.array([1, 3])
    batch, untold = (model.reader.batch(model.reader.read([A, B, NEW, BARE]), *rows, None) for model in (told, plain))
    for model in (told, plain):
        model.network.eval()
    added = told.network.agreement(batch.agreement)
    assert added[0] != added[1]
    torch.testing.assert_close(told.network(batch), plain.network(untold) + added)


def test_a_graph_that_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"The family pkgm reads a graph: name .* as model\.graph"):
        begin(folder, graph="")
    with pytest.raises(UserError, match=r"max_length 24 and 80 places .* = 20, are more than the encoder's 64 tokens"):
        begin(folder, keys=20)
    begin(folder, keys=10)  # 24 and 40 tokens are all there are
    save_graph(tmp_path / "items", GraphVectors(2, 1, WIDTH), ["/item/a", "/item/b"], ["like"], name="g", source="test")
    with pytest.raises(UserError, match=r"The graph g:.* names no value .* or set item_vectors = \"graph\""):
        begin(folder, graph=str(tmp_path / "items"))
    begin(folder, graph=str(tmp_path / "items"), item_vectors="graph")
    save_model(tmp_path / "model", begin(folder).model)
    with pytest.raises(UserError, match="is of the kind pair_scorer"):
        begin(folder, graph=str(tmp_path / "model"))
    (tmp_path / "model" / NAMES_FILE).unlink()
    with pytest.raises(JobError, match=rf"{NAMES_FILE} cannot be read: import the model again"):
        load_matcher(tmp_path / "model")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), pairs=90)


def test_it_is_trained_and_keeps_the_graph_as_it_was(world: World, folder: Path, tmp_path: Path) -> None:
    model = {"text": world.text, "graph": str(folder / "graph"), "keys": 3}
    sections = world.sections("pkgm", model=model, text={"max_length": 30}, epochs=6)
    sections["thresholds"] = {"cross_fit": 0}
    report = train_matcher(MatcherConfig.model_validate(sections), TrainingRun(output=tmp_path / "run"))
    assert report is not None
    assert report.metrics["f1"] > 0.85  # calling all same would have 0.5
    assert report.card.source.endswith("local-dir:text + g:" + begin(folder).start.origins[1].source.partition(":")[2])
    network = load_matcher(report.folder).model.network
    names = ServiceNames.of(RELATIONS, ENTITIES)
    assert (names.relations["colour"], names.values["red"], names.items["b"]) == (1, 2, 3)
    from shopvision.graph.card import load_graph

    tables, kept = ServiceVectors.tensors_of(load_graph(folder / "graph"), items=False)
    assert kept == [name for name in ENTITIES if name.startswith("/value/")]
    for name, table in tables.items():
        torch.testing.assert_close(network.get_parameter(f"graph.{name}").detach(), table, rtol=0, atol=0)
