"""What the family ``gcn`` reads: items as the roots of trees, whose nodes have the vectors of their texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shopvision.encoders.text_networks import Pooling, pool
from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import JobError
from shopvision.graph.card import read_names
from shopvision.graph.convolution import Trees
from shopvision.graph.neighbourhoods import ItemValueGraph, Root, grow
from shopvision.items.item import Item
from shopvision.matching.families._network import ItemReader, Rows
from shopvision.matching.families._parts import Parts
from shopvision.matching.families.packing import Packer
from shopvision.matching.families.towers import text_inputs, text_width

Nodes: TypeAlias = NDArray[np.float16]
Memory: TypeAlias = dict[bytes, NDArray[np.float32]]
GRAPH_FILE = "graph.npz"
_TEXTS_AT_ONCE = 64
MOST_KEPT = 100_000  # vectors of texts: 150 MB of 384 numbers each
_NODES_A_TOKEN = 32  # a node has one state, a token of a text encoder several for each layer


@dataclass(frozen=True, kw_only=True)
class GcnParts(Parts):
    """Parts.

    Attributes:
        text: the text encoder; no part of the network, and never changed.
        graph: items and values that are known.
        nodes: (N, f) float16 vectors of their texts.
        memory: vectors of texts by their token ids, so that every seed and fold of a training finds them made.
    """

    text: nn.Module
    graph: ItemValueGraph
    nodes: Nodes
    memory: Memory | None = None


@dataclass(frozen=True)
class RootItems:
    """What is kept of m items.

    Attributes:
        roots: m.
        rows: (m,) int64, where the vector of each one's text lies in ``features``; values of it that the graph does not
            know follow.
        features: (m and new values, f) float32.
        tokens: (m,) of each one's text.
    """

    roots: Sequence[Root]
    rows: NDArray[np.int64]
    features: NDArray[np.float32]
    tokens: NDArray[np.int64]


class TextVectors:
    """Vectors of texts by a frozen encoder."""

    def __init__(self, text: nn.Module, packer: Packer, pooling: Pooling, memory: Memory | None = None) -> None:
        """Encode with ``text``, which stays in evaluation mode; what ``memory`` holds is not encoded again."""
        self._text, self._packer, self._pooling = text.eval(), packer, pooling
        self._memory = {} if memory is None else memory

    def of_items(self, items: Sequence[Item]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vectors (n, f), and how many tokens each text has (n,)."""
        kept = self._packer.items(items)
        lengths = self._packer.single_lengths(kept)
        order = np.argsort(lengths, kind="stable")
        result = np.zeros((len(items), text_width(self._text)), np.float32)
        for start in range(0, len(items), _TEXTS_AT_ONCE):
            rows = order[start : start + _TEXTS_AT_ONCE]
            tokens = self._packer.singles(kept, rows).tokens
            keys = [ids[:length].tobytes() for ids, length in zip(tokens.input_ids.numpy(), lengths[rows], strict=True)]
            new = [place for place, key in enumerate(keys) if key not in self._memory]
            if new:
                self._encode(tokens.rows(torch.tensor(new)), [keys[place] for place in new])
            result[rows] = [self._memory[key] for key in keys]
            while len(self._memory) > MOST_KEPT:
                del self._memory[next(iter(self._memory))]
        return result, lengths

    @torch.inference_mode()
    def _encode(self, tokens: TokenBatch, keys: Sequence[bytes]) -> None:
        tokens = tokens.to(next(self._text.parameters()).device)  # where scoring has put it by now
        states = self._text(**text_inputs(self._text, tokens))
        vectors = pool(states, tokens.attention_mask, self._pooling).float().cpu().numpy()
        self._memory.update(zip(keys, vectors, strict=True))

    def of_values(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, f), read as titles are."""
        return self.of_items([Item("", title=text) for text in texts])[0]


def memory_of(tensors: Mapping[str, Tensor]) -> Memory:
    """What this process has kept of texts that an encoder with these tensors read, as long as no other one is used."""
    digest = hashlib.blake2b()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().numpy()).data)
    return _memory(digest.digest())


@lru_cache(maxsize=1)
def _memory(digest: bytes) -> Memory:  # noqa: ARG001 - told apart by it
    return {}


class TreeReader(ItemReader[RootItems]):
    """Items as the roots of trees."""

    def __init__(self, vectors: TextVectors, packer: Packer, parts: GcnParts, *, depth: int, most: int) -> None:
        """Grow trees of ``depth`` levels, ``most`` neighbours of a node."""
        self._vectors, self._packer, self._graph, self._nodes = vectors, packer, parts.graph, parts.nodes
        self._depth, self._most = depth, most

    def read(self, items: Sequence[Item]) -> RootItems:
        """See ``ItemReader``; every text is encoded, equal new values once."""
        roots = [self._graph.root(item, self._most) for item in items]
        new = [
            [text for node, text in zip(root.values, root.texts, strict=True) if node < 0] for root in roots
        ]  # fmt: skip
        number: dict[str, int] = {}
        of_values = [[number.setdefault(text, len(number)) for text in texts] for texts in new]
        own, lengths = self._vectors.of_items(items)
        values = self._vectors.of_values(list(number))
        both = np.concatenate([own, values])
        rows = [row for item, texts in enumerate(of_values) for row in (item, *(len(own) + one for one in texts))]
        starts = np.cumsum([0, *(1 + len(texts) for texts in new)])[:-1]
        return RootItems(roots, starts.astype(np.int64), both[np.array(rows, np.int64)], lengths)

    def has_text(self, item: Item) -> bool:
        """See ``ItemReader``; a known value is something to read as well."""
        return self._packer.has_text(item) or any(node >= 0 for node in self._graph.root(item, self._most).values)

    def lengths(self, kept: RootItems) -> NDArray[np.int64]:
        """See ``ItemReader``: tokens of the text, and the most nodes of a tree as so many tokens' worth of memory."""
        values = np.fromiter((len(root.values) for root in kept.roots), np.int64, len(kept.roots))
        nodes = 1 + values * most_nodes(self._most - 1, self._depth - 1)
        lengths: NDArray[np.int64] = kept.tokens - (-nodes // _NODES_A_TOKEN)
        return lengths

    def batch(self, kept: RootItems, rows: Rows, pictures: Tensor | None) -> Trees:  # noqa: ARG002
        """See ``ItemReader``."""
        known = len(self._graph)
        first = (known + kept.rows[rows]).tolist()
        roots = [kept.roots[row] for row in rows.tolist()]
        levels = grow(self._graph, roots, first, depth=self._depth, most=self._most)
        used, places = np.unique(np.concatenate([level.features for level in levels]), return_inverse=True)
        features = np.empty((len(used), kept.features.shape[1]), np.float32)
        stored = used < known
        features[stored], features[~stored] = self._nodes[used[stored]], kept.features[used[~stored] - known]
        return Trees.of(torch.from_numpy(features), levels, places)


def most_nodes(below: int, depth: int) -> int:
    """Of a tree of ``depth`` levels below its root, with ``below`` nodes below each."""
    return sum(below**level for level in range(depth + 1))


def save_graph_file(folder: Path, parts: GcnParts) -> None:
    """Write the graph without its names, and the vectors of its nodes."""
    graph = parts.graph
    np.savez(
        folder / GRAPH_FILE,
        nodes=parts.nodes,
        starts=graph.starts,
        neighbours=graph.neighbours.astype(np.int32),
        edges=graph.edges.astype(np.int32),
    )


def read_graph_file(folder: Path, *, items: int, values: int, relations: int) -> tuple[ItemValueGraph, Nodes]:
    """What ``save_graph_file`` wrote, with the names beside it.

    Args:
        folder: of a model version.
        items: how many there are.
        values: likewise.
        relations: likewise.

    Raises:
        JobError: a file is missing or damaged.
    """
    names = read_names(folder, items=items, values=values, relations=relations)
    path = folder / GRAPH_FILE
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            nodes = arrays["nodes"]
            starts, neighbours, edges = (arrays[name].astype(np.int64) for name in ("starts", "neighbours", "edges"))
    except (OSError, ValueError, KeyError, BadZipFile):
        raise JobError(f"{path} cannot be read: import the model again.") from None
    fits = len(nodes) == items + values == len(starts) - 1 and len(edges) == len(neighbours) == starts[-1]
    if not fits or (len(edges) and not (0 <= neighbours.min() <= neighbours.max() < len(nodes))):
        raise JobError(f"{path} is not the graph of its names: import the model again.")
    return ItemValueGraph(**names, starts=starts, neighbours=neighbours, edges=edges), nodes
