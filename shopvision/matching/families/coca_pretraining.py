"""CoCa's two questions about items without labels: which picture is this text's, and which word comes next.

The text encoder reads both ways where it makes vectors, as it does afterwards, and from left to right where it tells
captions (UniLM, Dong et al. 2019: one encoder, two masks), so that no token sees the one it is to say.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from shopvision.encoders.text_networks import is_plain_bert
from shopvision.errors import UserError
from shopvision.matching.families._network import LossTerm, LossTerms
from shopvision.matching.families._pretraining import PretrainingNetwork
from shopvision.matching.families.attention import causal_mask
from shopvision.matching.families.word_prediction import WordPrediction
from shopvision.training.contrastive import (
    FIRST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    PairVectors,
    contrastive_loss,
    numbers_of_rows,
)

if TYPE_CHECKING:
    from shopvision.matching.families._parts import Parts
    from shopvision.matching.families.coca import CoCaArguments, CoCaTowers
    from shopvision.matching.families.illustrated_items import IllustratedItems
    from shopvision.matching.families.item_tokens import ItemTokens


class CoCaPretraining(PretrainingNetwork):
    """See the module.

    Attributes:
        caption_layers: in which captions look at pictures, where the model itself has none.
        words: states to words.
        log_scale: logarithm of one over the temperature.
    """

    network: CoCaTowers

    def __init__(
        self,
        network: CoCaTowers,
        arguments: CoCaArguments,
        parts: Parts,
        kept: ItemTokens,
        caption_layers: nn.ModuleList | None,
    ) -> None:
        """Ask about the items of ``kept``; ``caption_layers`` where ``network`` has no layers of its own.

        Raises:
            UserError: the text encoder cannot read from left to right alone.
        """
        super().__init__(network)
        if not is_plain_bert(network.text):
            raise UserError(
                f"The text encoder {arguments.text_config.get('model_type')} reads both ways alone and can tell no "
                "captions: take one of the kind of BERT, or leave [pretraining] out."
            )
        tokenizer: Any = parts.tokenizer
        special = np.array([tokenizer.sep_token_id, tokenizer.unk_token_id])
        embeddings: Any = network.text.get_input_embeddings()  # type: ignore[operator] # transformers is untyped
        self.caption_layers = caption_layers
        self.words = WordPrediction(np.concatenate([kept.tokens, special]), embeddings.embedding_dim)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))

    def losses(self, batch: IllustratedItems) -> LossTerms:
        """See ``PretrainingNetwork``; items without words, or without a picture, are left out."""
        network = self.network
        pictures, seen = network.picture_states(batch.pictures)
        both = seen & batch.worded
        if not both.any():
            nothing = pictures.sum() * 0.0
            return {"contrastive": LossTerm(nothing), "caption": LossTerm(nothing)}
        rows = both.nonzero()[:, 0]
        items, pictures = batch.rows(rows), pictures[rows]
        return {
            "contrastive": LossTerm(self._contrastive(items, pictures)),
            "caption": LossTerm(self._caption(items, pictures)),
        }

    def _contrastive(self, items: IllustratedItems, pictures: Tensor) -> Tensor:
        """InfoNCE both ways among the items; equal texts, and equal pictures, are no negatives of each other."""
        tokens = items.tokens
        states = self.network.text_states(tokens, tokens.attention_mask)
        pairs = PairVectors(
            anchors=self.network.text_vectors(states, tokens).float(),
            positives=functional.normalize(pictures[:, 0].float(), dim=1),
            products=numbers_of_rows(tokens.input_ids),
            pictures=numbers_of_rows(items.pictures.flatten(1)),
        )
        temperature = (-self.log_scale).exp().clamp(min=LOWEST_TEMPERATURE)
        return contrastive_loss(pairs, temperature, gather=False)

    def _caption(self, items: IllustratedItems, pictures: Tensor) -> Tensor:
        """Cross entropy of every token but the first, said from those before it and the picture."""
        network, tokens = self.network, items.tokens
        visible = causal_mask(tokens.attention_mask)
        embeddings: Tensor = network.text.get_input_embeddings().weight  # type: ignore[operator] # untyped
        # BERT adds a mask of this shape to its attention as it is; torch wants it in the states' dtype.
        added = embeddings.new_zeros(visible.shape).masked_fill(~visible, -torch.inf)
        states = network.text_states(tokens, added)
        seen = torch.ones(len(items), 1, 1, 1, dtype=torch.bool, device=states.device)
        for layer in self.caption_layers or network.layers or ():
            states = layer(states, pictures, visible, seen)
        return self.words.loss(states[:, :-1], tokens.input_ids[:, 1:], tokens.attention_mask[:, 1:].bool(), embeddings)
