"""Token ids of items, kept so that sequences of many pairs can be put together at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shopvision.items.code_agreement import ItemCodes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from shopvision.items.item import Item
    from shopvision.items.item_texts import ItemText, TextBuilder

Rows: TypeAlias = NDArray[np.integer[Any]]

_BLANKS = ("\u2581", "\u0120")  # as SentencePiece and byte-level BPE write a blank that stands alone


@dataclass(frozen=True, slots=True)
class ItemTokens:
    """Token ids of n items in one array, so that many pairs are packed at once.

    Attributes:
        categories: n.
        keys: n, of each item's pieces.
        tokens: all parts one after another: title, first piece, ..., of the first item, then of the next.
        starts: (parts + 1,) where each part starts in ``tokens``.
        first: (n + 1,) which part is an item's title.
        codes: n; None where they are not compared.
    """

    categories: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]
    tokens: NDArray[np.int32]
    starts: NDArray[np.int64]
    first: NDArray[np.int64]
    codes: tuple[ItemCodes | None, ...]

    def __len__(self) -> int:
        return len(self.categories)

    def sizes(self, rows: Rows) -> NDArray[np.int64]:
        """How many tokens each of these items has, title and pieces."""
        sizes: NDArray[np.int64] = self.starts[self.first[rows + 1]] - self.starts[self.first[rows]]
        return sizes


def offsets(lengths: Iterable[int]) -> NDArray[np.int64]:
    """Where parts of these lengths start when laid end to end, and where the last ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.fromiter(lengths, np.int64))])


class ItemTokenizer:
    """Cuts the texts of items into token ids. A text that spells a special token becomes an unknown word."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        builder: TextBuilder,
        *,
        max_length: int,
        unknown: int,
        special: Sequence[int],
    ) -> None:
        """Use ``tokenizer`` and ``builder``.

        Args:
            max_length: most tokens of a part.
            unknown: id of the unknown word,
            special: which stands for these.
        """
        self._backend = tokenizer.backend_tokenizer
        self._builder, self._max_length = builder, max_length
        self._unknown, self._special = unknown, np.array(special)
        blanks = [number for mark in _BLANKS if (number := self._backend.token_to_id(mark)) is not None]
        self._silent = np.array([unknown, *blanks])

    def knows(self, text: ItemText) -> bool:
        """Whether title or values have a token that says something; names of attributes alone say nothing."""
        parts = [text.title, *(piece.partition(":")[2].rstrip(";") for piece in text.pieces)]
        encoded = self.encode([part for part in parts if part])
        return any(not np.isin(tokens, self._silent).all() for tokens in encoded)

    def items(self, items: Sequence[Item]) -> ItemTokens:
        """Token ids of n items; equal texts among them are tokenised once."""
        texts = [self._builder.item(item) for item in items]
        numbers: dict[str, int] = {}
        which = [numbers.setdefault(part, len(numbers)) for text in texts for part in (text.title, *text.pieces)]
        encoded = self.encode(list(numbers))
        return ItemTokens(
            tuple(item.category for item in items),
            tuple(text.keys for text in texts),
            np.concatenate([np.zeros(0, np.int32), *(encoded[number] for number in which)]),
            offsets(len(encoded[number]) for number in which),
            offsets(1 + len(text.pieces) for text in texts),
            tuple(text.codes for text in texts),
        )

    def encode(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, without special tokens."""
        # A published tokenizer file may switch both on, and they would apply to every part.
        self._backend.no_truncation()
        self._backend.no_padding()
        # No ids for an empty text: some tokenizers make a lone blank out of it.
        encoded = [
            encoding.ids[: self._max_length] if text else []
            for text, encoding in zip(
                texts, self._backend.encode_batch_fast(texts, add_special_tokens=False), strict=True
            )
        ]
        flat = np.fromiter(chain.from_iterable(encoded), np.int32)
        flat[np.isin(flat, self._special)] = self._unknown
        return np.split(flat, offsets(map(len, encoded))[1:-1]) if encoded else []
