"""Packing against a plain re-statement of the layout, token by token, with both kinds of tokenizer."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from shopvision.errors import UserError
from shopvision.items.category_statistics import CategoryStatistics
from shopvision.items.item import Item
from shopvision.items.item_texts import BuilderName, TextBuilder
from shopvision.matching.families.packing import Packer
from tests.unit.matching.tiny_matcher import WORDS, tiny_tokenizer, unigram_tokenizer

Make = Callable[[], PreTrainedTokenizerFast]
TOKENIZERS = pytest.mark.parametrize("make", [tiny_tokenizer, unigram_tokenizer])
BUILDERS = pytest.mark.parametrize("builder", ["title", "title_attributes", "aligned"])


def random_items(count: int, seed: int) -> list[Item]:
    rng = random.Random(seed)
    alphabet = [*(word for word in WORDS if word.isalnum()), "[SEP]", "</s>", "[unused99]", "unknown", "手机"]

    def text(most: int) -> str:
        return " ".join(rng.choices(alphabet, k=rng.randrange(most + 1)))

    def attributes() -> dict[str, tuple[str, ...]]:
        return {key: (text(3) or "a",) for key in rng.sample(["color", "size", "band", "c"], k=rng.randrange(5))}

    return [
        Item(str(number), title=text(12), category=rng.choice("xy"), brand=text(1), price=text(1),
             description=text(9), attributes=attributes())
        for number in range(count)
    ]  # fmt: skip


def packer(
    tokenizer: PreTrainedTokenizerFast, items: list[Item], builder: BuilderName, length: int = 24, **options: object
) -> Packer:
    texts = TextBuilder(builder, statistics=CategoryStatistics.fit(items))
    return Packer(tokenizer, texts, **{"max_length": length, "token_types": 2, **options})


def plain_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The ids of a text; one that spells a special token is unknown."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    special = set(tokenizer.all_special_ids)
    ids = tokenizer.encode(text, add_special_tokens=False) if text else []
    image = tokenizer.get_vocab().get("[unused99]")
    return [tokenizer.unk_token_id if number in special or number == image else number for number in ids]


def plain_pair(of: Packer, a: Item, b: Item) -> tuple[list[int], list[int], tuple[int, int]]:
    """Ids, token types and picture slots, one token removed at a time."""
    tokenizer, builder = of.tokenizer, of.builder
    texts = [builder.item(item) for item in (a, b)]
    orders = builder.order(texts[0], a.category, texts[1], b.category)
    titles = [plain_ids(tokenizer, text.title) for text in texts]
    pieces = [
        [number for place in order for number in plain_ids(tokenizer, text.pieces[place])]
        for text, order in zip(texts, orders, strict=True)
    ]
    separators = 1 if builder.name == "title" else 2
    fixed = 1 + 2 * separators + (4 if of.image_token else 0)
    while fixed + sum(map(len, titles + pieces)) > of.max_length:
        sizes = [len(title) + len(piece) for title, piece in zip(titles, pieces, strict=True)]
        side = 0 if sizes[0] > sizes[1] else 1
        (pieces[side] or titles[side]).pop()
    ids, types, slots = [tokenizer.cls_token_id], [0], []
    image = tokenizer.get_vocab().get("[unused99]", tokenizer.mask_token_id)
    for side in (0, 1):
        added = []
        if of.image_token:
            slots.append(len(ids))
            added = [image, tokenizer.sep_token_id]
        added += [*titles[side], tokenizer.sep_token_id]
        if separators == 2:
            added += [*pieces[side], tokenizer.sep_token_id]
        ids += added
        types += [side] * len(added)
    return ids, types, tuple(slots)


@TOKENIZERS
@BUILDERS
@pytest.mark.parametrize("image_token", [False, True])
@pytest.mark.parametrize("length", [13, 24, 64])
def test_pairs_are_packed_as_laid_down(make: Make, builder: BuilderName, image_token: bool, length: int) -> None:
    items = random_items(40, seed=length)
    of = packer(make(), items, builder, length, image_token=image_token)
    tokens = of.items(items)
    rng = np.random.default_rng(1)
    left, right = rng.integers(0, 40, (2, 60))
    batch = of.pairs(tokens, left, right)
    lengths = of.pair_lengths(tokens, left, right)
    assert batch.tokens.input_ids.shape[1] == lengths.max() <= length
    for row, (a, b) in enumerate(zip(left, right, strict=True)):
        ids, types, slots = plain_pair(of, items[a], items[b])
        size = lengths[row]
        assert batch.tokens.input_ids[row, :size].tolist() == ids
        assert batch.tokens.token_type_ids[row, :size].tolist() == types
        assert batch.tokens.attention_mask[row].tolist() == [1] * size + [0] * (lengths.max() - size)
        assert (batch.tokens.input_ids[row, size:] == of.tokenizer.pad_token_id).all()
        assert not batch.tokens.token_type_ids[row, size:].any()
        if image_token:
            assert tuple(batch.slots[row].tolist()) == slots
    assert image_token == (batch.slots is not None)


@TOKENIZERS
@BUILDERS
def test_single_items(make: Make, builder: BuilderName) -> None:
    items = random_items(40, seed=3)
    tokenizer = make()
    of = packer(tokenizer, items, builder, 16, prefix="query: ")
    tokens = of.items(items)
    lengths = of.single_lengths(tokens)
    batch = of.singles(tokens, np.arange(40)).tokens
    assert not batch.token_type_ids.any()
    separator = [tokenizer.sep_token_id]
    for row, item in enumerate(items):
        text = of.builder.item(item)
        start = [tokenizer.cls_token_id, *plain_ids(tokenizer, "query:")]
        title = plain_ids(tokenizer, text.title)
        pieces = [number for piece in text.pieces for number in plain_ids(tokenizer, piece)]
        while len(start) + len(title) + len(pieces) + (1 if builder == "title" else 2) > 16:
            (pieces or title).pop()
        expected = start + title + separator + ([] if builder == "title" else pieces + separator)
        assert batch.input_ids[row, : lengths[row]].tolist() == expected
        assert batch.attention_mask[row].sum() == lengths[row] == len(expected)


@BUILDERS
def test_one_at_a_time_is_the_same_as_many_at_once(builder: BuilderName) -> None:
    items = random_items(12, seed=4)
    of = packer(tiny_tokenizer(), items, builder, image_token=True)
    left, right = np.arange(6), np.arange(6, 12)
    many = of.pairs(of.items(items), left, right)
    for row in range(6):
        one = of.pairs(of.items([items[row], items[row + 6]]), np.array([0]), np.array([1]))
        size = one.tokens.input_ids.shape[1]
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            assert getattr(one.tokens, name)[0].equal(getattr(many.tokens, name)[row, :size])
        assert one.slots[0].equal(many.slots[row])


def test_the_published_layout_of_a_pair_and_of_a_pair_with_pictures() -> None:
    items = [Item("a", title="red shoe", attributes={"size": ("1",)}), Item("b", title="nike", brand="1")]
    for image, expected in (
        (False, "[CLS] red shoe [SEP] size : 1 ; [SEP] nike [SEP] brand : 1 ; [SEP]"),
        (True, "[CLS] [unused99] [SEP] red shoe [SEP] size : 1 ; [SEP] [unused99] [SEP] nike [SEP] brand : 1 ; [SEP]"),
    ):
        of = packer(tiny_tokenizer(), items, "title_attributes", 64, image_token=image)
        packed = of.pairs(of.items(items), np.array([0]), np.array([1]))
        words = of.tokenizer.convert_ids_to_tokens(packed.tokens.input_ids[0].tolist())
        assert " ".join(words) == expected
        # Segment 0 up to and including the last separator of the first item.
        first_item = 1 + (2 if image else 0) + len(["red", "shoe", "[SEP]", "size", ":", "1", ";", "[SEP]"])
        assert packed.tokens.token_type_ids[0].tolist() == [0] * first_item + [1] * (len(words) - first_item)
        assert (None if packed.slots is None else packed.slots.tolist()) == ([[1, first_item]] if image else None)


def test_without_the_unused_word_the_mask_stands_for_a_picture() -> None:
    items = random_items(2, seed=5)
    tokenizer = tiny_tokenizer(image_token=None)
    of = packer(tokenizer, items, "title", image_token=True)
    packed = of.pairs(of.items(items), np.array([0]), np.array([1]))
    assert packed.tokens.input_ids.gather(1, packed.slots).tolist() == [[tokenizer.mask_token_id] * 2]


def test_an_encoder_with_one_token_type_gets_zeros() -> None:
    items = random_items(4, seed=6)
    of = packer(tiny_tokenizer(), items, "title_attributes", token_types=1)
    assert not of.pairs(of.items(items), np.array([0, 1]), np.array([2, 3])).tokens.token_type_ids.any()


def test_empty_and_endless_items() -> None:
    items = [Item("empty"), Item("long", title="red " * 25_000, description="blue " * 20_000)]
    of = packer(tiny_tokenizer(), items, "title_attributes", 20)
    tokens = of.items(items)
    assert np.diff(tokens.starts)[tokens.first[1]] == 20  # no more than could ever be read
    both = of.pairs(tokens, np.array([0, 1, 0]), np.array([1, 1, 0])).tokens
    words = [" ".join(of.tokenizer.convert_ids_to_tokens(row.tolist())) for row in both.input_ids]
    assert words[0] == f"[CLS] [SEP] [SEP] {'red ' * 15}[SEP] [SEP]"
    assert words[1] == f"[CLS] {'red ' * 8}[SEP] [SEP] {'red ' * 7}[SEP] [SEP]"
    assert words[2].split("[PAD]", maxsplit=1)[0] == "[CLS] [SEP] [SEP] [SEP] [SEP] "
    nothing = of.pairs(of.items([]), np.zeros(0, int), np.zeros(0, int))
    assert len(nothing.tokens) == 0


def test_an_impossible_length() -> None:
    with pytest.raises(UserError, match="leaves no room for words: use 7 or more"):
        packer(tiny_tokenizer(), [], "title_attributes", 6)


def test_a_tokenizer_without_special_tokens_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.cls_token = None
    with pytest.raises(UserError, match="no cls token"):
        packer(tokenizer, [], "title")
