"""What families of texts are asked about items without labels: hidden words, and which attributes belong to a title.

The words are said by products with the encoder's own word embeddings, because encoders of sentences come without the
head that they once learnt to say words with. Titles and attributes (with price and description) are told apart among
the items of a step, as vectors; equal texts are not each other's wrong answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError
from shopvision.matching.families._network import LossTerm, LossTerms
from shopvision.matching.families._pretraining import PretrainingNetwork
from shopvision.matching.families.towers import text_inputs
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
    from shopvision.matching.families.item_tokens import ItemTokens


class TextPretraining(PretrainingNetwork):
    """See the module.

    Attributes:
        words: states to words.
        log_scale: logarithm of one over the temperature; None where titles are all that is read.
    """

    def __init__(
        self,
        network: nn.Module,
        parts: Parts,
        kept: ItemTokens,
        vectors: Callable[[TokenBatch], Tensor],
        *,
        vector_parts: Collection[str],
        attributes: bool,
    ) -> None:
        """Ask about the items of ``kept``.

        Args:
            network: of the model, with a text encoder ``text``.
            parts: of the model.
            kept: its items.
            vectors: (n, d) of unit length of n texts.
            vector_parts: submodules of the network that these are made by.
            attributes: whether items are read with more than a title.

        Raises:
            UserError: the tokenizer has no word that stands for a hidden one.
        """
        super().__init__(network)
        self.untouched = tuple(name for name, _ in network.named_children() if name not in vector_parts)
        tokenizer: Any = parts.tokenizer
        if tokenizer.mask_token_id is None:
            raise UserError(
                "The text encoder's tokenizer has no mask token, so that no word can be hidden: take another encoder, "
                "or leave [pretraining] out."
            )
        self._mask, self._end, self._vectors = tokenizer.mask_token_id, tokenizer.sep_token_id, vectors
        self.register_buffer("_special", torch.tensor(tokenizer.all_special_ids), persistent=False)
        self.words = WordPrediction(kept.tokens, self._embeddings().shape[1])
        self.log_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE))) if attributes else None

    def _embeddings(self) -> Tensor:
        text: Any = self.network.text
        embeddings: Tensor = text.get_input_embeddings().weight
        return embeddings

    def losses(self, batch: TokenBatch) -> LossTerms:
        """See ``PretrainingNetwork``."""
        terms = {"words": LossTerm(self._words(batch))}
        if self.log_scale is not None:
            terms["matching"] = LossTerm(self._matching(batch, self.log_scale))
        return terms

    def _words(self, batch: TokenBatch) -> Tensor:
        """Cross entropy of hidden words."""
        may = batch.attention_mask.bool() & ~torch.isin(batch.input_ids, self.get_buffer("_special"))
        shown, asked = self.words.hide(batch.input_ids, may, self._mask)
        tokens = TokenBatch(shown, batch.attention_mask, batch.token_type_ids)
        text: Any = self.network.text
        states = text(**text_inputs(text, tokens)).last_hidden_state
        return self.words.loss(states, batch.input_ids, asked, self._embeddings())

    def _matching(self, batch: TokenBatch, log_scale: Tensor) -> Tensor:
        """InfoNCE both ways between titles and what else is told of the items that have both."""
        titles, others = title_and_others(batch, self._end)
        both = (titles.attention_mask.sum(1) > 2) & (others.attention_mask.sum(1) > 2)  # more than [CLS] and [SEP]
        if int(both.sum()) < 2:
            return log_scale * 0.0
        titles, others = titles.rows(both), others.rows(both)
        pairs = PairVectors(
            anchors=self._vectors(titles),
            positives=self._vectors(others),
            products=numbers_of_rows(titles.input_ids),
            pictures=numbers_of_rows(others.input_ids),
        )
        temperature = (-log_scale).exp().clamp(min=LOWEST_TEMPERATURE)
        return contrastive_loss(pairs, temperature, gather=False)


def title_and_others(batch: TokenBatch, end: int) -> tuple[TokenBatch, TokenBatch]:
    """``[CLS] title [SEP] pieces [SEP]`` as ``[CLS] title [SEP]`` and ``[CLS] pieces [SEP]``.

    Args:
        batch: n items.
        end: id of ``[SEP]``, which stands in no text.
    """
    ends = batch.input_ids == end
    behind = (ends.cumsum(1) - ends.long()) > 0
    first = torch.zeros_like(behind)
    first[:, 0] = True
    there = batch.attention_mask.bool()
    return _of_places(batch, there & ~behind), _of_places(batch, there & (behind | first))


def _of_places(batch: TokenBatch, places: Tensor) -> TokenBatch:
    """The tokens where ``places`` (n, L) holds, moved to the left; padding and its types are zeros there."""
    order = (~places).long().argsort(dim=1, stable=True)
    mask = places.gather(1, order)
    moved = TokenBatch(
        batch.input_ids.gather(1, order) * mask, mask.long(), batch.token_type_ids.gather(1, order) * mask
    )
    return moved.rows(slice(None))
