"""The family ``text_cnn`` against its sums written out, and what it knows of words."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from shopvision.encoders.text_networks import build_text
from shopvision.encoders.text_sources import TextSource
from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families.learnt_words import WordCutter, entries_of, learn_words
from shopvision.matching.families.pair_model import begin_training
from shopvision.matching.families.text_cnn import TextCNN, TextCNNArguments, TextCNNOptions, WordTowers
from shopvision.matching.families.text_reading import TextOptions
from shopvision.matching.families.word_vectors import encoder_vectors, file_vectors
from tests.unit.matching.tiny_matcher import BERT, COSINE, tiny_network, tiny_tokenizer, unigram_tokenizer

ITEMS = [
    Item("a", title="red apple watch", brand="apple"),
    Item("b", title="Red shoe DSC-W300", attributes={"size": ("1",)}),
    Item("c", title="shoe"),
]
INNER = COSINE.model_copy(update={"similarity": "inner_product"})


def towers(**changes: Any) -> WordTowers:
    fields: dict[str, Any] = {
        "family": TextCNN.name, "axes": INNER, "vocabulary": 99, "width": 5, "windows": (1, 2, 5), "filters": 3,
    }  # fmt: skip
    network = tiny_network(TextCNNArguments(**fields | {"texts": {"max_length": 32}} | changes))
    assert isinstance(network, WordTowers)
    return network


def batch(items: list[Item]) -> Any:
    reader = begin_training(TextCNNOptions(text="", width=5), TextOptions(max_length=32), ITEMS, seed=1).model.reader
    return reader.batch(reader.read(items), np.arange(len(items)), None)


def plain_vector(network: WordTowers, ids: list[int]) -> np.ndarray:
    """The vector of one item, window by window, in float64."""
    weights = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}

    def normed(vector: np.ndarray) -> np.ndarray:
        return (vector - vector.mean()) / np.sqrt(vector.var() + 1e-5)

    rows = [
        np.concatenate([normed(weights[f"{table}.weight"][number]) for table in ("words", "kept")]) for number in ids
    ]
    found = []
    for place, size in enumerate(network.windows):
        kernel, bias = weights[f"filters.{place}.weight"], weights[f"filters.{place}.bias"]
        values = []
        for start in range(len(rows)):
            window = rows[start : start + size]
            values.append(bias + sum(kernel[:, :, step] @ row for step, row in enumerate(window)))
        found.append(np.maximum(np.max(values, axis=0), 0))
    return np.concatenate(found)


@torch.no_grad()
def test_vectors_are_what_windows_say_most_strongly() -> None:
    network, tokens = towers().double(), batch(ITEMS)
    for convolution in network.filters:
        convolution.bias.fill_(2.0)  # so that a window of nothing but padding would often say most
    assert (tokens.attention_mask == 0).any()
    found = network.encode(tokens)
    for row, vector in enumerate(found):
        ids = tokens.input_ids[row][tokens.attention_mask[row] > 0].tolist()
        np.testing.assert_allclose(vector, plain_vector(network, ids), rtol=1e-9)
    # Alone, without padding, and shorter than the longest window.
    np.testing.assert_allclose(network.encode(batch(ITEMS[2:]))[0], found[2], rtol=1e-12)


def test_one_channel_learns_and_the_other_stays() -> None:
    network = towers().train()
    network.encode(batch(ITEMS)).square().sum().backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None and "head" not in name]
    assert still == ["kept.weight"]
    assert not network.kept.weight.requires_grad


TEXTS = ["red shoe", "Red shoes, size 44", "red DSC-W300", "blue shoe"]


def tokens_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return tokenizer.tokenize(text)


def test_a_vocabulary_of_frequent_words_that_reads_rare_ones_in_characters() -> None:
    cutter = WordCutter(chinese_words=False)
    tokenizer = learn_words(TEXTS, cutter, least=2, most=200)
    assert tokenizer.tokenize("RED shoe") == ["red", "shoe"]
    assert tokenizer.tokenize("blue") == ["b", "##l", "##u", "##e"]
    assert tokenizer.tokenize("shoes dsc300") == ["shoe", "##s", "d", "##s", "##c", "##3", "##0", "##0"]
    assert tokenizer.tokenize("zebra") == ["[UNK]"]
    shuffled = random.Random(1).sample(TEXTS, len(TEXTS))
    assert learn_words(shuffled, cutter, least=2, most=200).get_vocab() == tokenizer.get_vocab()
    assert "blue" in learn_words(TEXTS, cutter, least=1, most=200).get_vocab()
    texts = dict(entries_of(tokenizer))
    assert sorted(texts) == list(range(5, len(tokenizer)))  # the special ones are left out
    assert texts[tokenizer.get_vocab()["##u"]] == "u"


def test_what_room_is_left_is_filled_with_other_words() -> None:
    cutter = WordCutter(chinese_words=False)
    least = len(learn_words(TEXTS, cutter, least=2, most=200))
    tokenizer = learn_words(TEXTS, cutter, least=2, most=least + 1, more=["red", "green", "black"])
    assert tokenizer.tokenize("green") == ["green"]
    assert tokenizer.tokenize("black") == ["[UNK]"]
    few = learn_words(TEXTS, cutter, least=2, most=10)
    assert len(few) == 10


def test_chinese_words_or_characters() -> None:
    texts = ["无线 鼠标", "无线 键盘"]
    assert learn_words(texts, WordCutter(chinese_words=True), least=2, most=99).tokenize("无线 鼠标") == [
        "无线", "鼠", "##标",
    ]  # fmt: skip
    assert learn_words(texts, WordCutter(chinese_words=False), least=2, most=99).tokenize("无线") == ["无", "线"]


@pytest.mark.parametrize("make", [tiny_tokenizer, unigram_tokenizer])
def test_vectors_of_a_text_encoder(make: Any) -> None:
    tokenizer = make()
    config = BERT | {"vocab_size": len(tokenizer)}
    tensors = dict(build_text(config).state_dict())
    source = TextSource("x", config, tensors, tokenizer, "mean", "MIT", "local-dir:x")
    vectors = encoder_vectors(source)
    table = tensors["embeddings.word_embeddings.weight"].numpy()
    numbers = tokenizer.get_vocab()
    assert vectors.width == 16
    watch = numbers["watch" if "watch" in numbers else "▁watch"]
    np.testing.assert_array_equal(vectors.of("watch"), table[watch])
    assert vectors.of("手") is None
    assert "watch" in vectors.words
    assert not {"", "s", "##z"} & set(vectors.words)
    if "##s" in numbers:  # read in pieces
        np.testing.assert_allclose(vectors.of("bands"), (table[numbers["band"]] + table[numbers["##s"]]) / 2)


def test_vectors_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.vec"
    path.write_text("3 2\nRed 1 -2.5 \nred 9 9\n. . 0.5 1e-3\n")
    vectors = file_vectors(path, str.lower)
    assert (vectors.width, vectors.words) == (2, ("red", ". ."))
    assert vectors.of("red").tolist() == [1, -2.5]  # the first of two spellings
    assert vectors.of("blue") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no vectors"),
        ("red 1 2\nblue 1\n", "line 2: a word and 2 numbers"),
        ("red 1 2\nblue 1 x\n", "line 2: a word and 2 numbers"),
        ("red 1 2\nblue 1 nan\n", "line 2: a word and 2 numbers"),
        ("red\n", "line 1: a word and some numbers"),
        (None, "cannot be read"),
    ],
)
def test_files_that_hold_no_vectors(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "words.vec"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        file_vectors(path, str)
    assert "\n" not in str(caught.value)


def test_both_channels_begin_with_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "words.vec"
    path.write_text("shoe 1 2 3\ngreen 4 5 6\nout-of-it 7 8 9\n")
    start = begin_training(TextCNNOptions(vectors=path), TextOptions(), ITEMS, seed=1)
    network, tokenizer = start.model.network, start.start.parts.tokenizer
    assert isinstance(network, WordTowers)
    assert tokenizer is not None
    numbers = tokenizer.get_vocab()
    assert "out-of-it" not in numbers
    tables: list[Tensor] = [network.words.weight, network.kept.weight]
    for table in tables:
        assert table[numbers["shoe"]].tolist() == [1, 2, 3]
        assert table[numbers["green"]].tolist() == [4, 5, 6]
    assert not network.kept.weight[numbers["red"]].any()
    assert network.words.weight[numbers["red"]].any()
    assert [origin.source for origin in start.start.origins] == ["vectors:words.vec"]


def test_a_window_holds_a_word() -> None:
    with pytest.raises(UserError, match=r"windows \[0\]: a window holds a word at least"):
        towers(windows=(0,))
