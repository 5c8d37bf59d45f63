"""The family ``gcn``: trained, stored, loaded; a new item has the vector that its own neighbourhood gives it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shopvision.errors import JobError, UserError
from shopvision.items.item import Item
from shopvision.matching.families.card import load_matcher
from shopvision.matching.families.gcn import GcnOptions
from shopvision.matching.families.gcn_reading import GRAPH_FILE, GcnParts, TextVectors, memory_of
from shopvision.matching.families.pair_model import Beginning, begin_training, build_model
from shopvision.matching.families.text_reading import TextOptions
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.train import MatcherReport, train_matcher
from shopvision.matching.scoring.predict import PairScorer
from shopvision.training.run import TrainingRun
from tests.unit.matching.matcher_world import World, make_world, save_encoders
from tests.unit.matching.tiny_matcher import save_model

ITEMS = [
    Item("a", "red watch", brand="apple", attributes={"color": ("red",)}),
    Item("b", "blue watch", brand="apple", attributes={"color": ("blue",)}),
    Item("c", "shoe", brand="nike"),
]
NEW = Item("new", "watch", brand="apple", attributes={"size": ("3",)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gcn")
    save_encoders(folder, 8)
    return folder


def begin(folder: Path, **changes: Any) -> Beginning:
    options = GcnOptions.model_validate({"text": f"local-dir:{folder / 'text'}", "hidden": 8} | changes)
    return begin_training(options, TextOptions(builder="title", max_length=16), ITEMS, seed=1)


def test_vectors_of_known_and_new_items(folder: Path, tmp_path: Path) -> None:
    model = begin(folder, edge_types=True).model
    save_model(tmp_path / "model", model)
    scorer = PairScorer(tmp_path / "model", device="cpu", precision="float32")
    items = [*ITEMS, NEW, Item("c", "shoe"), Item("other", "red watch", brand="apple", attributes={"color": ("red",)})]
    vectors = scorer.item_vectors(items, None)
    alone = np.concatenate([scorer.item_vectors([item], None) for item in items])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)  # nothing depends on who is asked for beside it
    assert np.abs(vectors[2] - vectors[4]).max() > 1e-4  # values are read
    # Another item with the same words: its neighbourhood holds a as well, which a's own does not.
    assert np.abs(vectors[0] - vectors[5]).max() > 1e-4

    again = PairScorer(tmp_path / "model", device="cpu", precision="float32")
    np.testing.assert_array_equal(vectors, again.item_vectors(items, None))
    parts = load_matcher(tmp_path / "model").model.parts
    assert isinstance(parts, GcnParts)
    assert parts.graph.items == ("a", "b", "c")
    assert parts.graph.values == ("apple", "red", "blue", "nike")
    assert not any(weight.requires_grad for weight in parts.text.parameters())
    # Of the text of a node its own vector, as of a title.
    packer = model.reader._packer
    said = TextVectors(parts.text, packer, "mean").of_items([Item("", "red watch"), Item("", "nike")])[0]
    np.testing.assert_allclose(parts.nodes[[0, 6]], said, rtol=1e-3, atol=1e-3)


def test_texts_are_encoded_as_fast_as_the_device_allows(folder: Path) -> None:
    model = begin(folder).model
    item = Item("newer", "shoe of nike")
    before = model.reader.read([item]).features
    names = model.network.state_dict().keys()
    model.network.prepare_for_scoring(torch.device("cpu"), torch.bfloat16)
    text = model.parts.text  # type: ignore[attr-defined] # of GcnParts
    assert {weight.dtype for weight in text.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in model.network.parameters()} == {torch.float32}
    assert model.network.state_dict().keys() == names  # it is no part of the network, which is saved without it
    kept = TextVectors(text, model.reader._packer, "mean").of_items([item])[0]
    np.testing.assert_allclose(kept, before[:1], rtol=0.05, atol=0.05)


def test_texts_are_encoded_once_for_all_seeds(folder: Path) -> None:
    first = begin(folder)
    text = first.model.parts.text
    calls: list[int] = []
    text.register_forward_hook(lambda *_: calls.append(1))
    features = first.model.reader.read([NEW, *ITEMS]).features
    assert calls  # the new item, and its size
    again = begin(folder)
    again.model.parts.text.register_forward_hook(lambda *_: calls.append(1))
    count = len(calls)
    np.testing.assert_array_equal(again.model.reader.read([NEW, *ITEMS]).features, features)
    assert len(calls) == count
    np.testing.assert_array_equal(again.model.parts.nodes, first.model.parts.nodes)
    other = {name: tensor + 1 for name, tensor in text.state_dict().items()}
    assert memory_of(text.state_dict()) is first.model.parts.memory
    assert memory_of(other) == {}


def test_what_is_read_of_an_item(folder: Path) -> None:
    model = begin(folder).model
    assert model.reader.has_text(Item("n", "", brand="nike"))
    assert model.reader.has_text(Item("n", "watch"))
    assert not model.reader.has_text(Item("n", "", brand="unheard-of"))
    kept = model.reader.read([NEW, ITEMS[0]])
    # [CLS] watch [SEP], and at most the item, two values, and fifteen others with each: 32 nodes count as a token.
    assert model.reader.lengths(kept).tolist() == [3 + 2, 4 + 2]
    assert kept.features.shape == (3, 16)  # two titles, and the size that nobody else has
    torch.manual_seed(0)
    batch = model.reader.batch(kept, np.array([0]), None)
    # The item; its brand and its size; both watches of the brand.
    assert [len(level.features) for level in batch.levels] == [1, 2, 2]
    assert batch.levels[1].degrees.tolist() == [4.0, 2.0]


@torch.no_grad()
def test_the_options_of_the_layers_reach_them(folder: Path) -> None:
    same_words = [ITEMS[0], Item("x", "red watch", brand="nike")]

    def vectors(**changes: Any) -> torch.Tensor:
        model = begin(folder, **changes).model
        found: torch.Tensor = model.network.eval().encode(
            model.reader.batch(model.reader.read(same_words), np.arange(2), None)
        )
        return found

    usual = vectors()
    assert (usual[0] - usual[1]).abs().max() > 1e-3
    own = vectors(alpha=1.0)
    torch.testing.assert_close(own[0], own[1])  # each node's own text is all that counts
    assert (vectors(theta=5.0) - usual).abs().max() > 1e-3
    assert begin(folder).model.network.gcn.gates is None
    assert begin(folder, edge_types=True).model.network.gcn.gates.shape == (1 + 2, 8)  # brand, colour


def test_a_gradient_reaches_every_pair_of_a_batch(folder: Path) -> None:
    model = begin(folder, head="interaction").model
    kept = model.reader.read([*ITEMS, NEW])
    batch = model.reader.batch(kept, np.arange(4), None)
    network = model.network
    vectors = network.encode(batch)
    vectors.retain_grad()
    left, right = torch.tensor([0, 2]), torch.tensor([1, 3])
    logits = network.pair_logits(vectors[left], vectors[right])
    torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0.0])).backward()
    assert (vectors.grad.abs().sum(1) > 0).all()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.gcn.parameters())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), pairs=120)


def train(world: World, output: Path, **model: Any) -> MatcherReport:
    options = {"text": world.text, "hidden": 32, "neighbours": 4, "graph_dropout": 0.0} | model
    sections = world.sections("gcn", model=options, text={"builder": "title"}, epochs=20, lr_head=0.01)
    sections["thresholds"] = {"cross_fit": 0}
    report = train_matcher(MatcherConfig.model_validate(sections), TrainingRun(output=output))
    assert report is not None
    return report


def test_it_is_trained_stored_loaded_and_scores(world: World, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"item_id": "seen before", "title": "red shoe", "category": "shoe"}) + "\n")
    report = train(world, tmp_path / "run", known_items=str(more))
    assert report.metrics["f1"] > 0.8  # calling all same would have 0.5
    loaded = load_matcher(report.folder)
    assert isinstance(loaded.model.parts, GcnParts)
    assert "seen before" in loaded.model.parts.graph.items
    scorer = PairScorer(report.folder, device="cpu")
    assert scorer.vector_dimension == 32
    items = [Item("x", "apple watch red"), Item("y", "red watch apple"), Item("z", "red watch band apple")]
    same, band = scorer.score(items, np.array([0, 0]), np.array([1, 2]))
    assert same > band


def test_a_graph_that_does_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    model = begin(folder).model
    save_model(tmp_path / "model", model)
    path = tmp_path / "model" / GRAPH_FILE
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(JobError, match=rf"{GRAPH_FILE} cannot be read: import the model again"):
        load_matcher(tmp_path / "model")
    np.savez(path, nodes=np.zeros((3, 2), np.float16), starts=[0, 0], neighbours=[], edges=[])
    with pytest.raises(JobError, match="is not the graph of its names"):
        load_matcher(tmp_path / "model")
    with pytest.raises(UserError, match="16 neighbours over 5 layers are 1,118,481 nodes around an item"):
        begin(folder, gcn_layers=5)
    with pytest.raises(UserError, match="needs its graph"):
        build_model(model.arguments, type(model.parts).__bases__[0](tokenizer=model.parts.tokenizer))
