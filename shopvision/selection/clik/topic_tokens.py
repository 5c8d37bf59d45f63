"""Topics to token ids, as CLIK reads them (iloveslowfood/CLIK, text preprocessing).

``[CLS] name [SEP] desc [SEP] season [SEP] cat1 [SEP] cat2 [SEP] cat3 [SEP] cat4 [SEP] kwds [SEP] [PAD]...``: always
nine special tokens, because an empty slot keeps its ``[SEP]``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError
from shopvision.selection.plan_dates import quarter
from shopvision.selection.topic import SLOTS, Topic

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

SeasonLanguage = Literal["ko", "zh", "en"]

SPECIAL_TOKENS = 1 + len(SLOTS)
# One word per quarter of the year, from January on.
SEASONS: dict[SeasonLanguage, tuple[str, str, str, str]] = {
    "ko": ("봄", "여름", "가을", "겨울"),
    "zh": ("春", "夏", "秋", "冬"),
    "en": ("spring", "summer", "autumn", "winter"),
}
# Which slot gives way first where a topic is too long. Season and categories never do.
_CUT_ORDER = tuple(SLOTS.index(slot) for slot in ("desc", "kwds", "name"))
_WORD = re.compile(
    "["
    r"0-9\uff10-\uff19"  # digits, also full-width
    r"A-Za-z\uff21-\uff3a\uff41-\uff5a"  # Latin letters, also full-width
    r"\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\u0300-\u036f"  # with accents, and loose accents
    r"\uac00-\ud7a3"  # Hangul syllables
    r"\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\ud7b0-\ud7fb\uffa1-\uffdc"  # jamo
    r"\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    r"\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # CJK ideographs
    "]+"
)


def clean(text: str) -> str:
    """Only words of Latin letters, digits, Hangul, kana and CJK ideographs, with single blanks between them."""
    # Composed first: typed on some systems, an accented letter or a Hangul syllable arrives in pieces.
    return " ".join(_WORD.findall(unicodedata.normalize("NFC", text)))


def season(date: str, language: SeasonLanguage) -> str:
    """``"2021-08-30"`` -> ``"가을"`` (``ko``): the word of the quarter; no date, no word."""
    return SEASONS[language][quarter(date)] if date else ""


class TopicTokenizer:
    """Topics to ``TokenBatch`` with any fast tokenizer that has ids for cls, sep, pad and unk (BERT, XLM-R, ...).

    A text that spells a special token (``[SEP]`` in a category) becomes an unknown word, not a special token.

    Attributes:
        tokenizer: cuts words into pieces.
        max_length: most tokens of a topic, special ones included.
        season_language: language of the season words.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        max_length: int = 128,
        season_language: SeasonLanguage = "ko",
        token_types: int = 2,
    ) -> None:
        """Use ``tokenizer``; ``token_types`` is its model's ``type_vocab_size``: with 1, all token types are 0.

        Raises:
            UserError: the length leaves no room, the language is unknown, or the tokenizer lacks a special token.
        """
        if max_length <= SPECIAL_TOKENS:
            raise UserError(f"max_length {max_length} leaves no room for words: use {SPECIAL_TOKENS + 1} or more.")
        if season_language not in SEASONS:
            raise UserError(f"season_language '{season_language}' is unknown: use {', '.join(SEASONS)}.")
        ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "pad", "unk")}
        for name, number in ids.items():
            if number is None:
                raise UserError(f"The tokenizer has no {name} token: use the tokenizer of a BERT-like encoder.")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.season_language = season_language
        self._token_types = token_types
        self._cls, self._sep, self._pad, self._unk = ids.values()
        self._special_ids = np.array(tokenizer.all_special_ids)

    def encode(
        self,
        topics: Sequence[Topic],
        *,
        word_dropout: float = 0.0,
        generator: np.random.Generator | None = None,
    ) -> TokenBatch:
        """Tokens of ``topics``; what does not fit is cut from the end of desc, then of kwds, then of name.

        Args:
            topics: n topics.
            word_dropout: probability that a token that is not special is replaced by the unknown token.
            generator: decides which; needed with ``word_dropout`` only.

        Raises:
            UserError: the season and categories of a topic alone do not fit.
        """
        pieces, starts, lengths = self._pieces(topics)
        kept = self._cut(topics, lengths)
        totals = kept.sum(1) + SPECIAL_TOKENS
        columns = np.arange(totals.max(initial=0))
        attention = columns < totals[:, None]
        input_ids = np.full(attention.shape, self._pad)
        input_ids[:, :1] = self._cls
        separators = np.cumsum(kept + 1, axis=1)
        input_ids[np.arange(len(topics))[:, None], separators] = self._sep

        counts = kept.ravel()
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        tokens = pieces[np.repeat(starts.ravel(), counts) + within]
        if word_dropout:
            if generator is None:
                raise ValueError("word_dropout needs a generator")
            tokens[generator.random(len(tokens)) < word_dropout] = self._unk
        rows = np.repeat(np.arange(len(topics)), kept.sum(1))
        input_ids[rows, np.repeat((separators - kept).ravel(), counts) + within] = tokens

        second = attention & (columns > separators[:, :1]) & (self._token_types > 1)
        return TokenBatch(*(torch.from_numpy(array.astype(np.int64)) for array in (input_ids, attention, second)))

    def _pieces(self, topics: Sequence[Topic]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Token ids of all distinct slot texts in one row; where each (topic, slot) starts in it; and its length."""
        numbers: dict[str, int] = {}  # categories and seasons repeat: each text is tokenised once
        which = np.fromiter(
            (numbers.setdefault(text, len(numbers)) for topic in topics for text in self._slot_texts(topic)), np.int64
        ).reshape(-1, len(SLOTS))
        backend = self.tokenizer.backend_tokenizer
        # A published tokenizer file may switch both on, and they would apply to every slot.
        backend.no_truncation()
        backend.no_padding()
        # No model input for an empty text: some tokenizers make a lone blank out of it.
        encoded = [
            encoding.ids if text else []
            for text, encoding in zip(
                numbers, backend.encode_batch_fast(list(numbers), add_special_tokens=False), strict=True
            )
        ]
        pieces = np.fromiter(chain.from_iterable(encoded), np.int64)
        pieces[np.isin(pieces, self._special_ids)] = self._unk
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return pieces, (np.cumsum(lengths) - lengths)[which], lengths[which]

    def _slot_texts(self, topic: Topic) -> tuple[str, ...]:
        categories = (topic.cat1.strip(), topic.cat2.strip(), topic.cat3.strip(), topic.cat4.strip())
        # Commas go with all other signs, so that keywords need no splitting.
        return (
            clean(topic.name), clean(topic.desc), season(topic.date, self.season_language), *categories,
            clean(topic.kwds),
        )  # fmt: skip

    def _cut(self, topics: Sequence[Topic], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many tokens of each (topic, slot) stay."""
        excess = lengths.sum(1) + SPECIAL_TOKENS - self.max_length
        kept = lengths.copy()
        for slot in _CUT_ORDER:
            cut = np.clip(excess, 0, kept[:, slot])
            kept[:, slot] -= cut
            excess -= cut
        if (excess > 0).any():
            worst = int(excess.argmax())
            needed = self.max_length + int(excess[worst])
            raise UserError(
                f"'{topics[worst].name}': season and categories alone need {needed} tokens of {self.max_length}. "
                f"Shorten its categories, or use a max_length of at least {needed}."
            )
        return kept
