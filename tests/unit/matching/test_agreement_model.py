"""Pair models that read what items state about each other, beside an encoder and by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf

from shopvision.errors import ItemError, UserError
from shopvision.items.facts.agreement import FEATURES
from shopvision.items.item import Item
from shopvision.items.pair_table import PairTable
from shopvision.matching.families.agreement_branch import AgreementBranch
from shopvision.matching.families.agreement_reading import AgreementReading
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.card import load_matcher
from shopvision.matching.families.informed import Informed
from shopvision.matching.fitting.inputs import PairInputs
from shopvision.matching.fitting.train import train_matcher
from shopvision.matching.scoring.predict import PairScorer
from shopvision.training.run import TrainingRun
from tests.unit.matching.matcher_world import World, make_world
from tests.unit.matching.tiny_matcher import ONE, arguments, save_model, tiny_model

ITEMS = [
    Item("a", title="red shoe nike a1200", price="1"),
    Item("b", title="nike shoe A1200", description="red", price="2"),
    Item("c", title="blue band b3300"),
]
LEFT, RIGHT = np.array([0, 0, 1]), np.array([1, 2, 2])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), pairs=48)


@pytest.mark.parametrize(
    "item",
    [
        Item("1", title="\u200b\u200d\ufeff", attributes={"colour": ("\u200b",)}), Item("1", title="\U0001f45f ?!"),
        Item("1", category="shoe"), Item("1", description="Soft, and made to last."),
    ],
    ids=["zero width", "no word", "category alone", "description without statement"],
)  # fmt: skip
def test_an_item_that_states_nothing_is_a_failure(tmp_path: Path, item: Item) -> None:
    """All features of its pairs would be 0, and every pair would get the same answer."""
    axes = Axes(interaction="one_tower", head="pair", loss="bce")
    save_model(tmp_path, tiny_model(arguments("agreement", axes, agreement=AgreementReading.of_items(ITEMS))))
    scorer = PairScorer(tmp_path)
    with pytest.raises(ItemError, match="Item '1' has no words that the model reads: give it a title") as error:
        scorer([(item, ITEMS[0])])
    assert error.value.code == "no_text"
    for told in (
        Item("1", brand="Nike"),
        Item("1", description="Weighs 2 kg."),
        Item("1", attributes={"fit": ("slim",)}),
    ):
        scorer.check(told)


def informed(**changes: Any) -> Any:
    return tiny_model(arguments("text_one_tower", ONE, agreement=AgreementReading.of_items(ITEMS), **changes))


def by_hand(branch: AgreementBranch, agreement: np.ndarray) -> np.ndarray:
    w = {name: tensor.double().numpy() for name, tensor in branch.state_dict().items()}
    hidden = agreement / w["scale"]
    for place in (0, 3):
        hidden = hidden @ w[f"layers.{place}.weight"].T + w[f"layers.{place}.bias"]
        hidden = hidden * (1 + erf(hidden / 2**0.5)) / 2
    return (hidden @ w["layers.6.weight"].T + w["layers.6.bias"])[:, 0]


@torch.no_grad()
def test_what_statements_say_is_added_to_the_encoders_log_odds() -> None:
    model = informed(hidden_agreement=0.5)
    network = model.network.double()
    kept = model.reader.read(ITEMS)
    batch = model.reader.batch(kept, LEFT, RIGHT, None)
    plain = model.reader.batch(kept, RIGHT, LEFT, None)
    torch.testing.assert_close(batch.agreement, plain.agreement, rtol=0, atol=0)
    assert dict(zip(FEATURES, batch.agreement[0].tolist(), strict=True))["colours agree"] == 1
    encoder = network.head(network.states(batch.pairs)).numpy()
    expected = encoder + by_hand(network.agreement, batch.agreement.double().numpy())
    np.testing.assert_allclose(network(batch), expected, rtol=1e-9)
    np.testing.assert_allclose(network(batch.rows(slice(1, 3))), expected[1:], rtol=1e-9)
    # In training about half of the pairs are read as if nothing were known.
    network.head.eval()
    network.text.eval()
    network.training = True
    torch.manual_seed(5)
    unknown = encoder + by_hand(network.agreement, np.zeros((3, len(FEATURES))))
    seen = np.array([network(batch).numpy() for _ in range(20)])
    assert (np.isclose(seen, unknown) | np.isclose(seen, expected)).all()
    assert 10 < np.isclose(seen, unknown).sum() < 50


@torch.no_grad()
@pytest.mark.parametrize("family", ["text_image_one_tower", "text_fields_one_tower"])
def test_whatever_else_a_family_reads_it_is_told_the_same(family: str) -> None:
    reading = AgreementReading.of_items(ITEMS)
    fields = {"fields": {"title": 16, "attributes": 16}} if "fields" in family else {"compare_pictures": True}
    told, untold = (tiny_model(arguments(family, ONE, agreement=agreement, **fields)) for agreement in (reading, None))
    told.network.eval()
    untold.network.eval()
    own = {name: told.network.state_dict()[name] for name in untold.network.state_dict()}
    untold.network.load_state_dict(own)
    length = untold.network.head.compare.in_features // 2 if "image" in family else 1
    pictures = torch.rand(3, 2, length, generator=torch.Generator().manual_seed(6)) if "image" in family else None
    batches = [model.reader.batch(model.reader.read(ITEMS), LEFT, RIGHT, pictures) for model in (told, untold)]
    added = (told.network(batches[0]) - untold.network(batches[1])).numpy()
    expected = by_hand(told.network.agreement, batches[0].agreement.double().numpy())
    np.testing.assert_allclose(added, expected, atol=1e-5)
    assert len({*expected.round(6)}) == 2  # the first pair has everything in common, the others nothing


def test_what_is_learnt_before_the_first_step() -> None:
    """Statements that count only together, and a feature that is hardly ever known."""
    rng = np.random.default_rng(2)
    agreement = (rng.random((400, 4)) < [0.5, 0.5, 0.5, 0.002]).astype(np.float32)
    labels = ((agreement[:, 0] > 0) != (agreement[:, 1] > 0)).astype(np.int8)
    branch, again = (AgreementBranch(4, dropout=0.0).train(training) for training in (True, False))
    again.load_state_dict(branch.state_dict())
    for one in (branch, again):
        one.learn(torch.from_numpy(agreement), torch.from_numpy(labels))
    logits = branch(torch.from_numpy(agreement))
    assert ((logits > 0).numpy() == labels).all()
    rms = np.sqrt((agreement.astype(np.float64) ** 2).mean(0))
    np.testing.assert_allclose(branch.scale, np.maximum(rms, 0.05), rtol=1e-6)
    assert (branch.training, again.training) == (True, False)
    for name, tensor in branch.state_dict().items():
        assert tensor.equal(again.state_dict()[name])


def test_what_no_training_pair_states_counts_for_nothing() -> None:
    rng = np.random.default_rng(4)
    agreement = (rng.random((200, 3)) < [0.5, 0.5, 0.0]).astype(np.float32)
    branch = AgreementBranch(3, dropout=0.0).eval()
    branch.learn(torch.from_numpy(agreement), torch.from_numpy(agreement[:, 0].astype(np.int8)))
    seen = torch.from_numpy(agreement)
    stated = seen.index_fill(1, torch.tensor([2]), 1.0)
    assert branch(stated).equal(branch(seen))


def test_pairs_without_a_label_are_left_to_the_teacher() -> None:
    model = informed()
    labels = np.array([1, -1, 0], np.int8)
    seen: list[Any] = []
    model.network.learn_first = lambda *arguments: seen.extend(arguments)
    PairInputs(PairTable(tuple(ITEMS), LEFT, RIGHT, labels), model.reader, None).learn_first(model.network)
    kept = model.reader.read(ITEMS)
    assert seen[0].equal(model.reader.agreement(kept, LEFT[[0, 2]], RIGHT[[0, 2]]))
    assert seen[1].tolist() == [1, 0]


@pytest.mark.parametrize("family", ["text_one_tower", "text_image_one_tower", "text_fields_one_tower", "agreement"])
def test_a_model_learns_is_stored_and_scores(world: World, tmp_path: Path, family: str) -> None:
    config = world.config(family, text={}, model={"agreement": True} if "text" in family else {}, epochs=1)
    report = train_matcher(config, TrainingRun(output=tmp_path))
    assert report is not None
    assert report.metrics["f1"] > 0.9
    loaded = load_matcher(report.folder).model
    assert isinstance(loaded.network, Informed) == ("text" in family)
    assert loaded.arguments.agreement.features == FEATURES
    if "image" in family:
        return  # these items have no pictures; those that ``report`` was measured on have
    scores = PairScorer(report.folder).score(ITEMS, LEFT, RIGHT)
    if family == "agreement":
        assert not loaded.arguments.symmetric
        np.testing.assert_array_equal(scores, PairScorer(report.folder).score(ITEMS, RIGHT, LEFT))
    assert np.isfinite(scores).all()


def test_a_model_that_knows_fewer_features_reads_these_alone(tmp_path: Path) -> None:
    reading = AgreementReading(features=("words agree", "code agrees"), terms={"items": 1, "counts": {}})
    model = tiny_model(arguments("text_one_tower", ONE, agreement=reading))
    batch = model.reader.batch(model.reader.read(ITEMS), LEFT, RIGHT, None)
    assert batch.agreement.tolist() == [[1, 1], [0, 0], [0, 0]]
    save_model(tmp_path, model)
    assert load_matcher(tmp_path).model.arguments.agreement == reading
    with pytest.raises(UserError, match=r"reads .'tastes alike'., which items are not compared by: train it again"):
        AgreementReading(features=("tastes alike",), terms={"items": 1, "counts": {}})
