"""K3M's four questions about items without labels: hidden words of the title, hidden words of the attributes, hidden
parts of the picture, and which value an item's attribute has.

The attribute that is asked for by its value is hidden from the item altogether: a value that the item's vector has
seen is no prediction. Letters in shapes: n items, A tokens of attributes, S tokens of a picture, C features, H width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.text_networks import pool_states
from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError
from shopvision.graph.losses import translation_distance, translation_losses
from shopvision.matching.families._network import LossTerm, LossTerms
from shopvision.matching.families._pretraining import PretrainingNetwork
from shopvision.matching.families.word_prediction import ASKED, WordPrediction

if TYPE_CHECKING:
    from shopvision.matching.families._parts import Parts
    from shopvision.matching.families.k3m_network import K3MNetwork, Regions
    from shopvision.matching.families.k3m_reading import K3MBatch, ReadItems


class K3MPretraining(PretrainingNetwork):
    """See the module.

    Attributes:
        words: states to words, of titles and of attributes.
        parts: states of a picture's parts to their features.
        relation: vector of a key to what moves an item to its value.
        tail: vector of a value to where the item should come.
    """

    # Asked what the parts of a picture have in common, its states forget what tells two articles apart; as they begin,
    # they keep it.
    untouched = ("head", "projection", "regions", "picture_layers")
    network: K3MNetwork

    def __init__(self, network: K3MNetwork, parts: Parts, kept: ReadItems) -> None:
        """Ask about the items of ``kept``.

        Raises:
            UserError: the tokenizer has no word that stands for a hidden one.
        """
        super().__init__(network)
        tokenizer: Any = parts.tokenizer
        if tokenizer.mask_token_id is None:
            raise UserError("The tokenizer has no mask token to hide words with: leave [pretraining] out.")
        self._cls, self._sep, self._pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        self._mask: int = tokenizer.mask_token_id
        width = network.dimension if network.projection is None else network.projection.in_features
        words = np.concatenate([kept.titles, kept.attributes, np.array([tokenizer.unk_token_id])])
        self.words = WordPrediction(words, width)
        self.parts = nn.Linear(width, network.pictures.width)
        self.relation, self.tail = nn.Linear(width, width), nn.Linear(width, width)

    def losses(self, batch: K3MBatch) -> LossTerms:
        """See ``PretrainingNetwork``."""
        network, titles, attributes = self.network, batch.titles, batch.attributes
        held_out = self._held_out(batch.triples)
        triples = batch.triples.masked_fill(held_out, 0)
        special = (titles.input_ids == self._cls) | (titles.input_ids == self._sep)
        title_ids, asked_titles = self.words.hide(titles.input_ids, titles.attention_mask.bool() & ~special, self._mask)
        attribute_ids, asked_attributes = self.words.hide(attributes.input_ids, triples > 0, self._mask)
        shown = replace(
            batch,
            titles=replace(titles, input_ids=title_ids),
            attributes=replace(
                attributes, input_ids=attribute_ids, attention_mask=attributes.attention_mask * ~held_out
            ),
            triples=triples,
        )
        regions = network.regions_of(batch)
        hidden, asked_parts = self._hidden_parts(regions)
        modalities = network.modalities(shown, replace(regions, features=hidden))
        fused = network.fused(modalities)
        embeddings: Tensor = network.text.get_input_embeddings().weight  # type: ignore[operator] # untyped
        return {
            "title": LossTerm(self.words.loss(fused["title"], titles.input_ids, asked_titles, embeddings)),
            "attributes": LossTerm(
                self.words.loss(fused["attributes"], attributes.input_ids, asked_attributes, embeddings)
            ),
            "picture": LossTerm(self._parts_loss(fused["picture"], regions.features, asked_parts)),
            "link": LossTerm(self._link_loss(batch, held_out, network.item_vectors(shown, modalities, fused))),
        }

    def _held_out(self, triples: Tensor) -> Tensor:
        """(n, A) bool: the tokens of one attribute of each item that has any."""
        draw = torch.rand(len(triples), device=triples.device)
        chosen = (draw * triples.amax(1)).long() + 1
        return triples == chosen[:, None]

    def _hidden_parts(self, regions: Regions) -> tuple[Tensor, Tensor]:
        """(n, S, C) without some parts, and without the whole where a part is hidden; and which, (n, S) bool."""
        tokens = regions.features
        asked = (torch.rand(tokens.shape[:2], device=tokens.device) < ASKED) & regions.mask & regions.there[:, None]
        asked[:, 0] = False
        hidden = asked.clone()
        hidden[:, 0] = asked.any(1)
        return tokens.masked_fill(hidden[..., None], 0.0), asked

    def _parts_loss(self, states: Tensor, tokens: Tensor, asked: Tensor) -> Tensor:
        """Mean squared error of hidden parts' features, each part's brought to mean 0 and variance 1; 0 without any."""
        wanted = functional.layer_norm(tokens[asked].detach().to(states.dtype), tokens.shape[2:])
        errors = functional.mse_loss(self.parts(states[asked]), wanted, reduction="none").mean(1)
        return errors.sum() / max(1, len(errors))

    def _link_loss(self, batch: K3MBatch, held_out: Tensor, items: Tensor) -> Tensor:
        """An item, moved by the key, lies nearer to its own value than to any other item's of this batch (TransE)."""
        rows = held_out.any(1).nonzero()[:, 0]
        if len(rows) < 2:
            return items.sum() * 0.0
        ids, chosen = batch.attributes.input_ids[rows], held_out[rows]
        value = self._sequences(ids, chosen & batch.is_value[rows])
        key = self._sequences(ids, chosen & ~batch.is_value[rows])
        relations, tails = (
            functional.normalize(layer(self._vectors(tokens)), dim=1)
            for layer, tokens in ((self.relation, key), (self.tail, value))
        )
        heads = functional.normalize(items[rows], dim=1)
        distances = translation_distance(heads[:, None], relations[:, None], tails[None])
        numbers = torch.unique(value.input_ids, dim=0, return_inverse=True)[1]
        wrong = numbers[:, None] != numbers
        losses = translation_losses(torch.diagonal(distances)[:, None], distances)[wrong]
        return losses.sum() / max(1, len(losses))

    def _vectors(self, tokens: TokenBatch) -> Tensor:
        """(k, H)."""
        return pool_states(self.network.text_states(tokens), tokens.attention_mask, self.network.pooling)

    def _sequences(self, ids: Tensor, chosen: Tensor) -> TokenBatch:
        """``[CLS] tokens [SEP]`` of those chosen of each row of (k, A), moved together."""
        order = (~chosen).int().argsort(dim=1, stable=True)
        sizes = chosen.sum(1)
        most = int(sizes.max()) if len(sizes) else 0
        ids = ids.gather(1, order)[:, :most]
        ids = functional.pad(ids, (1, 1), value=self._pad)
        places = torch.arange(most + 2, device=ids.device)
        ids = ids.masked_fill(places > sizes[:, None], self._pad)
        ids = ids.masked_fill(places == 0, self._cls).masked_fill(places == 1 + sizes[:, None], self._sep)
        mask = (places < 2 + sizes[:, None]).long()
        return TokenBatch(ids, mask, torch.zeros_like(ids))
