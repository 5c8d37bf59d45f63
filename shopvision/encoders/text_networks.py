"""Text networks of transformers: built from their configuration; and how their outputs become one vector."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from shopvision.errors import UserError

StatePooling = Literal["mean", "cls"]
Pooling = Literal["mean", "cls", "pooler"]


def build_text(config: dict[str, Any]) -> nn.Module:
    """The encoder of a transformers configuration, float32, in evaluation mode, weights still random.

    Args:
        config: a transformers configuration with its ``model_type``. With ``"add_pooling_layer": False`` the encoder
            has no pooler, so that one that is read through other outputs has no weights without a gradient.

    Raises:
        UserError: transformers has no such architecture, or refuses the configuration.
    """
    import transformers

    auto_model: Any = transformers.AutoModel  # unannotated there

    arguments = dict(config)
    model_type = arguments.pop("model_type", None)
    has_pooler = arguments.pop("add_pooling_layer", True)
    try:
        network: nn.Module = auto_model.from_config(
            transformers.AutoConfig.for_model(model_type, **arguments), dtype=torch.float32
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"transformers cannot build the text encoder '{model_type}': {reason}.") from None
    if not has_pooler:
        drop_pooler(network)
    return network.eval()


def is_plain_bert(network: nn.Module) -> bool:
    """Whether an encoder has the layers of BERT, and each of its tokens attends to all: BERT, RoBERTa, XLM-R."""
    config: Any = getattr(network, "config", None)
    return getattr(config, "model_type", None) in {"bert", "roberta", "xlm-roberta"} and not config.is_decoder


def drop_pooler(network: nn.Module) -> None:
    """Leave an encoder without its pooler, as ``add_pooling_layer=False`` does, which not every architecture takes."""
    if getattr(network, "pooler", None) is not None:
        network.pooler = None  # type: ignore[assignment] # what transformers itself sets


def pool(outputs: Any, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector per text.

    Args:
        outputs: what a transformers encoder returns: ``last_hidden_state`` (n, L, d), ``pooler_output`` (n, d).
        attention_mask: (n, L), 1 on tokens, 0 on padding.
        pooling: ``mean`` of the tokens, the first token (``cls``), or the encoder's own ``pooler``.

    Returns:
        (n, d), not normalised.
    """
    if pooling == "pooler":
        return outputs.pooler_output  # type: ignore[no-any-return] # transformers is untyped
    return pool_states(outputs.last_hidden_state, attention_mask, pooling)


def pool_states(states: Tensor, attention_mask: Tensor, pooling: StatePooling) -> Tensor:
    """As ``pool``, of a layer's states (n, L, d)."""
    if pooling == "cls":
        return states[:, 0]
    mask = attention_mask.unsqueeze(-1).to(states.dtype)
    return (states * mask).sum(1) / mask.sum(1)
