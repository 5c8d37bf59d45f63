"""The family ``pkgm``: both texts as one sequence, followed by what a knowledge graph says of each item.

Behind the last token of a pair stand the service vectors of the first item, then of the second: a triple query and a
relation query for each of its attributes (``shopvision.graph.service``), brought to the encoder's width by a layer for
either kind. They take the place of word embeddings; position, token type, layer norm and dropout are those of any
token. What is not there takes no place, so there is nothing to mask but the padding behind a sequence. The graph's
tables stay as they are. Items of which the graph knows nothing have no such tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn

from shopvision.encoders.text_sources import fetch_text
from shopvision.encoders.token_limit import token_limit
from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError
from shopvision.graph.card import find_graph, names_file, read_names
from shopvision.graph.service import KnownFacts, ServiceNames, ServiceVectors
from shopvision.items.item import Item
from shopvision.matching.families._network import PairNetwork, PairReader, Rows
from shopvision.matching.families._parts import Origin, Parts, Start
from shopvision.matching.families.heads import PairHead, outputs_of
from shopvision.matching.families.informed import Informed, build_network, build_reader
from shopvision.matching.families.item_tokens import ItemTokens
from shopvision.matching.families.packing import Packer
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_one_tower import (
    TextOneTowerFamily,
    TextPairArguments,
    TextPairOptions,
    states_options,
    states_width,
    text_fields,
)
from shopvision.matching.families.text_reading import TextOptions
from shopvision.matching.families.towers import OneTower, build_text_encoder, read_weights, text_width
from shopvision.models.card import ModelCard
from shopvision.models.version_folder import FileWriter

MOST_FACTS = 64
"""Of an item, that its vector is made from; lists of hundreds of sizes and compatible models add no more."""


class PkgmOptions(TextPairOptions):
    """Options.

    Attributes:
        graph: what ``shopvision train graph`` made, or an imported one: a folder or ``NAME:TAG``.
        keys: attributes of an item, at most, that it has service vectors of.
        item_vectors: where an item's vector comes from: what it tells of itself (``attributes``), as of any new item;
            or its own row of the ``graph``, where it has one.
    """

    family: str = "pkgm"
    graph: str = ""
    keys: int = Field(30, ge=1)
    item_vectors: Literal["attributes", "graph"] = "attributes"

    @model_validator(mode="after")
    def _has_a_graph(self) -> Self:
        if not self.graph:
            raise UserError("The family pkgm reads a graph: name what `shopvision train graph` made as model.graph.")
        return self


class PkgmArguments(TextPairArguments):
    """Arguments.

    Attributes:
        entities: rows of the graph's table, the one for what is not known apart.
        relations: likewise.
        graph_dimension: of the graph's vectors.
        keys: see ``PkgmOptions``.
    """

    entities: int = Field(ge=1)
    relations: int = Field(ge=1)
    graph_dimension: int = Field(ge=1)
    keys: int = Field(30, ge=1)


@dataclass(frozen=True, kw_only=True)
class PkgmParts(Parts):
    """Parts.

    Attributes:
        entities: names of the graph's rows, in their order.
        relations: likewise.
    """

    entities: Sequence[str]
    relations: Sequence[str]


@dataclass(frozen=True, slots=True)
class KnownPairs:
    """n pairs with what a graph knows of their items.

    Attributes:
        tokens: of the pairs, with places for service vectors behind the last.
        places: (n, 2, 2, k) int64 where the triple queries and the relation queries of either item stand; -1 behind the
            last.
        rows_of_items: (n, 2) int64, see ``ServiceVectors``, as the next two.
        told: (n, 2, f, 2) int64.
        attributes: (n, 2, k) int64.
    """

    tokens: TokenBatch
    places: Tensor
    rows_of_items: Tensor
    told: Tensor
    attributes: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device) -> KnownPairs:
        """The batch on another device."""
        rest = (self.places, self.rows_of_items, self.told, self.attributes)
        return KnownPairs(self.tokens.to(device), *(tensor.to(device) for tensor in rest))

    def rows(self, index: slice) -> KnownPairs:
        """Some of the pairs, without the padding that only the others needed."""
        rest = (self.places, self.rows_of_items, self.told, self.attributes)
        return KnownPairs(self.tokens.rows(index), *(tensor[index] for tensor in rest))


@dataclass(frozen=True)
class KnownItems:
    """What is kept of m items: their tokens, and what a graph knows of them.

    Attributes:
        tokens: of the items.
        facts: m.
        counts: (m,) attributes of each.
    """

    tokens: ItemTokens
    facts: Sequence[KnownFacts]
    counts: NDArray[np.int64]


class KnownPairReader(PairReader[KnownItems]):
    """Pairs as token sequences with places for service vectors behind them."""

    def __init__(self, packer: Packer, names: ServiceNames, keys: int, *, token_types: int) -> None:
        """Read ``keys`` attributes of an item at most."""
        self._packer, self._names, self._keys, self._types = packer, names, keys, token_types

    def read(self, items: Sequence[Item]) -> KnownItems:
        """See ``PairReader``."""
        facts = [self._names.read(item, self._keys) for item in items]
        counts = np.fromiter((len(one.attributes) for one in facts), np.int64, len(facts))
        return KnownItems(self._packer.items(items), facts, counts)

    def has_text(self, item: Item) -> bool:
        """See ``PairReader``; what the graph knows is something to read as well."""
        return self._packer.has_text(item) or bool(self._names.read(item, self._keys).attributes)

    def lengths(self, kept: KnownItems, left: Rows, right: Rows) -> NDArray[np.int64]:
        """See ``PairReader``."""
        words = self._packer.pair_lengths(kept.tokens, left, right)
        lengths: NDArray[np.int64] = words + 2 * (kept.counts[left] + kept.counts[right])
        return lengths

    def batch(self, kept: KnownItems, left: Rows, right: Rows, pictures: Tensor | None) -> KnownPairs:  # noqa: ARG002
        """See ``PairReader``."""
        words = self._packer.pairs(kept.tokens, left, right).tokens
        sides = np.stack([left, right], axis=1)
        counts = kept.counts[sides]
        width = int(counts.max(initial=0))
        order = np.arange(width)
        # Triple queries of A, relation queries of A, then those of B.
        blocks = np.repeat(counts, 2, axis=1)
        starts = words.attention_mask.sum(1).numpy()[:, None] + np.cumsum(blocks, axis=1) - blocks
        places = np.where(order < blocks[..., None], starts[..., None] + order, -1)
        facts = [[kept.facts[row] for row in pair] for pair in sides.tolist()]
        told = _padded([[one.told[:MOST_FACTS] for one in pair] for pair in facts], 2)
        attributes = _padded([[[(number,) for number in one.attributes] for one in pair] for pair in facts], 1)
        return KnownPairs(
            _with_places(words, torch.from_numpy(places), second=self._types > 1),
            torch.from_numpy(places.reshape(len(sides), 2, 2, width)),
            torch.tensor([[one.row for one in pair] for pair in facts], dtype=torch.int64).reshape(len(sides), 2),
            told,
            attributes.squeeze(-1),
        )


def _padded(of_pairs: Sequence[Sequence[Sequence[tuple[int, ...]]]], numbers: int) -> Tensor:
    """(n, 2, longest, numbers) int64, zeros behind the last."""
    sides = list(chain.from_iterable(of_pairs))
    counts = np.fromiter(map(len, sides), np.int64, len(sides))
    padded = np.zeros((len(sides), int(counts.max(initial=0)), numbers), np.int64)
    flat = np.array(list(chain.from_iterable(sides)), np.int64).reshape(-1, numbers)
    padded[np.arange(padded.shape[1]) < counts[:, None]] = flat
    return torch.from_numpy(padded.reshape(len(of_pairs), 2, *padded.shape[1:]))


def _with_places(words: TokenBatch, places: Tensor, *, second: bool) -> TokenBatch:
    """Sequences that are longer by the places (n, 4, k) behind their last tokens; those of B have the second type."""
    length = max(words.input_ids.shape[1], int(places.max()) + 1 if places.numel() else 0)
    ids, mask, types = (
        nn.functional.pad(tensor, (0, length - tensor.shape[1]))
        for tensor in (words.input_ids, words.attention_mask, words.token_type_ids)
    )
    pair, block, _ = rows = torch.nonzero(places >= 0, as_tuple=True)
    mask[pair, places[rows]] = 1
    types[pair, places[rows]] = (block >= 2).long() * second
    return TokenBatch(ids, mask, types)


class KnowingOneTower(OneTower):
    """A one-tower whose sequences end with service vectors.

    Attributes:
        graph: tables of the knowledge graph.
        triple_projection: a triple query to a word embedding.
        relation_projection: a relation query to one.
    """

    def __init__(self, text: nn.Module, head: nn.Module, graph: ServiceVectors, **options: Any) -> None:
        """Put together; ``options`` are those of ``OneTower``."""
        super().__init__(text, head, **options)
        words: nn.Embedding = text.get_input_embeddings()  # type: ignore[operator] # transformers is untyped
        self.graph = graph
        dimension = graph.matrix.shape[0]
        self.triple_projection = nn.Linear(dimension, words.embedding_dim)
        self.relation_projection = nn.Linear(dimension, words.embedding_dim)

    def forward(self, batch: Any) -> Tensor:
        """See ``PairNetwork``; of ``KnownPairs``."""
        logits: Tensor = self.head(self.states(batch.tokens, self.embeddings(batch)))
        return logits

    def embeddings(self, batch: KnownPairs) -> Tensor:
        """(n, L, H): word embeddings, and service vectors in their places."""
        words: Tensor = self.text.get_input_embeddings()(batch.tokens.input_ids)  # type: ignore[operator] # as above
        flat = (batch.rows_of_items.flatten(), batch.told.flatten(0, 1), batch.attributes.flatten(0, 1))
        triples, relations = self.graph(*flat)
        # (n, 2 items, 2 kinds, k, H), as ``places`` has it.
        queries = torch.stack([self.triple_projection(triples), self.relation_projection(relations)], dim=1)
        queries = queries.view(len(batch), 2, *queries.shape[1:])
        rows = torch.nonzero(batch.places >= 0, as_tuple=True)
        return words.index_put((rows[0], batch.places[rows]), queries[rows].to(words.dtype))


class InformedKnowingOneTower(Informed, KnowingOneTower):
    """One that is told what statements say as well."""


@register
class Pkgm(TextOneTowerFamily[PkgmArguments, PkgmOptions]):
    """Reads both texts, and what a knowledge graph knows of both items."""

    name = "pkgm"
    arguments = PkgmArguments
    options = PkgmOptions

    def start(self, options: PkgmOptions, texts: TextOptions, items: Sequence[Item]) -> Start[PkgmArguments]:
        """See ``Family``."""
        graph, source = find_graph(options.graph), fetch_text(options.text)
        tables, entities = ServiceVectors.tensors_of(graph, items=options.item_vectors == "graph")
        if not entities:
            raise UserError(
                f"The graph {graph.card.spec} names no value (/value/...), and items' vectors come from these: train "
                'one on items with attributes, or set item_vectors = "graph".'
            )
        arguments = PkgmArguments(
            **self.settled(options),
            **text_fields(options, source, texts, items),
            entities=len(entities),
            relations=len(graph.relations),
            graph_dimension=graph.vectors.dimension,
            keys=options.keys,
        )
        return Start(
            arguments=arguments,
            parts=PkgmParts(tokenizer=source.tokenizer, entities=entities, relations=graph.relations),
            weights={"text": read_weights(source.tensors, arguments.pooling), "graph": tables},
            origins=[
                Origin(name="text", source=source.source, licence=source.licence),
                Origin(name="graph", source=graph.card.spec, licence=graph.card.licence),
            ],
        )

    def freeze(self, network: KnowingOneTower, options: PkgmOptions) -> Sequence[nn.Module]:  # type: ignore[override]
        """See ``Family``: the graph has learnt, and rows that few pairs touch would lose what they know."""
        super().freeze(network, options)
        return (network.graph,)

    def build(self, arguments: PkgmArguments, parts: Parts) -> PairNetwork:  # noqa: ARG002 - see OneTowerFamily
        """See ``OneTowerFamily``."""
        text = build_text_encoder(arguments.text_config, arguments.pooling)
        width = text_width(text)
        head = PairHead(
            states_width(arguments, width), width, outputs=outputs_of(arguments.axes), dropout=arguments.dropout
        )
        graph = ServiceVectors(1 + arguments.entities, 1 + arguments.relations, arguments.graph_dimension)
        return build_network(
            KnowingOneTower, InformedKnowingOneTower, arguments, text, head, graph, **states_options(arguments)
        )

    def reader(self, arguments: PkgmArguments, parts: Parts) -> PairReader[Any]:
        """See ``OneTowerFamily``."""
        if not isinstance(parts, PkgmParts) or parts.tokenizer is None:
            raise UserError("A model of the family pkgm needs a tokenizer, and the names of its graph.")
        packer = arguments.texts.packer(parts.tokenizer, arguments.text_config)
        _require_room(arguments, token_limit(arguments.text_config, parts.tokenizer))
        names = ServiceNames.of(parts.relations, parts.entities)
        types = arguments.text_config.get("type_vocab_size", 1)
        return build_reader(KnownPairReader(packer, names, arguments.keys, token_types=types), arguments)

    def part_files(self, parts: Parts) -> Sequence[FileWriter]:
        """See ``Family``."""
        files = super().part_files(parts)
        if not isinstance(parts, PkgmParts):
            return files
        return [*files, names_file(entities=parts.entities, relations=parts.relations)]

    def load_parts(self, folder: Path, card: ModelCard, arguments: PkgmArguments) -> Parts:
        """See ``Family``."""
        names = read_names(folder, entities=arguments.entities, relations=arguments.relations)
        tokenizer = super().load_parts(folder, card, arguments).tokenizer
        return PkgmParts(tokenizer=tokenizer, entities=names["entities"], relations=names["relations"])


def _require_room(arguments: PkgmArguments, limit: int) -> None:
    """Refuse texts that leave too little of ``limit`` tokens for the service vectors of two items, two a key."""
    places = 4 * arguments.keys
    if (length := arguments.texts.max_length) + places > limit:
        raise UserError(
            f"max_length {length} and {places} places for service vectors, four for each of keys = {arguments.keys}, "
            f"are more than the encoder's {limit} tokens: lower text.max_length or model.keys."
        )
