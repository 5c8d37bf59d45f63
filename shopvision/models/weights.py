"""Building networks and filling them with weights, strictly: nothing is ever left at its random initial value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopvision.errors import JobError, UserError
from shopvision.models.card import WEIGHTS_FILE, Architecture, ModelCard

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy ``tensors`` into ``network``: same names, same shapes, nothing missing, nothing left over.

    Raises:
        JobError: names the first tensor that does not fit; the network is unchanged.
    """
    expected = network.state_dict()
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise JobError(f"{where}: tensor '{missing[0]}' is missing ({len(missing)} in all). Import the right weights.")
    extra = [name for name in tensors if name not in expected]
    if extra:
        raise JobError(
            f"{where}: tensor '{extra[0]}' is not in the architecture ({len(extra)} in all). Check its name."
        )
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise JobError(
                f"{where}: tensor '{name}' has the shape {list(tensors[name].shape)}, the architecture wants "
                f"{list(tensor.shape)}. Check the architecture's arguments."
            )
    network.load_state_dict(tensors)


def build_timm(architecture: Architecture) -> nn.Module:
    """The network of a timm architecture, in evaluation mode, weights still random.

    Raises:
        UserError: timm has no such architecture, or refuses the arguments.
    """
    import timm

    if architecture.library != "timm" or not timm.is_model(architecture.name):
        raise UserError(
            f"'{architecture.name}' is not a timm architecture of this installation. Check the card, or update timm."
        )
    try:
        network: nn.Module = timm.create_model(architecture.name, pretrained=False, **architecture.arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"timm cannot build '{architecture.name}' with {architecture.arguments}: {error}.") from None
    return network.eval()


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a ``.safetensors`` file.

    Raises:
        JobError: the file is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise JobError(f"{path} cannot be read as safetensors: {error}.") from None


def load_network(folder: Path, card: ModelCard) -> nn.Module:
    """The network of a model version with its weights, float32 on CPU, in evaluation mode.

    Raises:
        UserError: unknown architecture.
        JobError: the weights do not fit it exactly.
    """
    network = build_timm(card.architecture)
    load_strictly(network, read_tensors(folder / WEIGHTS_FILE), f"{card.spec}, {WEIGHTS_FILE}")
    return network
