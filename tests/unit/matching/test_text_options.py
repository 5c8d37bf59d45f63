"""What the section ``[text]`` says of texts reaches the tokens that a model reads, in training and as it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from shopvision.items.item import Item
from shopvision.matching.families.card import load_matcher
from shopvision.matching.families.pair_model import PairModel, begin_training
from shopvision.matching.families.registry import find_family
from shopvision.matching.families.text_reading import TextOptions
from tests.unit.matching.tiny_matcher import BERT, SPECIAL, save_model

WORDS = ("无", "线", "##线", "鼠", "标", "##标")
ITEMS = [Item("a", "无线鼠标"), Item("b", "鼠标")]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """As a Chinese BERT: its tokenizer takes every Chinese character for a word."""
    folder = tmp_path_factory.mktemp("chinese")
    words = {word: number for number, word in enumerate([*SPECIAL.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    roles = {f"{role}_token": text for role, text in SPECIAL.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **roles).save_pretrained(folder)
    config = {name: value for name, value in BERT.items() if name != "model_type"} | {"vocab_size": len(words)}
    BertModel(BertConfig(**config), add_pooling_layer=False).save_pretrained(folder)
    return f"local-dir:{folder}"


def begin(encoder: str, family: str, **text: Any) -> PairModel:
    options = find_family(family).options.model_validate({"family": family, "text": encoder})
    return begin_training(options, TextOptions(max_length=40, compare_codes=False, **text), ITEMS, seed=1).model


def tokens_of(model: PairModel) -> list[str]:
    """Of the first item, alone or before the second."""
    reader: Any = model.reader
    kept, rows = reader.read(ITEMS), np.array([0])
    pair = model.family.interaction == "one_tower"
    batch = reader.batch(kept, rows, np.array([1]), None) if pair else reader.batch(kept, rows, None)
    assert model.parts.tokenizer is not None
    tokens: list[str] = model.parts.tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist())
    return tokens


@pytest.mark.parametrize("family", ["text_one_tower", "text_two_tower"])
def test_the_segmenter_changes_the_tokenizer_with_it(encoder: str, family: str, tmp_path: Path) -> None:
    plain = tokens_of(begin(encoder, family, builder="title"))
    assert plain[:6] == ["[CLS]", "无", "线", "鼠", "标", "[SEP]"]
    model = begin(encoder, family, builder="title", segmenter="jieba")
    words = tokens_of(model)
    assert words[:6] == ["[CLS]", "无", "##线", "鼠", "##标", "[SEP]"]
    save_model(tmp_path / "model", model)
    assert tokens_of(load_matcher(tmp_path / "model").model) == words
