"""Scoring pairs: the same numbers as plain float32 loops over the networks, in any order, batch and precision."""

from __future__ import annotations

from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from shopvision.encoders._fast.bert_on_cpu import ATTENTION
from shopvision.encoders._fast.first_token import compute_first_token_alone
from shopvision.errors import ItemError, UserError
from shopvision.images import allow_image_root
from shopvision.items.item import Item
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.card import load_matcher
from shopvision.matching.families.image_two_tower import ImageTowers
from shopvision.matching.families.packing import Packer
from shopvision.matching.families.towers import OneTower, TwoTower
from shopvision.matching.scoring import batching
from shopvision.matching.scoring.predict import PairScorer, ScoredPair
from shopvision.settings import get_settings
from tests.unit.matching.tiny_matcher import (
    BERT,
    COSINE,
    ONE,
    PREPROCESSING,
    THRESHOLDS,
    WORDS,
    arguments,
    save_model,
    save_tiny,
    tiny_model,
    unigram_tokenizer,
)

CLS: dict[str, Any] = {"pooling": "cls", "axes": ONE}
# As small as the others: with the 768 dimensions of its defaults, weights that are all a little positive add up to
# states whose common part is far larger than what tells them apart, and rounding decides their last four digits.
DISTILBERT: dict[str, Any] = {
    "model_type": "distilbert", "max_position_embeddings": 64, "vocab_size": BERT["vocab_size"], "dim": 16,
    "hidden_dim": 32, "n_layers": 2, "n_heads": 2,
}  # fmt: skip
ADDITIVE = Axes(interaction="two_tower", head="additive", loss="ce")


def words(generator: np.random.Generator, most: int) -> str:
    return " ".join(generator.choice(WORDS[:12], generator.integers(1, most + 1)))


def some_items(count: int = 12) -> list[Item]:
    generator = np.random.default_rng(4)
    return [
        Item(str(row), title=words(generator, 6), attributes={"color": (words(generator, 9),)}) for row in range(count)
    ]


def some_pairs(items: list[Item], count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    left = generator.integers(0, len(items), count)
    return left, (left + generator.integers(1, len(items), count)) % len(items)


def sigmoid(logits: Any) -> Any:
    return 1 / (1 + np.exp(-logits))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(batching.TOKENS_AT_ONCE, "cpu", 100)


def one_by_one(folder: Path, items: list[Item], left: np.ndarray, right: np.ndarray) -> Any:
    """Log-odds of pairs, one after the other, without padding or tricks."""
    model = load_matcher(folder).model
    packer: Packer = model.reader.packer  # type: ignore[union-attr] # models of texts have one
    logits = []
    with torch.no_grad():
        for a, b in zip(left, right, strict=True):
            packed = packer.pairs(packer.items([items[a], items[b]]), np.array([0]), np.array([1]))
            logits.append(model.network(packed.tokens).item())
    return np.array(logits)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("threads", [1, 3])
def test_one_tower_as_a_plain_loop(tmp_path: Path, pooling: str, threads: int) -> None:
    save_tiny(tmp_path, arguments("text_one_tower", ONE, pooling=pooling))
    items = some_items()
    left, right = some_pairs(items)
    expected = one_by_one(tmp_path, items, left, right)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scorer = PairScorer(tmp_path, precision="float32")
        found = scorer.log_odds(items, left, right)
        probabilities = scorer.score(items, left, right)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities, sigmoid(2.0 * expected + 0.5), atol=1e-5)
    assert (scorer.needs_text, scorer.needs_picture, scorer.vector_dimension) == (True, False, None)


def test_half_precision_stays_close(tmp_path: Path) -> None:
    save_tiny(tmp_path, arguments("text_one_tower", **CLS))
    items = some_items()
    left, right = some_pairs(items)
    expected = one_by_one(tmp_path, items, left, right)
    found = PairScorer(tmp_path, precision="bfloat16").log_odds(items, left, right)
    # bfloat16 keeps 8 bits; logits here are below 1.
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert np.abs(found - expected).max() > 1e-5


@pytest.mark.parametrize(("family", "axes"), [("text_one_tower", ONE), ("text_two_tower", COSINE)])
def test_encoders_in_half_precision_are_tuned(tmp_path: Path, family: str, axes: Axes) -> None:
    save_tiny(tmp_path, arguments(family, axes))
    for precision, tuned in (("bfloat16", True), ("float32", False)):
        network: Any = PairScorer(tmp_path, device="cpu", precision=precision)._runner._network  # type: ignore[arg-type] # a literal
        assert (network.text.config._attn_implementation == ATTENTION) == tuned


def test_both_orders_are_averaged_in_log_odds(tmp_path: Path) -> None:
    save_tiny(tmp_path, arguments("text_one_tower", symmetric=True, **CLS))
    items = some_items()
    left, right = some_pairs(items)
    expected = (one_by_one(tmp_path, items, left, right) + one_by_one(tmp_path, items, right, left)) / 2
    scorer = PairScorer(tmp_path, precision="float32")
    np.testing.assert_allclose(scorer.log_odds(items, left, right), expected, atol=1e-5)
    np.testing.assert_allclose(scorer.log_odds(items, right, left), expected, atol=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta"])
def test_the_last_layer_for_the_first_token_alone(tmp_path: Path, model_type: str) -> None:
    config = BERT | {"model_type": model_type, "max_position_embeddings": 80}
    save_tiny(tmp_path, arguments("text_one_tower", text_config=config, **CLS))
    full, short = load_matcher(tmp_path).model, load_matcher(tmp_path).model
    packer: Packer = full.reader.packer  # type: ignore[union-attr] # models of texts have one
    assert isinstance(short.network, OneTower)
    assert compute_first_token_alone(short.network.text, pooling=short.network.pooling, layers=short.network.layers)
    items = packer.items(some_items())
    left, right = np.arange(6), np.arange(6, 12)
    packed = packer.pairs(items, left, right)
    assert (packed.tokens.attention_mask == 0).any()
    states = short.network.text(
        input_ids=packed.tokens.input_ids, attention_mask=packed.tokens.attention_mask
    ).last_hidden_state
    assert states.shape == (6, 1, 16)
    torch.testing.assert_close(short.network(packed.tokens), full.network(packed.tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"pooling": "mean"}, {"layers": (2,)}, {"layers": (1, 2)}, {"text_config": DISTILBERT}],
)
def test_networks_that_read_more_stay_whole(tmp_path: Path, changes: dict[str, Any]) -> None:
    save_tiny(tmp_path, arguments("text_one_tower", **(CLS | changes)))
    network = load_matcher(tmp_path).model.network
    assert isinstance(network, OneTower)
    assert not compute_first_token_alone(network.text, pooling=network.pooling, layers=network.layers)
    items = some_items()
    left, right = some_pairs(items, 9)
    found = PairScorer(tmp_path, precision="float32").log_odds(items, left, right)
    np.testing.assert_allclose(found, one_by_one(tmp_path, items, left, right), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("axes", "symmetric"), [(COSINE, False), (ADDITIVE, False), (ADDITIVE, True)])
def test_text_two_tower_as_a_plain_loop(tmp_path: Path, axes: Axes, symmetric: bool) -> None:
    save_tiny(tmp_path, arguments("text_two_tower", axes, symmetric=symmetric))
    items = some_items()
    left, right = some_pairs(items)
    loaded = load_matcher(tmp_path).model
    packer: Packer = loaded.reader.packer  # type: ignore[union-attr] # models of texts have one
    assert isinstance(loaded.network, TwoTower)
    with torch.no_grad():
        singles = [packer.singles(packer.items([item]), np.array([0])).tokens for item in items]
        u = torch.cat([loaded.network.encode(tokens) for tokens in singles])
        expected = loaded.network.pair_logits(u[left], u[right])
        if symmetric:
            expected = (expected + loaded.network.pair_logits(u[right], u[left])) / 2
    scorer = PairScorer(tmp_path, precision="float32")
    vectors = scorer.item_vectors(items, None)
    assert scorer.vector_dimension == 16
    np.testing.assert_allclose(vectors, u, atol=1e-5)
    np.testing.assert_allclose(scorer.log_odds(items, left, right, vectors), expected, atol=1e-4)
    np.testing.assert_allclose(scorer.log_odds(items, left, right), expected, atol=1e-4)


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(6).integers(0, 256, (count, 32, 32, 3), np.uint8))


def pixels(chosen: list[np.ndarray]) -> torch.Tensor:
    """As the published preprocessing has them: (m, 3, H, W), normalised."""
    scaled = (np.stack(chosen) / 255 - np.array(PREPROCESSING.mean)) / np.array(PREPROCESSING.std)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def test_image_two_tower_as_a_plain_loop(tmp_path: Path) -> None:
    save_tiny(tmp_path, arguments("image_two_tower", ADDITIVE, projection=8))
    items, shown = some_items(5), pictures(5)
    network = load_matcher(tmp_path).model.network
    assert isinstance(network, ImageTowers)
    assert network.projection is not None
    with torch.no_grad():
        u = network.projection(network.image(pixels(shown)))
        expected = network.pair_logits(u[:4], u[1:])
    scorer = PairScorer(tmp_path, precision="float32")
    vectors = scorer.item_vectors(items, shown)
    np.testing.assert_allclose(vectors, u, atol=1e-4)
    np.testing.assert_allclose(scorer.log_odds(items, np.arange(4), np.arange(1, 5), vectors), expected, atol=1e-4)
    half = PairScorer(tmp_path, precision="bfloat16").item_vectors(items, shown)
    np.testing.assert_allclose(half, u, atol=0.03 * float(u.abs().max()))
    with pytest.raises(ItemError, match="Item '1' has no picture"):
        scorer.item_vectors(items[:2], [shown[0], None])


def test_text_and_image_as_a_plain_loop(tmp_path: Path) -> None:
    wanted = arguments("text_image_one_tower", **CLS)
    model = tiny_model(wanted)
    with torch.no_grad():  # else the pictures would hardly matter
        for weight in model.network.parameters():
            weight.mul_(3)
    save_model(tmp_path, model, calibration={"method": "none"})
    items, shown = some_items(5), [*pictures(4), None]
    loaded = load_matcher(tmp_path)
    image: Any = loaded.model.parts.image_encoder
    expected = []
    with torch.no_grad():
        features = torch.zeros(5, loaded.card.dimension or 0)
        features[:4] = normalize(image(pixels([picture for picture in shown if picture is not None])))
        for a in range(4):
            reader: Any = loaded.model.reader
            pair = reader.batch(
                reader.read([items[a], items[a + 1]]), np.array([0]), np.array([1]), features[[a, a + 1]].unsqueeze(0)
            )
            logits = loaded.model.network(pair)
            expected.append(logits.item())
    scorer = PairScorer(tmp_path, precision="float32")
    vectors = scorer.item_vectors(items, shown)
    assert vectors.shape == (5, scorer.vector_dimension)
    assert not vectors[4].any()
    left, right = np.arange(4), np.arange(1, 5)
    np.testing.assert_allclose(scorer.log_odds(items, left, right, vectors), expected, atol=1e-4)
    others = scorer.log_odds(items, left, right, vectors[::-1].copy())
    assert np.abs(others - expected).max() > 1e-3


def test_a_stop_leaves_the_rest_unscored(tmp_path: Path) -> None:
    items = some_items()
    left, right = some_pairs(items)
    for family, axes in (("text_one_tower", ONE), ("text_two_tower", COSINE)):
        save_tiny(tmp_path / family, arguments(family, axes))
        scorer = PairScorer(tmp_path / family, precision="float32")
        looks = chain([False, False], repeat(True))
        found = scorer.score(items, left, right, should_stop=looks.__next__)
        whole = scorer.score(items, left, right)
        reached = ~np.isnan(found)
        assert family == "text_two_tower" or 0 < reached.sum() < len(left)
        np.testing.assert_allclose(found[reached], whole[reached], atol=1e-6)
        assert np.isnan(scorer.score(items, left, right, should_stop=lambda: True)).all()


def test_a_call_scores_items_with_their_pictures(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", arguments("image_two_tower", COSINE))
    allow_image_root(get_settings(), tmp_path)
    items = []
    for number, colour in enumerate(("red", "red", "blue")):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (40, 40), colour).save(path)
        items.append(Item(str(number), picture=path.as_uri()))
    a, b, c = items
    scorer = PairScorer(tmp_path / "model", precision="float32")
    same, other = scorer([(a, b), (a, c)])
    assert isinstance(same, ScoredPair)
    assert same.probability > other.probability
    assert same.verdict == ("same" if same.probability >= THRESHOLDS["same"] else "review")
    with pytest.raises(ItemError, match="Item '9' has no picture"):
        scorer([(a, Item("9", title="red"))])
    with pytest.raises(ItemError, match="Item '8': "):
        scorer([(a, Item("8", picture=(tmp_path / "none.png").as_uri()))])


def test_bad_requests(tmp_path: Path) -> None:
    save_tiny(tmp_path, arguments("text_one_tower", ONE))
    scorer = PairScorer(tmp_path)
    a, b = some_items(2)
    assert scorer([]) == []
    for pairs, error, message in (
        ([(a, a)], ItemError, "paired with itself"),
        ([(a, Item("7", category="shoe"))], ItemError, "Item '7' has no words that the model reads"),
        ([(a, b), (Item("0", title="other"), b)], UserError, "Two different items are called '0'"),
    ):
        with pytest.raises(error, match=message):
            scorer(pairs)
    with pytest.raises(UserError, match="row 2 of 2 items"):
        scorer.score([a, b], np.array([0]), np.array([2]))
    with pytest.raises(UserError, match="keeps nothing of items"):
        scorer.item_vectors([a], None)
    assert scorer.verdicts(np.array([0.95, 0.9, 0.5, 0.1, 0.05], np.float32)).tolist() == [
        "same", "review", "review", "review", "different",
    ]  # fmt: skip
    save_tiny(tmp_path / "two", arguments("text_two_tower", COSINE))
    with pytest.raises(UserError, match=r"shape \(2, 3\), not \(2, 16\)"):
        PairScorer(tmp_path / "two").score([a, b], np.array([0]), np.array([1]), np.zeros((2, 3), np.float32))


ZERO_WIDTH = "\u200b\u200d\ufeff"
EMOJI = "\U0001f45f\U0001f9e2"  # no words of the tiny vocabulary
UNREADABLE = [
    Item("1", title=ZERO_WIDTH, attributes={"color": (ZERO_WIDTH,)}),
    Item("1", title=f"{EMOJI} {EMOJI}"),
    Item("1", attributes={"color": (EMOJI,)}),  # that something has a colour says nothing
    Item("1", category="shoe"),  # no builder reads it
]


@pytest.mark.parametrize("item", UNREADABLE, ids=["zero width", "emoji", "key alone", "category alone"])
@pytest.mark.parametrize(("family", "axes"), [("text_one_tower", ONE), ("text_two_tower", COSINE)])
def test_an_item_without_a_word_that_the_model_knows(tmp_path: Path, family: str, axes: Axes, item: Item) -> None:
    save_tiny(tmp_path, arguments(family, axes, builder="title_attributes"))
    with pytest.raises(ItemError, match="Item '1' has no words that the model reads: give it a title") as error:
        PairScorer(tmp_path)([(item, Item("2", title="red shoe"))])
    assert error.value.code == "no_text"


def test_whether_an_item_can_be_read_is_found_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path, arguments("text_two_tower", COSINE))
    scorer = PairScorer(tmp_path)
    built: list[Item] = []

    def has_text(item: Item) -> bool:
        built.append(item)
        return bool(item.title)

    monkeypatch.setattr(scorer, "_reads_text_of", has_text)
    monkeypatch.setattr("shopvision.matching.scoring.predict.REMEMBERED_ITEMS", 3)
    items = [Item(str(number), title="red shoe" if number else "") for number in range(4)]
    for _ in range(2):
        for item in items[1:]:
            scorer.check(item)
        with pytest.raises(ItemError):
            scorer.check(items[0])  # the fourth: the others are forgotten
    assert built == 2 * [*items[1:], items[0]]
    scorer.check(items[1])
    scorer.check(items[1])
    assert built[8:] == [items[1]]


def test_what_can_be_read_is_judged_by_the_text_that_is_built(tmp_path: Path) -> None:
    bare = Item("1", brand="Nike")
    save_tiny(tmp_path / "all", arguments("text_one_tower", ONE, builder="title_attributes"))
    save_tiny(tmp_path / "title", arguments("text_one_tower", ONE, builder="title"))
    PairScorer(tmp_path / "all").check(bare)
    titles = PairScorer(tmp_path / "title")
    for item in (bare, Item("1", attributes={"color": ("red",)}, description="a red shoe")):
        with pytest.raises(ItemError, match="no words that the model reads"):
            titles.check(item)


def test_a_blank_alone_is_no_word(tmp_path: Path) -> None:
    """SentencePiece makes a mark of a blank and the unknown word of an emoji that it does not know."""
    model = tiny_model(arguments("text_one_tower", ONE))
    packer = Packer(unigram_tokenizer(), model.reader.packer.builder, max_length=32, token_types=1)  # type: ignore[union-attr] # as above
    assert not packer.has_text(Item("1", title=EMOJI))
    assert packer.has_text(Item("1", title=f"{EMOJI} red"))


def test_an_item_without_words_is_read_by_its_picture(tmp_path: Path) -> None:
    save_tiny(tmp_path, arguments("text_image_one_tower", ONE))
    scorer = PairScorer(tmp_path)
    scorer.check(Item("1", title=EMOJI, picture="file:///a.png"))
    with pytest.raises(ItemError, match="no words that the model reads and no picture: give it a title"):
        scorer.check(Item("1", title=EMOJI))
