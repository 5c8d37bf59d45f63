"""How many tokens a text encoder holds, as its position table and its tokenizer say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from shopvision.encoders.text_networks import build_text
from shopvision.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# What transformers calls tables with one row for each position. Those of distances between tokens have other names.
_POSITION_TABLES = {"position_embeddings", "position_embedding", "embed_positions", "wpe"}


def token_limit(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> int:
    """Most tokens of one text, special ones included; 10 to the 30th where neither encoder nor tokenizer has a limit.

    Args:
        config: of the encoder, for ``build_text``.
        tokenizer: of the encoder.

    Raises:
        UserError: transformers has no such architecture, or refuses the configuration.
    """
    positions = _positions(json.dumps(config, sort_keys=True))
    longest: int = tokenizer.model_max_length
    return longest if positions is None else min(positions, longest)


def require_room(max_length: int, config: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise ``UserError`` where ``max_length`` tokens are more than the encoder holds."""
    limit = token_limit(config, tokenizer)
    if max_length > limit:
        raise UserError(f"max_length {max_length} is more than the encoder's {limit} tokens: use {limit} or fewer.")


def positions_of(network: nn.Module) -> int | None:
    """Most tokens that an encoder can tell the places of; None where it looks at distances alone (T5, DeBERTa, RoPE).

    A table with a padding row counts positions from the row after it: RoBERTa and its kin, MPNet. Others leave out as
    many rows as their ``offset`` says (BART), or have fewer ``position_ids`` than rows beside them (YOSO).
    """
    limits = []
    for name, module in network.named_modules():
        place, _, last = name.rpartition(".")
        if isinstance(module, nn.Embedding) and last in _POSITION_TABLES:
            first = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - first)
            used = getattr(network.get_submodule(place), "position_ids", None)
            limits += [] if used is None else [used.shape[-1]]
    return min(limits, default=None)


@lru_cache(maxsize=32)
def _positions(config: str) -> int | None:
    with torch.device("meta"):  # the layers without their weights, in milliseconds
        network = build_text(json.loads(config))
    return positions_of(network)
