"""A vocabulary learnt from a shop's own texts: its words, and characters for the words that it does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_ROLES = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_PIECE = "##"


class WordCutter:
    """Cuts texts into lower-cased words and punctuation marks, as BERT does."""

    def __init__(self, *, chinese_words: bool) -> None:
        """With ``chinese_words`` a Chinese word between blanks stays whole, else each character is one."""
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        self.normalizer = BertNormalizer(lowercase=True, handle_chinese_chars=not chinese_words)
        self.pre_tokenizer = BertPreTokenizer()

    def words(self, text: str) -> list[str]:
        """The words of a text."""
        return [word for word, _ in self.pre_tokenizer.pre_tokenize_str(self.normalizer.normalize_str(text))]

    def is_word(self, text: str) -> bool:
        """Whether it would find ``text`` in a text."""
        return self.words(text) == [text]


def learn_words(
    texts: Iterable[str], cutter: WordCutter, *, least: int, most: int, more: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words of ``texts``, the same for the same texts in any order.

    A word that it does not know is read in the longest pieces that it knows: at least in characters, so that codes are
    read, of which every item has another.

    Args:
        texts: of the shop.
        cutter: what a word is.
        least: a word must stand in them so many times; a rarer one is read in pieces, as new ones will be.
        most: entries, at most; those that stand in the texts most often are kept.
        more: words that fill what room is left, the most important first.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    counts = Counter(word for text in texts for word in cutter.words(text))
    often = Counter[str]()
    for word, count in counts.items():
        for character in word:
            often[character] += count
    entries = dict.fromkeys(_ROLES.values())
    for character in _most_first(often):
        entries |= {character: None, f"{_PIECE}{character}": None}
    known = (word for word in _most_first(counts) if counts[word] >= least)
    for word in (*known, *more):
        if len(entries) >= most:
            break
        entries.setdefault(word)
    vocabulary = {entry: number for number, entry in enumerate(list(entries)[:most])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token=_ROLES["unk"], continuing_subword_prefix=_PIECE))
    tokenizer.normalizer, tokenizer.pre_tokenizer = cutter.normalizer, cutter.pre_tokenizer
    roles = {f"{role}_token": token for role, token in _ROLES.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def entries_of(tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[int, str]]:
    """Number and text of each entry of a learnt vocabulary, the marks of pieces removed, special ones left out."""
    for entry, number in tokenizer.get_vocab().items():
        if entry not in _ROLES.values():
            yield number, entry.removeprefix(_PIECE) or entry


def _most_first(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda text: (-counts[text], text))
