"""K3M's network: three modalities that look at each other, and one vector of them.

Letters in shapes: n items, L states of a modality, S tokens of a picture, C features of one, H width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shopvision.encoders._fast import accelerate_text_encoder
from shopvision.encoders.text_networks import StatePooling, pool_states
from shopvision.matching.families.k3m_layers import (
    CoAttention,
    InteractiveFusion,
    StructureAggregation,
    mean_of_triples,
)
from shopvision.matching.families.picture_tokens import PictureTokens, grid_boxes, has_picture, of_regions
from shopvision.matching.families.towers import TwoTower, text_inputs, text_width

if TYPE_CHECKING:
    from shopvision.encoders.tokens import TokenBatch
    from shopvision.matching.families.k3m import K3MArguments
    from shopvision.matching.families.k3m_reading import K3MBatch

MODALITIES = ("title", "attributes", "picture")


@dataclass(frozen=True, slots=True)
class Modality:
    """What a modality says of n items.

    Attributes:
        states: (n, L, H).
        mask: (n, L) bool: which of them stand for something.
        there: (n,) bool: whether the item has this modality at all.
    """

    states: Tensor
    mask: Tensor
    there: Tensor

    @property
    def seen(self) -> Tensor:
        """(n, L) bool: what others may look at."""
        return self.mask & self.there[:, None]


@dataclass(frozen=True, slots=True)
class Regions:
    """Parts of n pictures: the whole, then a detector's regions where an item has some, else the cells of the grid.

    Attributes:
        features: (n, S, C).
        boxes: (n, S, 4) left, top, right, bottom, in shares of the picture.
        mask: (n, S) bool: which of them there are.
        there: (n,) bool: whether there is a picture at all.
    """

    features: Tensor
    boxes: Tensor
    mask: Tensor
    there: Tensor


class RegionStates(nn.Module):
    """Features of parts of a picture, and where these lie, to states."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features, self.place, self.norm = nn.Linear(features, width), nn.Linear(5, width), nn.LayerNorm(width)

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        """(n, S, C), (n, S, 4) -> (n, S, H)."""
        dtype = self.place.weight.dtype
        left, top, right, bottom = boxes.to(dtype).unbind(2)
        places = torch.stack([left, top, right, bottom, (right - left) * (bottom - top)], 2)
        states: Tensor = self.norm(self.features(features.to(dtype)) + self.place(places))
        return states


class K3MNetwork(TwoTower):
    """See the module.

    Attributes:
        text: a transformers encoder, of titles and of attributes.
        pictures: cells of a picture.
        regions: their features to states.
        picture_layers: in which they look at each other.
        co_attention: ``title_picture`` and so on: layers in which the first looks at the second.
        fusion: by modality.
        structure: adds what the attributes say as triples.
    """

    grid: Tensor

    def __init__(self, text: nn.Module, pictures: PictureTokens, head: nn.Module, arguments: K3MArguments) -> None:
        """Put together."""
        width = text_width(text)
        super().__init__(head, features=width, projection=arguments.projection)
        self.text, self.pictures, self.pooling = text, pictures, arguments.pooling
        self.regions = RegionStates(pictures.width, width)
        self.register_buffer("grid", torch.tensor(grid_boxes(arguments.grid)), persistent=False)

        def layers(count: int) -> nn.ModuleList:
            return nn.ModuleList(CoAttention(width, arguments.heads) for _ in range(count))

        self.picture_layers = layers(arguments.picture_layers)
        self.co_attention = nn.ModuleDict(
            {f"{one}_{other}": layers(arguments.co_layers) for one, other in permutations(MODALITIES, 2)}
        )
        self.fusion = nn.ModuleDict(
            {name: InteractiveFusion(width, arguments.interactive_fusion) for name in MODALITIES}
        )
        self.structure = StructureAggregation(width)

    def features(self, batch: Any) -> Tensor:
        """See ``TwoTower``; of a ``K3MBatch``."""
        modalities = self.modalities(batch, self.regions_of(batch))
        return self.item_vectors(batch, modalities, self.fused(modalities))

    def regions_of(self, batch: K3MBatch) -> Regions:
        """What is looked at of n pictures."""
        tokens = self.pictures(batch.pictures)
        there = has_picture(tokens)
        count, found, cells = len(tokens), batch.boxes.shape[1], self.grid.shape[0] - 1
        grid = self.grid.expand(count, -1, -1)
        everywhere = torch.ones(count, 1 + cells, dtype=torch.bool, device=tokens.device)
        if not found:
            return Regions(tokens, grid, everywhere, there)
        boxes = batch.boxes.to(grid.dtype)
        known = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
        detected = known.any(1, keepdim=True)
        mask = torch.cat([everywhere[:, :1], everywhere[:, 1:] & ~detected, known], 1)
        return Regions(torch.cat([tokens, of_regions(tokens, boxes)], 1), torch.cat([grid, boxes], 1), mask, there)

    def modalities(self, batch: K3MBatch, regions: Regions) -> dict[str, Modality]:
        """Each by itself."""
        states = self.regions(regions.features, regions.boxes)
        for layer in self.picture_layers:
            states = layer(states, states, regions.mask)
        return {
            "title": Modality(self.text_states(batch.titles), batch.titles.attention_mask.bool(), batch.titled),
            "attributes": Modality(
                self.text_states(batch.attributes), batch.attributes.attention_mask.bool(), batch.triples.any(1)
            ),
            "picture": Modality(states, regions.mask, regions.there),
        }

    def text_states(self, tokens: TokenBatch) -> Tensor:
        """(n, L, H)."""
        states: Tensor = self.text(**text_inputs(self.text, tokens)).last_hidden_state
        return states.to(self.regions.place.weight.dtype)

    def fused(self, modalities: Mapping[str, Modality]) -> dict[str, Tensor]:
        """Each modality's states, having looked at the two others: (n, L, H)."""
        versions = {name: [modality.states] for name, modality in modalities.items()}
        there = {name: [torch.ones_like(modality.there)] for name, modality in modalities.items()}
        for one, other in (("title", "attributes"), ("title", "picture"), ("attributes", "picture")):
            a, b = modalities[one], modalities[other]
            left, right = a.states, b.states
            towards, back = self._attending(one, other), self._attending(other, one)
            for layer, layer_back in zip(towards, back, strict=True):
                left, right = layer(left, right, b.seen), layer_back(right, left, a.seen)
            versions[one].append(left)
            versions[other].append(right)
            there[one].append(b.there)
            there[other].append(a.there)
        return {
            name: fuse(torch.stack(versions[name], 1), torch.stack(there[name], 1))
            for name, fuse in self.fusion.items()
        }

    def _attending(self, one: str, other: str) -> nn.ModuleList:
        layers = self.co_attention[f"{one}_{other}"]
        assert isinstance(layers, nn.ModuleList)  # noqa: S101 - for the type checker
        return layers

    def item_vectors(self, batch: K3MBatch, modalities: Mapping[str, Modality], fused: Mapping[str, Tensor]) -> Tensor:
        """(n, H): the mean of the modalities that an item has, and what its triples add."""
        total = torch.zeros_like(fused["title"][:, 0])
        for name, modality in modalities.items():
            pooling: StatePooling = "mean" if name == "picture" else self.pooling
            total = total + pool_states(fused[name], modality.mask, pooling) * modality.there[:, None]
        count = torch.stack([modality.there for modality in modalities.values()]).sum(0)
        items = total / count.clamp(min=1)[:, None]
        states, most = fused["attributes"], int(batch.triples.max()) if batch.triples.numel() else 0
        keys, there = mean_of_triples(states, batch.triples * ~batch.is_value, most)
        values, _ = mean_of_triples(states, batch.triples * batch.is_value, most)
        # Where no item has an attribute as well: processes of one training add up gradients of the same weights.
        joined: Tensor = self.structure(items, keys, values, there)
        return joined

    def prepare_for_scoring(self, device: torch.device, dtype: torch.dtype) -> None:
        """See ``ItemNetwork``; the text encoder alone is cast."""
        self.text.to(dtype)
        super().prepare_for_scoring(device, dtype)
        accelerate_text_encoder(self.text)
