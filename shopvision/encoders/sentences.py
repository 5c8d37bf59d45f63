"""Plain texts as token ids, ``[CLS] text [SEP]``, each no longer than the encoder was trained to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# A token is hardly ever longer; what stands behind cannot be among the tokens that are kept.
_CHARACTERS_A_TOKEN = 64


class SentenceTokenizer:
    """Texts to ``TokenBatch`` with any fast tokenizer that has ids for cls, sep, pad and unk (BERT, XLM-R, ...).

    A text that spells a special token (``[SEP]`` in a title) becomes an unknown word, not a special token.

    Attributes:
        tokenizer: cuts words into pieces.
        max_length: most tokens of a text, the two special ones included; the rest is cut off.
        prefix: stands before every text, e.g. ``query: `` for E5.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, max_length: int, prefix: str = "") -> None:
        """Use ``tokenizer``.

        Raises:
            UserError: the length leaves no room, or the tokenizer lacks a special token.
        """
        if max_length < 3:
            raise UserError(f"max_length {max_length} leaves no room for words: use 3 or more.")
        ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "pad", "unk")}
        for name, number in ids.items():
            if number is None:
                raise UserError(f"The tokenizer has no {name} token: use the tokenizer of a BERT-like encoder.")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.prefix = prefix
        self._cls, self._sep, self._pad, self._unk = ids.values()
        self._special_ids = np.array(tokenizer.all_special_ids)

    def are_cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more tokens than are kept of it."""
        return [len(pieces) > self.max_length - 2 for pieces in self._pieces(texts)]

    def encode(self, texts: Sequence[str]) -> TokenBatch:
        """Tokens of n texts, as wide as the longest of them."""
        pieces = [ids[: self.max_length - 2] for ids in self._pieces(texts)]
        lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
        columns = np.arange(lengths.max(initial=0) + 2)
        attention = columns < lengths[:, None] + 2
        ids = np.full(attention.shape, self._pad)
        ids[:, :1] = self._cls
        words = np.fromiter((token for one in pieces for token in one), np.int64, int(lengths.sum()))
        words[np.isin(words, self._special_ids)] = self._unk
        ids[(columns >= 1) & (columns < lengths[:, None] + 1)] = words
        ids[np.arange(len(pieces)), lengths + 1] = self._sep
        tensors = (torch.from_numpy(array.astype(np.int64)) for array in (ids, attention, np.zeros_like(ids)))
        return TokenBatch(*tensors)

    def longer(self, texts: Sequence[str]) -> int:
        """How many of the texts have more tokens than ``encode`` keeps."""
        return sum(self.are_cut(texts))

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Word pieces of texts, without special tokens; of very long ones at least as many as are kept, and one."""
        characters = self.max_length * _CHARACTERS_A_TOKEN
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        found = backend.encode_batch_fast(
            # A lone surrogate, which a careless program can make, is no text to the tokenizer.
            [self.prefix + text[:characters].encode(errors="replace").decode() for text in texts],
            add_special_tokens=False,
        )
        return [one.ids for one in found]
