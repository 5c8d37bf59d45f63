"""Folding BatchNorm into the convolution before it: the same function of the input with one pass less over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# float32 rounding through a hundred layers stays far below this; a wrong fold is far above.
TOLERANCE = 1e-3


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output goes straight into a BatchNorm, in the order in which they run.

    Found by watching one forward pass, because architectures are not all traceable.
    """
    outputs: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_convolution(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs[id(output)] = (module, output)  # type: ignore[assignment] # hooks stand on Conv2d only; keeping the tensor keeps its id

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if found := outputs.get(id(inputs[0])):
            pairs.append((found[0], module))  # type: ignore[arg-type] # hooks stand on BatchNorm2d only

    handles = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(after_convolution))
        elif isinstance(module, nn.BatchNorm2d):
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        network(example)
    finally:
        for handle in handles:
            handle.remove()
    times = [id(module) for pair in pairs for module in pair]
    return [pair for pair in pairs if all(times.count(id(module)) == 1 for module in pair)]


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a norm layer without its scale and shift: timm's also holds dropout and activation."""
    parts = [part for name in ("drop", "act") if isinstance(part := getattr(norm, name, None), nn.Module)]
    parts = [part for part in parts if not isinstance(part, nn.Identity)]
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts)


@torch.no_grad()
def fold_batch_norm(network: nn.Module, example: Tensor) -> int:
    """Fold every BatchNorm that directly follows a convolution; in place, evaluation mode only.

    Args:
        network: float32, in evaluation mode.
        example: float32 input (1, 3, H, W); the fold is checked on it.

    Returns:
        How many were folded; 0 where the network has none, or where folding would change its output (then it is
        left as it was). A pair whose folded weights would not be finite stays as it is, whether or not the example
        shows it.
    """
    before = network(example)
    if not torch.isfinite(before).all():  # there is nothing to check the fold with
        return 0
    names = {id(module): name for name, module in network.named_modules()}
    replaced: list[tuple[str, nn.Module]] = []
    for convolution, norm in _pairs(network, example):
        if norm.running_mean is None or norm.running_var is None:
            continue
        fused = fuse_conv_bn_eval(convolution, norm)
        if not all(torch.isfinite(weight).all() for weight in fused.parameters()):
            continue
        for module, replacement in ((convolution, fused), (norm, _rest(norm))):
            replaced.append((names[id(module)], module))
            network.set_submodule(names[id(module)], replacement)
    if torch.allclose(network(example), before, rtol=TOLERANCE, atol=TOLERANCE * float(before.abs().max())):
        return len(replaced) // 2
    for name, original in replaced:
        network.set_submodule(name, original)
    return 0
