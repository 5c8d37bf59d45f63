"""Items to token ids, and pairs of items to the sequences that a model reads.

Every title and every piece is tokenised on its own, once per item; a sequence is put together from ids, so training
and use see the same ones. Layouts (titles alone have no pieces, and no separator for them)::

    single             [CLS] title [SEP] pieces [SEP]
    single with image  [CLS] [IMG] [SEP] title [SEP] pieces [SEP]
    pair               [CLS] A title [SEP] A pieces [SEP] B title [SEP] B pieces [SEP]
    pair with image    [CLS] [IMG] [SEP] A title [SEP] A pieces [SEP] [IMG] [SEP] B title [SEP] B pieces [SEP]

Where the encoder has two token types, those of a pair are 0 up to and including A's last ``[SEP]``, then 1. ``[IMG]``
is ``[unused99]`` where the vocabulary has it, else the mask token: its word embedding is never read, because the
picture takes its place. Where the builder compares codes, what they say (``same model;``) stands before A's title, as
part of no side. Too long a pair loses tokens longest side first, from the right, so that the last pieces go
first and a title last; separators stay. Position ids are left to the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError
from shopvision.items import code_agreement
from shopvision.items.item import Item
from shopvision.items.item_texts import ItemText, TextBuilder
from shopvision.matching.families.item_tokens import ItemTokenizer, ItemTokens, Rows, offsets

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast

IMAGE_TOKEN = "[unused99]"  # noqa: S105 - a word of BERT's vocabulary


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences of n pairs or items.

    Attributes:
        tokens: padded to the longest.
        slots: (n, 2) int64 positions of the picture tokens, (n, 1) of items; None without.
    """

    tokens: TokenBatch
    slots: Tensor | None = None


class Packer:
    """Packs items and pairs for one encoder. A text that spells a special token becomes an unknown word.

    Works with any fast tokenizer that has ids for cls, sep, pad and unk (BERT, RoBERTa, XLM-R, ...).

    Attributes:
        tokenizer: cuts words into pieces.
        builder: makes the texts.
        max_length: most tokens of a sequence.
        image_token: whether there are picture tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        builder: TextBuilder,
        *,
        max_length: int,
        token_types: int,
        image_token: bool = False,
        prefix: str = "",
    ) -> None:
        """Use ``tokenizer`` and ``builder``.

        Args:
            max_length: special tokens included; what the encoder holds is the caller's to know.
            token_types: ``type_vocab_size`` of the encoder; with 1 all token types are 0.
            image_token: put the picture tokens in.
            prefix: what the encoder wants before a single item, e.g. ``query:`` (E5).

        Raises:
            UserError: the length leaves no room for words, or the tokenizer lacks a special token.
        """
        ids = {name: getattr(tokenizer, f"{name}_token_id") for name in ("cls", "sep", "pad", "unk")}
        if image_token:
            known = tokenizer.get_vocab()
            ids["mask"] = known.get(IMAGE_TOKEN, tokenizer.mask_token_id)
        for name, number in ids.items():
            if number is None:
                raise UserError(f"The tokenizer has no {name} token: use the tokenizer of a BERT-like encoder.")
        self.tokenizer = tokenizer
        self.builder = builder
        self.max_length = max_length
        self.image_token = image_token
        self._types = token_types
        self._ids = ids
        special = (*tokenizer.all_special_ids, ids.get("mask", ids["unk"]))
        self._tokenizer = ItemTokenizer(tokenizer, builder, max_length=max_length, unknown=ids["unk"], special=special)
        # Per side: behind title and pieces, and [IMG] [SEP].
        self._side_specials = (1 if builder.name == "title" else 2) + 2 * image_token
        self._prefix = self._tokenizer.encode([prefix.strip()])[0]
        said = self._tokenizer.encode(list(code_agreement.WORDS if builder.compare_codes else code_agreement.WORDS[:1]))
        self._said, self._said_starts = np.concatenate(said), offsets(map(len, said))
        needed = 2 + 1 + 2 * self._side_specials + max(len(self._prefix), *map(len, said))
        if max_length < needed:
            raise UserError(f"max_length {max_length} leaves no room for words: use {needed} or more.")

    def items(self, items: Sequence[Item]) -> ItemTokens:
        """Token ids of n items."""
        return self._tokenizer.items(items)

    def has_text(self, item: Item) -> bool:
        """Whether the texts made of an item hold a word of the vocabulary."""
        return self._tokenizer.knows(self.builder.item(item))

    # -- many sequences at once ---------------------------------------------------------------------------------------

    def pair_lengths(self, items: ItemTokens, left: Rows, right: Rows) -> NDArray[np.int64]:
        """How many tokens each pair's sequence has, without packing it."""
        said = np.diff(self._said_starts)[self._agreement(items, left, right)]
        lengths: NDArray[np.int64] = self._kept(items, left, right, said).sum(0) + said + 1 + 2 * self._side_specials
        return lengths

    def single_lengths(self, items: ItemTokens) -> NDArray[np.int64]:
        """How many tokens each item's sequence has, without packing it."""
        rows = np.arange(len(items))
        room = self.max_length - 1 - len(self._prefix) - self._side_specials
        return np.minimum(items.sizes(rows), room) + self.max_length - room

    def pairs(self, items: ItemTokens, left: Rows, right: Rows) -> PackedBatch:
        """The sequences of n pairs.

        Args:
            items: of ``items``.
            left: (n,) rows of the first items.
            right: (n,) rows of the second items.
        """
        agreement = self._agreement(items, left, right)
        said = np.diff(self._said_starts)[agreement]
        kept = self._kept(items, left, right, said)
        lengths = kept.sum(0) + said + 1 + 2 * self._side_specials
        ids, attention = self._blank(lengths)
        orders = self._orders(items, left, right)
        slots = np.ones((len(lengths), 2), np.int64)
        slots[:, 1] = slots[:, 0] + said + kept[0] + self._side_specials
        columns = slots[:, 0] + 2 * self.image_token
        _copy(
            ids, self._said, rows=np.arange(len(ids)), columns=columns, starts=self._said_starts[agreement], counts=said
        )
        sides = zip((left, right), slots.T, (said, np.zeros_like(said)), kept, orders, strict=True)
        for rows, place, before, room, order in sides:
            start = place
            if self.image_token:
                _put(ids, start, self._ids["mask"])
                _put(ids, start + 1, self._ids["sep"])
                start = start + 2
            self._put_item(ids, items, rows, start=start + before, room=room, orders=order)
        second = attention & (np.arange(ids.shape[1]) >= slots[:, 1:]) & (self._types > 1)
        return PackedBatch(_batch(ids, attention, second), torch.from_numpy(slots) if self.image_token else None)

    def singles(self, items: ItemTokens, rows: Rows) -> PackedBatch:
        """The sequences of n items; all token types are 0."""
        lengths = self.single_lengths(items)[rows]
        ids, attention = self._blank(lengths)
        words = 1 + 2 * self.image_token
        ids[:, 1:words] = (self._ids["mask"], self._ids["sep"]) if self.image_token else ()
        start = words + len(self._prefix)
        ids[:, words:start] = self._prefix
        room = lengths - len(self._prefix) - 1 - self._side_specials
        self._put_item(ids, items, rows, start=np.full(len(rows), start), room=room, orders=None)
        slots = torch.ones(len(rows), 1, dtype=torch.int64) if self.image_token else None
        return PackedBatch(_batch(ids, attention, np.zeros_like(attention)), slots)

    def _agreement(self, items: ItemTokens, left: Rows, right: Rows) -> NDArray[np.int64]:
        """(n,) what the codes of each pair say: an index into ``code_agreement.WORDS``."""
        if not self.builder.compare_codes:
            return np.zeros(len(left), np.int64)
        codes = items.codes
        pairs = zip(left.tolist(), right.tolist(), strict=True)
        # Not None: this packer's builder made them.
        return np.fromiter((code_agreement.agreement(codes[a], codes[b]) for a, b in pairs), np.int64, len(left))

    def _kept(self, items: ItemTokens, left: Rows, right: Rows, said: NDArray[np.int64]) -> NDArray[np.int64]:
        """(2, n): how many tokens of each side stay. One after another, the longer side loses its last one."""
        room = self.max_length - 1 - 2 * self._side_specials - said
        a, b = items.sizes(left), items.sizes(right)
        return np.stack([
            np.minimum(a, np.maximum(room - b, room - room // 2)), np.minimum(b, np.maximum(room - a, room // 2)),
        ])  # fmt: skip

    def _blank(self, lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids (n, L), padding behind ``[CLS]``; and which of them are tokens."""
        attention = np.arange(lengths.max(initial=1)) < lengths[:, None]
        ids = np.full(attention.shape, self._ids["pad"], np.int64)
        ids[:, 0] = self._ids["cls"]
        return ids, attention

    def _orders(self, items: ItemTokens, left: Rows, right: Rows) -> Sequence[list[tuple[int, ...]] | None]:
        """For each side the order of every pair's pieces; None where it is that of the items."""
        if self.builder.name != "aligned":
            return None, None
        order = self.builder.order
        # The order depends on the keys alone.
        texts = {row: ItemText("", items.keys[row], ()) for row in {*left.tolist(), *right.tolist()}}
        both = [
            order(texts[a], items.categories[a], texts[b], items.categories[b])
            for a, b in zip(left.tolist(), right.tolist(), strict=True)
        ]
        return [a for a, _ in both], [b for _, b in both]

    def _put_item(
        self,
        ids: NDArray[np.int64],
        items: ItemTokens,
        rows: Rows,
        *,
        start: NDArray[np.int64],
        room: NDArray[np.int64],
        orders: list[tuple[int, ...]] | None,
    ) -> None:
        """Write title, ``[SEP]``, pieces, ``[SEP]`` of each item from column ``start`` on, ``room`` tokens of them."""
        first = items.first[rows]
        title_start = items.starts[first]
        title_end = items.starts[first + 1]
        title = np.minimum(title_end - title_start, room)
        sequence = np.arange(len(rows))
        _copy(ids, items.tokens, rows=sequence, columns=start, starts=title_start, counts=title)
        start = start + title
        _put(ids, start, self._ids["sep"])
        if self.builder.name == "title":
            return
        start = start + 1
        _put(ids, start + room - title, self._ids["sep"])
        if orders is None:
            _copy(ids, items.tokens, rows=sequence, columns=start, starts=title_end, counts=room - title)
            return
        counts = np.fromiter(map(len, orders), np.int64, len(orders))
        part = np.repeat(first + 1, counts) + np.fromiter(chain.from_iterable(orders), np.int64)
        length = items.starts[part + 1] - items.starts[part]
        before = np.cumsum(length) - length
        owner = np.repeat(sequence, counts)
        before -= (
            np.repeat(before[np.minimum(np.cumsum(counts) - counts, len(before) - 1)], counts) if len(before) else 0
        )
        length = np.clip((room - title)[owner] - before, 0, length)
        _copy(ids, items.tokens, rows=owner, columns=start[owner] + before, starts=items.starts[part], counts=length)


def _batch(ids: NDArray[Any], attention: NDArray[Any], types: NDArray[Any]) -> TokenBatch:
    return TokenBatch(*(torch.from_numpy(array.astype(np.int64)) for array in (ids, attention, types)))


def _put(ids: NDArray[np.int64], columns: NDArray[np.int64], token: int) -> None:
    ids[np.arange(len(ids)), columns] = token


def _copy(
    ids: NDArray[np.int64],
    tokens: NDArray[np.int32],
    *,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """For every k: ``ids[rows[k], columns[k]:][:counts[k]] = tokens[starts[k]:][:counts[k]]``."""
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    ids[np.repeat(rows, counts), np.repeat(columns, counts) + within] = tokens[np.repeat(starts, counts) + within]
