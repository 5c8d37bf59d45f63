"""Chinese words between blanks: characters for the tokenizer as it was published, words for one that is told so."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from shopvision.encoders.tokenizer_files import read_tokenizer, tokenizer_files
from shopvision.encoders.word_tokens import cut_at_blanks_alone

WORDS = ("[UNK]", "无", "线", "##线", "鼠", "标", "##标", "red", ":", "##d")


def chinese_bert(strip_accents: bool | None = None) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=strip_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


def test_words_between_blanks_stay_whole_for_a_chinese_bert(tmp_path: Path) -> None:
    tokenizer = chinese_bert()
    text = "无线 鼠标:RED"
    assert tokenizer.tokenize(text) == ["无", "线", "鼠", "标", ":", "red"]
    cut_at_blanks_alone(tokenizer)
    words = ["无", "##线", "鼠", "##标", ":", "red"]
    assert tokenizer.tokenize(text) == words
    tokenizer_files(tokenizer)(tmp_path)  # as a model version holds it
    assert read_tokenizer(tmp_path).tokenize(text) == words


@pytest.mark.parametrize(("strip_accents", "expected"), [(True, "red"), (False, "[UNK]")])
def test_the_other_rules_of_a_tokenizer_stay(strip_accents: bool, expected: str) -> None:
    tokenizer = chinese_bert(strip_accents)
    cut_at_blanks_alone(tokenizer)
    assert tokenizer.tokenize("réd") == [expected]


def test_tokenizers_of_other_kinds_stay_as_they_are() -> None:
    tokenizer = chinese_bert()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    before = tokenizer.backend_tokenizer.to_str()
    cut_at_blanks_alone(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before
