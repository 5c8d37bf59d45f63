"""Topic tokens against a plain re-statement of the rules, topic by topic, with both kinds of tokenizer."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError
from shopvision.selection.clik.topic_tokens import TopicTokenizer, clean, season
from shopvision.selection.topic import SLOTS, Topic

WORDS = ["summer", "dress", "linen", "봄", "여름", "가을", "겨울", "힐", "힙", "원피스", "sale", "women", "shoe"]
PIECES = ["##s", "##피", "여", "s", "a", "##a", "b", "##b", "원", "##스", "50", "7", "女", "装", "カ", "##ー", "##ド"]


def word_pieces() -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # As published files have it: both would spoil the slots.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=6)
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, **{f"{role}_token": token for role, token in roles.items()}
    )


def unigram() -> PreTrainedTokenizerFast:
    pieces = ["<s>", "<pad>", "</s>", "<unk>"]
    scored = [(piece, 0.0) for piece in pieces] + [("▁", -4.0)]
    scored += [(f"▁{word}", -6.0) for word in WORDS] + [(letter, -9.0) for letter in sorted(set("".join(WORDS)))]
    tokenizer = Tokenizer(models.Unigram(scored, 3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    roles = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, **{f"{role}_token": token for role, token in roles.items()}
    )


TOKENIZERS = pytest.mark.parametrize("make", [word_pieces, unigram])


def random_topic(rng: random.Random) -> Topic:
    """Words, signs, blanks and long or empty slots in any mixture."""
    alphabet = [*WORDS, "カード", "女装", "50%", "!!", ",", " , ", "[SEP]", "</s>", "Café", "x" * 40, "\t", "🙂", "-"]

    def text(most: int) -> str:
        return rng.choice([" ", ""]).join(rng.choices(alphabet, k=rng.randrange(most + 1)))

    date = rng.choice(["", f"{rng.randrange(1990, 2040)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"])
    return Topic(text(20), text(20), date, *(text(2) for _ in range(4)), text(20))


def expected_ids(tokenizer: PreTrainedTokenizerFast, topic: Topic, max_length: int) -> list[int] | None:
    """The rules of the layout, one token at a time; None where the topic cannot fit."""
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    slots: dict[str, list[int]] = {}
    for slot in SLOTS:
        text = getattr(topic, slot)
        if slot in {"name", "desc", "kwds"}:
            text = clean(text)
        elif slot == "date":
            text = season(text, "ko")
        ids = tokenizer(text.strip(), add_special_tokens=False, verbose=False)["input_ids"] if text.strip() else []
        slots[slot] = [tokenizer.unk_token_id if number in special else number for number in ids]
    while sum(map(len, slots.values())) + 9 > max_length:
        longest = next((slot for slot in ("desc", "kwds", "name") if slots[slot]), None)
        if longest is None:
            return None
        slots[longest].pop()
    ids = [tokenizer.cls_token_id]
    for slot in SLOTS:
        ids += [*slots[slot], tokenizer.sep_token_id]
    return ids


@TOKENIZERS
def test_random_topics_keep_the_layout(make: object) -> None:
    tokenizer, rng = make(), random.Random(7)
    cut = 0
    for max_length in (20, 40, 128):
        encoder = TopicTokenizer(tokenizer, max_length=max_length)
        topics = [random_topic(rng) for _ in range(200)]
        expected = {topic: expected_ids(make(), topic, max_length) for topic in topics}
        fitting = [topic for topic in topics if expected[topic] is not None]
        assert len(fitting) > 50
        batch = encoder.encode(fitting)
        assert batch.input_ids.dtype == batch.attention_mask.dtype == batch.token_type_ids.dtype == torch.int64
        assert batch.input_ids.shape[1] == max(len(expected[topic]) for topic in fitting) <= max_length
        for topic, ids, mask, types in zip(
            fitting, batch.input_ids.tolist(), batch.attention_mask.tolist(), batch.token_type_ids.tolist(), strict=True
        ):
            right = expected[topic]
            padding = len(ids) - len(right)
            first = right.index(tokenizer.sep_token_id) + 1
            assert ids == right + [tokenizer.pad_token_id] * padding
            assert mask == [1] * len(right) + [0] * padding
            assert types == [0] * first + [1] * (len(right) - first) + [0] * padding
            assert sum(number in {tokenizer.cls_token_id, tokenizer.sep_token_id} for number in ids) == 9
            cut += len(right) == max_length
        for topic in set(topics) - set(fitting):
            with pytest.raises(UserError, match="alone need"):
                encoder.encode([topic])
    assert cut > 100


def test_a_topic_by_hand() -> None:
    encoder = TopicTokenizer(word_pieces(), max_length=16)
    topic = Topic("Summer dress!", "sale, sale 50%", "2021-08-30", "여름원", "", "shoe", kwds="linen,women")
    batch = encoder.encode([topic])
    tokens = encoder.tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist())
    assert tokens == [
        "[CLS]", "summer", "dress", "[SEP]", "[SEP]", "가을", "[SEP]", "[UNK]", "[SEP]", "[SEP]", "shoe", "[SEP]",
        "[SEP]", "linen", "women", "[SEP]",
    ]  # fmt: skip
    assert batch.token_type_ids[0].tolist() == [0] * 4 + [1] * 12


@TOKENIZERS
def test_no_topics_and_empty_topics(make: object) -> None:
    encoder = TopicTokenizer(make())
    assert encoder.encode([]).input_ids.shape == (0, 0)
    batch = encoder.encode([Topic(""), Topic(" , ", "!!")])
    assert batch.input_ids.tolist() == [[encoder.tokenizer.cls_token_id] + [encoder.tokenizer.sep_token_id] * 8] * 2


def test_where_categories_alone_are_too_long_the_plan_is_named() -> None:
    encoder = TopicTokenizer(word_pieces(), max_length=12)
    long = Topic("Linen week", "sale " * 50, "2021-01-01", "women sale", "shoe")
    with pytest.raises(UserError) as caught:
        encoder.encode([Topic("fits"), long])
    assert str(caught.value) == (
        "'Linen week': season and categories alone need 13 tokens of 12. "
        "Shorten its categories, or use a max_length of at least 13."
    )
    assert encoder.encode([Topic("x", date="2021-01-01", cat1="women sale")]).input_ids.shape == (1, 12)


def test_cleaning_keeps_words_of_every_script_and_drops_signs() -> None:
    assert clean("  [힐·힙] 히트!! 50%할인\uff5e ") == "힐 힙 히트 50 할인"
    assert clean("가힣 ㅋㅋ ㅠ_ㅠ") == "가힣 ㅋㅋ ㅠ ㅠ"
    assert clean("Crème brûlée — Ærø, Đặng \u00d73 ½") == "Crème brûlée Ærø Đặng 3"
    assert clean("カーディガン・ｶｰﾃﾞｨｶﾞﾝ、ワンピース。々") == "カーディガン ｶｰﾃﾞｨｶﾞﾝ ワンピース 々"
    assert clean("【女装】春季\uff0c新款\uff01𠮷野家 Ｔ恤２件") == "女装 春季 新款 𠮷野家 Ｔ恤２件"
    assert clean("🙂 \u200b\n…") == ""
    for text in ("힙한 원피스", "Café Đặng", "ガ"):
        assert clean(unicodedata.normalize("NFD", text)) == text


def test_every_complete_hangul_syllable_is_kept() -> None:
    syllables = "".join(map(chr, range(0xAC00, 0xD7A4)))
    assert len(syllables) == 11172
    assert clean(syllables) == syllables


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("ko", ["봄", "여름", "가을", "겨울"]),
        ("zh", ["春", "夏", "秋", "冬"]),
        ("en", ["spring", "summer", "autumn", "winter"]),
    ],
)
def test_seasons_are_quarters(language: str, words: list[str]) -> None:
    found = [season(f"2021-{month:02}-28", language) for month in range(1, 13)]
    assert found == [word for word in words for _ in range(3)]
    assert season("", language) == ""


def test_word_dropout_replaces_words_only_and_follows_its_generator() -> None:
    encoder = TopicTokenizer(word_pieces())
    topics = [Topic("summer dress", "linen sale " * 10, "2021-05-01", "women", "shoe")] * 200
    plain = encoder.encode(topics)
    dropped = encoder.encode(topics, word_dropout=0.1, generator=np.random.default_rng(3))
    changed = plain.input_ids != dropped.input_ids
    special = torch.isin(plain.input_ids, torch.tensor([0, 2, 3]))
    assert not changed[special].any()
    assert (dropped.input_ids[changed] == encoder.tokenizer.unk_token_id).all()
    share = changed[~special].double().mean().item()
    assert abs(share - 0.1) < 5 * (0.1 * 0.9 / int((~special).sum())) ** 0.5  # five standard deviations
    assert (changed[:, 1] | changed[:, 2]).any()
    assert changed.any(1).double().mean() < 1  # independent for each token, not for each word of the vocabulary
    again = encoder.encode(topics, word_dropout=0.1, generator=np.random.default_rng(3))
    assert torch.equal(again.input_ids, dropped.input_ids)
    assert torch.equal(encoder.encode(topics).input_ids, plain.input_ids)
    everything = encoder.encode(topics, word_dropout=1.0, generator=np.random.default_rng(3))
    assert (everything.input_ids[~special] == encoder.tokenizer.unk_token_id).all()


def test_one_token_type_is_all_zeros() -> None:
    batch = TopicTokenizer(unigram(), token_types=1).encode([Topic("summer", "dress")])
    assert not batch.token_type_ids.any()


def test_rows_drop_the_padding_of_the_others() -> None:
    encoder = TopicTokenizer(word_pieces())
    topics = [Topic("summer"), Topic("summer " * 30), Topic("linen dress")]
    batch = encoder.encode(topics)
    for index in (slice(0, 1), slice(2, 3), torch.tensor([2, 0]), slice(0, 0)):
        rows = batch.rows(index)
        alone = encoder.encode([topics[i] for i in torch.arange(3)[index].tolist()])
        for field in ("input_ids", "attention_mask", "token_type_ids"):
            assert getattr(rows, field).tolist() == getattr(alone, field).tolist()
    assert len(batch) == 3
    assert isinstance(batch.to("cpu"), TokenBatch)


def test_impossible_settings_are_refused() -> None:
    tokenizer = word_pieces()
    with pytest.raises(UserError, match="max_length 9 leaves no room for words: use 10 or more"):
        TopicTokenizer(tokenizer, max_length=9)
    with pytest.raises(UserError, match="season_language 'fr' is unknown: use ko, zh, en"):
        TopicTokenizer(tokenizer, season_language="fr")
    with pytest.raises(UserError, match="has no cls token"):
        TopicTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]"))
