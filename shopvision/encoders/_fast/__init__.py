"""Fast paths of encoders behind one switch, each beside a plain path that gives the same numbers.

Those of text encoders rely on how torch and transformers look inside, so they are taken with the versions that they
were tested with; with others, and with ``SHOPVISION_FAST_PATHS=false``, networks run as their libraries made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import structlog
import torch
from torch import nn

from shopvision.encoders._fast.bert_on_cpu import tune_for_cpu
from shopvision.encoders._fast.first_token import compute_first_token_alone
from shopvision.encoders._fast.folding import fold_batch_norm
from shopvision.settings import get_settings

log = structlog.get_logger(__name__)

TESTED_WITH = {"torch": "2.13", "transformers": "5.23"}


def accelerate_image_network(network: nn.Module, size: tuple[int, int]) -> None:
    """Make a network of pictures faster, for inference alone.

    Args:
        network: float32, on the CPU, in evaluation mode; changed in place.
        size: (height, width) of its input, pixels.
    """
    if get_settings().fast_paths:
        fold_batch_norm(network, torch.zeros(1, 3, *size).uniform_(-1, 1))


def accelerate_text_encoder(network: nn.Module, *, pooling: str = "mean", layers: Sequence[int] = ()) -> None:
    """Make a text encoder faster, for inference alone; its weights can no longer be saved.

    Args:
        network: where it will run, in the dtype it will compute in; changed in place. Encoders that no fast path knows
            stay as they are.
        pooling: what is read of a layer: of ``cls`` the first token alone.
        layers: which layers are read, counted from the top.
    """
    if get_settings().fast_paths and _has_tested_versions():
        compute_first_token_alone(network, pooling=pooling, layers=layers)
        tune_for_cpu(network)


def _has_tested_versions() -> bool:
    installed = {library: version(library) for library in TESTED_WITH}
    unknown = {
        library: found for library, found in installed.items() if not found.startswith(f"{TESTED_WITH[library]}.")
    }
    if unknown:
        log.warning("text encoders take no fast paths: not tested with these versions", **unknown)
    return not unknown
