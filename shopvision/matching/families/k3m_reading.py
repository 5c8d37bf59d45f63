"""What K3M reads of items: the title, and the attributes as one sequence in which each token knows its triple.

``[CLS] title [SEP]`` and ``[CLS] key: value; key: value; [SEP]``. Letters in shapes: m items in memory, n items of a
batch, L tokens of a title, A tokens of attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.encoders.tokens import TokenBatch
from shopvision.items.item import Item
from shopvision.matching.families._network import ItemReader, Rows
from shopvision.matching.families.item_tokens import ItemTokenizer, offsets
from shopvision.matching.families.packing import Packer

# Of a key and of a value, at most: one long description must not push out all other attributes.
KEY_TOKENS, VALUE_TOKENS = 8, 24
MOST_REGIONS = 8


@dataclass(frozen=True, slots=True)
class ReadItems:
    """m items, their tokens one after another.

    Attributes:
        titles: token ids.
        title_starts: (m + 1,) where each item's title starts.
        attributes: token ids of keys and values.
        attribute_starts: (m + 1,) as above.
        triples: which attribute of its item a token belongs to, from 1 on.
        is_value: whether it belongs to the value.
        boxes: (m, R, 4) float32 regions of each item's picture; zeros behind the last.
    """

    titles: NDArray[np.int32]
    title_starts: NDArray[np.int64]
    attributes: NDArray[np.int32]
    attribute_starts: NDArray[np.int64]
    triples: NDArray[np.int32]
    is_value: NDArray[np.bool_]
    boxes: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class K3MBatch:
    """n items.

    Attributes:
        titles: (n, L) token ids and masks; an item without a title has the special tokens alone.
        titled: (n,) bool, whether it has one.
        attributes: (n, A), as above.
        triples: (n, A) int64, which attribute a token belongs to, from 1 on; 0 of special tokens and padding.
        is_value: (n, A) bool, whether it belongs to the value.
        boxes: (n, R, 4) regions of their pictures, in shares of these; zeros behind an item's last.
        pictures: (n, ...) as ``Family.pictures`` or ``Family.frozen_features`` says; zeros where there is none.
    """

    titles: TokenBatch
    titled: Tensor
    attributes: TokenBatch
    triples: Tensor
    is_value: Tensor
    boxes: Tensor
    pictures: Tensor

    def __len__(self) -> int:
        return len(self.titles)

    def to(self, device: torch.device) -> K3MBatch:
        """The batch on another device."""
        return K3MBatch(
            self.titles.to(device),
            self.titled.to(device),
            self.attributes.to(device),
            self.triples.to(device),
            self.is_value.to(device),
            self.boxes.to(device),
            self.pictures.to(device),
        )

    def rows(self, index: slice) -> K3MBatch:
        """Some of the items, without the padding that only the others needed."""
        attributes = self.attributes.rows(index)
        length = attributes.input_ids.shape[1]
        return K3MBatch(
            self.titles.rows(index),
            self.titled[index],
            attributes,
            self.triples[index, :length],
            self.is_value[index, :length],
            self.boxes[index],
            self.pictures[index],
        )


class K3MReader(ItemReader[ReadItems]):
    """See the module."""

    def __init__(self, packer: Packer, prefix: str) -> None:
        """Use the tokenizer, the text builder and the length of ``packer``; ``prefix`` stands before titles."""
        tokenizer = packer.tokenizer
        self._packer, self._room = packer, packer.max_length - 2
        self._first, self._last, self._pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        self._tokenizer = ItemTokenizer(
            tokenizer,
            packer.builder,
            max_length=self._room,
            unknown=tokenizer.unk_token_id,
            special=tokenizer.all_special_ids,
        )
        self._prefix = self._tokenizer.encode([prefix.strip()])[0]

    def read(self, items: Sequence[Item]) -> ReadItems:
        """See ``ItemReader``; equal texts among the items are tokenised once."""
        texts = [self._packer.builder.item(item) for item in items]
        split = [[_key_and_value(piece) for piece in text.pieces] for text in texts]
        known = dict.fromkeys(chain((text.title for text in texts), *chain.from_iterable(split)))
        encoded = dict(zip(known, self._tokenizer.encode(list(known)), strict=True))
        titles = [encoded[text.title][: self._room - len(self._prefix)] for text in texts]
        attributes = [self._attributes([(encoded[key], encoded[value]) for key, value in pairs]) for pairs in split]
        return ReadItems(
            _joined(titles),
            offsets(map(len, titles)),
            _joined([tokens for tokens, _, _ in attributes]),
            offsets(len(tokens) for tokens, _, _ in attributes),
            _joined([triples for _, triples, _ in attributes]),
            _joined([is_value for _, _, is_value in attributes]).astype(bool),
            _boxes(items),
        )

    def _attributes(
        self, pairs: Sequence[tuple[NDArray[np.int32], NDArray[np.int32]]]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Tokens, triples and whether each is of a value; whole attributes, as many as there is room for."""
        tokens: list[NDArray[np.int32]] = []
        triples: list[NDArray[np.int32]] = []
        is_value: list[NDArray[np.int32]] = []
        room = self._room
        for key, value in ((key[:KEY_TOKENS], value[:VALUE_TOKENS]) for key, value in pairs):
            if not (len(key) and len(value)) or len(key) + len(value) > room:
                continue
            room -= len(key) + len(value)
            tokens += [key, value]
            triples.append(np.full(len(key) + len(value), 1 + len(triples), np.int32))
            is_value.append(np.repeat(np.array([0, 1], np.int32), [len(key), len(value)]))
        return _joined(tokens), _joined(triples), _joined(is_value)

    def has_text(self, item: Item) -> bool:
        """See ``ItemReader``."""
        return self._packer.has_text(item)

    def lengths(self, kept: ReadItems) -> NDArray[np.int64]:
        """See ``ItemReader``: tokens of both sequences."""
        sizes: NDArray[np.int64] = np.diff(kept.title_starts) + np.diff(kept.attribute_starts)
        return sizes + 4 + len(self._prefix)

    def batch(self, kept: ReadItems, rows: Rows, pictures: Tensor | None) -> K3MBatch:
        """See ``ItemReader``."""
        if pictures is None:
            raise ValueError("a model of texts and pictures needs both")
        titles = self._sequences(kept.titles, kept.title_starts, rows, self._prefix)
        attributes = self._sequences(kept.attributes, kept.attribute_starts, rows, self._prefix[:0])
        length = attributes.input_ids.shape[1]
        triples, is_value = (
            torch.from_numpy(_placed(values, kept.attribute_starts, rows, length, before=1, fill=0))
            for values in (kept.triples, kept.is_value)
        )
        titled = torch.from_numpy(kept.title_starts[rows + 1] > kept.title_starts[rows])
        boxes = torch.from_numpy(kept.boxes[rows])
        return K3MBatch(titles, titled, attributes, triples, is_value.bool(), boxes, pictures)

    def _sequences(
        self, tokens: NDArray[np.int32], starts: NDArray[np.int64], rows: Rows, prefix: NDArray[np.int32]
    ) -> TokenBatch:
        """``[CLS] prefix tokens [SEP]`` of n items, padded to the longest."""
        before = 1 + len(prefix)
        ends = before + starts[rows + 1] - starts[rows]
        ids = _placed(tokens, starts, rows, int(ends.max(initial=before)) + 1, before=before, fill=self._pad)
        ids[:, 0] = self._first
        ids[:, 1:before] = prefix
        ids[np.arange(len(rows)), ends] = self._last
        mask = (np.arange(ids.shape[1]) <= ends[:, None]).astype(np.int64)
        return TokenBatch(torch.from_numpy(ids), torch.from_numpy(mask), torch.zeros(ids.shape, dtype=torch.int64))


def _key_and_value(piece: str) -> tuple[str, str]:
    """``key:v1,v2;`` as ``key:`` and ``v1,v2;``."""
    key, colon, value = piece.partition(":")
    return key + colon, value


def _boxes(items: Sequence[Item]) -> NDArray[np.float32]:
    most = max((len(item.regions) for item in items), default=0)
    boxes = np.zeros((len(items), min(most, MOST_REGIONS), 4), np.float32)
    for row, item in enumerate(items):
        regions = item.regions[:MOST_REGIONS]
        boxes[row, : len(regions)] = np.array(regions, np.float32).reshape(-1, 4)
    return boxes


def _joined(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate([np.zeros(0, np.int32), *parts])


def _placed(
    values: NDArray[np.generic], starts: NDArray[np.int64], rows: Rows, length: int, *, before: int, fill: int
) -> NDArray[np.int64]:
    """(n, length): each item's values from column ``before`` on, ``fill`` elsewhere."""
    places = np.arange(length) - before
    sizes = (starts[rows + 1] - starts[rows])[:, None]
    there = (places >= 0) & (places < sizes)
    at = np.where(there, starts[rows][:, None] + places, 0)
    found: NDArray[np.int64] = np.full(at.shape, fill, np.int64)
    found[there] = values[at[there]]
    return found
