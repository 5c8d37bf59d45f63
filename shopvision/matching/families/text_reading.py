"""How models of texts read items: the section ``[text]``, what a card keeps of it, and batches of token sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from shopvision.encoders.token_limit import require_room
from shopvision.encoders.tokens import TokenBatch
from shopvision.errors import UserError
from shopvision.items.category_statistics import CategoryStatistics
from shopvision.items.code_agreement import common_codes
from shopvision.items.item import Item
from shopvision.items.item_texts import BuilderName, Segmenter, TextBuilder
from shopvision.matching.families._network import ItemReader, PairReader, Rows
from shopvision.matching.families.item_tokens import ItemTokens
from shopvision.matching.families.packing import Packer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TextOptions(BaseModel):
    """Section ``[text]`` of a training configuration: how an item becomes text.

    Attributes:
        builder: see ``shopvision.items.item_texts``.
        segmenter: ``jieba`` puts blanks between Chinese words, and lets a Chinese BERT's tokenizer keep them whole.
        compare_codes: let a pair begin with what the items' model codes say: same, similar or other model. For one
            tower; a shop whose titles name no codes loses nothing by it.
        prefix: what the encoder wants before a single item (two towers): ``query:`` for E5.
        max_length: most tokens of a pair (one tower) or an item (two towers).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    builder: BuilderName = "title_attributes"
    segmenter: Segmenter = "none"
    compare_codes: bool = True
    prefix: str = ""
    max_length: int = Field(128, ge=8)


class TextReading(BaseModel):
    """How a model reads texts; part of its arguments.

    Attributes:
        builder: see ``TextOptions``.
        segmenter: see there.
        compare_codes: of models with one tower, as the next.
        common_codes: that say nothing, see ``code_agreement.common_codes``.
        prefix: of models with two.
        statistics: of the builder, see ``CategoryStatistics.to_json``.
        max_length: most tokens of a sequence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    builder: BuilderName = "title_attributes"
    segmenter: Segmenter = "none"
    compare_codes: bool = False
    common_codes: tuple[str, ...] = ()
    prefix: str = ""
    statistics: dict[str, Any] | None = None
    max_length: int = Field(256, gt=0)

    @classmethod
    def of_pairs(cls, options: TextOptions, items: Sequence[Item]) -> TextReading:
        """Of a model with one tower, with statistics of the training pairs' items."""
        common = common_codes(items) if options.compare_codes else ()
        return cls(compare_codes=options.compare_codes, common_codes=common, **_common(options, items))

    @classmethod
    def of_items(cls, options: TextOptions, items: Sequence[Item]) -> TextReading:
        """Of a model with two towers."""
        return cls(prefix=options.prefix, **_common(options, items))

    def text_builder(self) -> TextBuilder:
        """What makes the texts.

        Raises:
            UserError: the builder lacks statistics.
        """
        statistics = None if self.statistics is None else CategoryStatistics.from_json(self.statistics)
        return TextBuilder(
            self.builder,
            statistics=statistics,
            segmenter=self.segmenter,
            compare_codes=self.compare_codes,
            common_codes=self.common_codes,
        )

    def packer(
        self,
        tokenizer: PreTrainedTokenizerFast | None,
        encoder: Mapping[str, Any] | None,
        *,
        image_token: bool = False,
    ) -> Packer:
        """What packs items for an encoder.

        Args:
            tokenizer: of the encoder.
            encoder: its transformers configuration; None of what reads any number of tokens.
            image_token: whether pairs have tokens for their pictures.

        Raises:
            UserError: the length is impossible, the tokenizer lacks a special token, or the builder lacks statistics.
        """
        if tokenizer is None:
            raise UserError("A model of texts needs a tokenizer.")
        if encoder is not None:
            require_room(self.max_length, encoder, tokenizer)
        return Packer(
            tokenizer,
            self.text_builder(),
            max_length=self.max_length,
            token_types=(encoder or {}).get("type_vocab_size", 1),
            image_token=image_token,
            prefix=self.prefix,
        )


def _common(options: TextOptions, items: Sequence[Item]) -> dict[str, Any]:
    ordered = options.builder in ("frequency", "aligned")
    return {
        "builder": options.builder,
        "segmenter": options.segmenter,
        "max_length": options.max_length,
        "statistics": CategoryStatistics.fit(items).to_json() if ordered else None,
    }


class TextPairReader(PairReader[ItemTokens]):
    """Pairs as token sequences."""

    def __init__(self, packer: Packer) -> None:
        self.packer = packer

    def read(self, items: Sequence[Item]) -> ItemTokens:
        """See ``PairReader``."""
        return self.packer.items(items)

    def has_text(self, item: Item) -> bool:
        """See ``PairReader``."""
        return self.packer.has_text(item)

    def lengths(self, kept: ItemTokens, left: Rows, right: Rows) -> NDArray[np.int64]:
        """See ``PairReader``."""
        return self.packer.pair_lengths(kept, left, right)

    def batch(self, kept: ItemTokens, left: Rows, right: Rows, pictures: Tensor | None) -> Any:  # noqa: ARG002
        """A ``TokenBatch``."""
        return self.packer.pairs(kept, left, right).tokens


class TextItemReader(ItemReader[ItemTokens]):
    """Items as token sequences."""

    def __init__(self, packer: Packer) -> None:
        self.packer = packer

    def read(self, items: Sequence[Item]) -> ItemTokens:
        """See ``ItemReader``."""
        return self.packer.items(items)

    def has_text(self, item: Item) -> bool:
        """See ``ItemReader``."""
        return self.packer.has_text(item)

    def lengths(self, kept: ItemTokens) -> NDArray[np.int64]:
        """See ``ItemReader``."""
        return self.packer.single_lengths(kept)

    def batch(self, kept: ItemTokens, rows: Rows, pictures: Tensor | None) -> TokenBatch:  # noqa: ARG002
        """See ``ItemReader``."""
        return self.packer.singles(kept, rows).tokens
