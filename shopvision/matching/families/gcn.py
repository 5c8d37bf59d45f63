"""The family ``gcn``: an item's vector comes from its text, its values, and other items that have these values.

Nodes are items and values (brand, category, attributes) of a shop's catalogue, as far as training was shown it. Each
has the vector that a frozen text encoder gives its text; a GCNII network (``shopvision.graph.convolution``) mixes it
with its neighbours'. The model carries these nodes with it, and puts an item that is scored into their midst: one that
was never seen is read as any other, by its own text and the neighbourhoods of its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from shopvision.encoders._fast import accelerate_text_encoder
from shopvision.encoders.text_networks import Pooling
from shopvision.encoders.text_sources import fetch_text
from shopvision.errors import UserError
from shopvision.graph.card import names_file
from shopvision.graph.convolution import GCNII
from shopvision.graph.neighbourhoods import ItemValueGraph
from shopvision.items.item import Item
from shopvision.items.item_files import read_items
from shopvision.matching.families._family import TwoTowerFamily
from shopvision.matching.families._network import ItemNetwork, ItemReader
from shopvision.matching.families._parts import Origin, Parts, Start
from shopvision.matching.families.gcn_reading import (
    GcnParts,
    TextVectors,
    TreeReader,
    memory_of,
    most_nodes,
    read_graph_file,
    save_graph_file,
)
from shopvision.matching.families.heads import vector_head
from shopvision.matching.families.registry import register
from shopvision.matching.families.text_reading import TextOptions, TextReading
from shopvision.matching.families.towers import (
    TwoTower,
    TwoTowerArguments,
    TwoTowerOptions,
    build_text_encoder,
    read_weights,
    text_width,
)
from shopvision.models.card import ModelCard
from shopvision.models.version_folder import FileWriter
from shopvision.models.weights import load_strictly, read_tensors, save_tensors
from shopvision.training.config import LocalPath

TEXT_FILE = "text.safetensors"
_OF_THE_NETWORK = {
    "projection", "hidden", "gcn_layers", "alpha", "theta", "neighbours", "edge_types", "graph_dropout",
}  # fmt: skip
_MOST_NODES = 100_000  # 100 MB of states for a single item
_SEED = 0  # of the draw of neighbours where there are too many


class GcnOptions(TwoTowerOptions):
    """Options.

    Attributes:
        text: text encoder, see ``shopvision.encoders.text_sources.fetch_text``; it stays as it is.
        known_items: further items of the shop, whose neighbourhoods are known beside those of the training pairs.
        hidden: width of the network.
        gcn_layers: how many, and so how far it sees: 2 are an item's values and the items that have them.
        alpha: share of a node's own text in each layer.
        theta: how much a layer's matrix does.
        neighbours: of a node, at most.
        edge_types: tell attributes apart: what comes over an edge is multiplied by a vector of its attribute.
        graph_dropout: before each layer.
    """

    family: str = "gcn"
    text: str = "wheel:minilm"
    known_items: LocalPath | None = None
    hidden: int = Field(128, ge=2)
    gcn_layers: int = Field(2, ge=1, le=6)
    alpha: float = Field(0.1, ge=0, le=1)
    theta: float = Field(0.5, gt=0)
    neighbours: int = Field(16, ge=2)
    edge_types: bool = False
    graph_dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits_into_memory(self) -> Self:
        if (nodes := most_nodes(self.neighbours, self.gcn_layers)) > _MOST_NODES:
            raise UserError(
                f"{self.neighbours} neighbours over {self.gcn_layers} layers are {nodes:,} nodes around an item: lower "
                f"model.neighbours or model.gcn_layers, so that there are {_MOST_NODES:,} at most."
            )
        return self


class GcnArguments(TwoTowerArguments):
    """Arguments.

    Attributes:
        text_config: of the text encoder, for ``shopvision.encoders.text_networks.build_text``.
        texts: how items become sequences.
        pooling: of the encoder's states.
        items: how many the graph knows.
        values: likewise.
        relations: likewise, attributes.
        hidden: see ``GcnOptions``, as the next.
    """

    text_config: dict[str, Any]
    texts: TextReading = TextReading()
    pooling: Pooling = "mean"
    items: int = Field(ge=0)
    values: int = Field(ge=0)
    relations: int = Field(ge=0)
    hidden: int = Field(128, ge=2)
    gcn_layers: int = Field(2, ge=1)
    alpha: float = Field(0.1, ge=0, le=1)
    theta: float = Field(0.5, gt=0)
    neighbours: int = Field(16, ge=2)
    edge_types: bool = False
    graph_dropout: float = Field(0.1, ge=0, lt=1)


class GraphTowers(TwoTower):
    """Towers of neighbourhoods.

    Attributes:
        gcn: the network.
    """

    def __init__(self, head: nn.Module, gcn: GCNII, arguments: GcnArguments, text: nn.Module) -> None:
        """Put together; ``text`` makes what its batches hold, and is no part of it."""
        super().__init__(head, features=arguments.hidden, projection=arguments.projection)
        self.gcn = gcn
        self._text, self._pooling = (text,), arguments.pooling  # in a tuple, which hides it

    def features(self, batch: Any) -> Tensor:
        """See ``TwoTower``; of ``Trees``."""
        states: Tensor = self.gcn(batch)
        return states

    def prepare_for_scoring(self, device: torch.device, dtype: torch.dtype) -> None:
        """See ``ItemNetwork``; the encoder of the texts alone is cast."""
        super().prepare_for_scoring(device, dtype)
        (text,) = self._text
        accelerate_text_encoder(text.to(device, dtype), pooling=self._pooling)


@register
class Gcn(TwoTowerFamily[GcnArguments, GcnOptions]):
    """Reads each item's text and values, and what else has these values."""

    name = "gcn"
    reads_text = True
    arguments = GcnArguments
    options = GcnOptions

    def start(self, options: GcnOptions, texts: TextOptions, items: Sequence[Item]) -> Start[GcnArguments]:
        """See ``Family``."""
        others = [] if options.known_items is None else list(read_items(options.known_items).values())
        source = fetch_text(options.text)
        known = [*others, *items]
        graph = ItemValueGraph.of_items(known, options.neighbours, _SEED)
        arguments = GcnArguments(
            **self.settled(options),
            **options.model_dump(include=_OF_THE_NETWORK),
            text_config=source.config,
            texts=TextReading.of_items(texts, items),
            pooling=source.pooling,
            items=len(graph.items),
            values=len(graph.values),
            relations=len(graph.relations),
        )
        text = build_text_encoder(source.config, source.pooling)
        load_strictly(text, read_weights(source.tensors, source.pooling), source.source)
        packer = arguments.texts.packer(source.tokenizer, source.config)
        memory = memory_of(source.tensors)
        vectors = TextVectors(text.requires_grad_(requires_grad=False), packer, source.pooling, memory)
        by_id = {item.item_id: item for item in known}
        nodes = [vectors.of_items([by_id[name] for name in graph.items])[0], vectors.of_values(graph.values)]
        return Start(
            arguments=arguments,
            parts=GcnParts(
                tokenizer=source.tokenizer,
                text=text,
                graph=graph,
                nodes=np.concatenate(nodes).astype(np.float16),
                memory=memory,
            ),
            origins=[Origin(name="text", source=source.source, licence=source.licence)],
        )

    def build(self, arguments: GcnArguments, parts: Parts) -> ItemNetwork:
        """See ``TwoTowerFamily``."""
        if not isinstance(parts, GcnParts):
            raise UserError("A model of the family gcn needs its graph.")
        gcn = GCNII(
            text_width(parts.text),
            arguments.hidden,
            layers=arguments.gcn_layers,
            alpha=arguments.alpha,
            theta=arguments.theta,
            dropout=arguments.graph_dropout,
            relations=arguments.relations if arguments.edge_types else None,
        )
        dimension = arguments.projection or arguments.hidden
        head = vector_head(arguments.axes, dimension, dropout=arguments.dropout)
        return GraphTowers(head, gcn, arguments, parts.text)

    def reader(self, arguments: GcnArguments, parts: Parts) -> ItemReader[Any]:
        """See ``TwoTowerFamily``."""
        if not isinstance(parts, GcnParts):
            raise UserError("A model of the family gcn needs its graph.")
        packer = arguments.texts.packer(parts.tokenizer, arguments.text_config)
        vectors = TextVectors(parts.text, packer, arguments.pooling, parts.memory)
        return TreeReader(vectors, packer, parts, depth=arguments.gcn_layers, most=arguments.neighbours)

    def part_files(self, parts: Parts) -> Sequence[FileWriter]:
        """See ``Family``."""
        if not isinstance(parts, GcnParts):
            return super().part_files(parts)
        return [
            *super().part_files(parts),
            lambda folder: save_tensors(parts.text.state_dict(), folder / TEXT_FILE),
            lambda folder: save_graph_file(folder, parts),
            names_file(items=parts.graph.items, values=parts.graph.values, relations=parts.graph.relations),
        ]

    def load_parts(self, folder: Path, card: ModelCard, arguments: GcnArguments) -> Parts:
        """See ``Family``."""
        text = build_text_encoder(arguments.text_config, arguments.pooling)
        load_strictly(text, read_tensors(folder / TEXT_FILE), f"{card.spec}, {TEXT_FILE}")
        sizes = {"items": arguments.items, "values": arguments.values, "relations": arguments.relations}
        graph, nodes = read_graph_file(folder, **sizes)
        tokenizer = super().load_parts(folder, card, arguments).tokenizer
        return GcnParts(
            tokenizer=tokenizer, text=text.requires_grad_(requires_grad=False).eval(), graph=graph, nodes=nodes
        )
