"""Which weights learn how fast: pretrained submodules by layer, then what stands on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from shopvision.matching.families.towers import layer_depths

if TYPE_CHECKING:
    from torch import nn


def parameter_groups(
    network: nn.Module,
    encoders: Iterable[str],
    *,
    lr: float,
    lr_head: float,
    betas: tuple[float, float] = (0.9, 0.999),
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """AdamW's groups; biases and norms without weight decay, and without what stays as it is.

    Args:
        network: what is trained.
        encoders: names of its pretrained submodules.
        lr: of these.
        lr_head: of all else.
        betas: of AdamW.
        layer_decay: factor of ``lr`` from each layer of an encoder to the one below.
    """
    rates: dict[str, float] = {}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    inside = set()
    for encoder in map(network.get_submodule, encoders):
        depths = layer_depths(encoder)
        for name, weight in encoder.named_parameters():
            inside.add(weight)
            below = max(depths.values()) - depths[name] if layer_decay < 1 else 0
            part = "encoder" if not below else f"encoder_{below}_below"
            rates[part] = lr * layer_decay**below
            groups.setdefault((part, weight.ndim > 1), []).append(weight)
    for weight in network.parameters():
        if weight not in inside:
            rates["head"] = lr_head
            groups.setdefault(("head", weight.ndim > 1), []).append(weight)
    return [
        {
            "name": part,
            "lr": rates[part],
            "betas": betas,
            "params": trained,
            **({} if decays else {"weight_decay": 0.0}),
        }
        for (part, decays), weights in groups.items()
        if (trained := [weight for weight in weights if weight.requires_grad])
    ]
