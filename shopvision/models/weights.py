"""Weights in files and networks, strictly: nothing is ever left at its random initial value."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopvision.errors import JobError, UserError

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy ``tensors`` into ``network``: same names, same shapes, nothing missing, nothing left over, all finite.

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
    weights = {name for name, _ in network.named_parameters()}
    for name in expected:
        # A buffer may mask by infinity; a weight may not, and what is no number gives nothing but such.
        if not bool(tensors[name].isfinite().all() if name in weights else not tensors[name].isnan().any()):
            raise JobError(
                f"{where}: tensor '{name}' holds numbers that are not finite. Import weights that were saved whole."
            )
    network.load_state_dict(tensors)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file.

    Raises:
        JobError: the file is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise JobError(f"{path} cannot be read as safetensors ({error}): copy it anew.") from None


def read_torch_file(path: Path) -> Any:
    """What ``torch.save`` wrote: tensors and plain values, never code.

    Raises:
        UserError: no such file, or it is none of these.
    """
    import torch

    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's own words advise to trust the file
        raise UserError(
            f"{path} cannot be read as a checkpoint of plain tensors: it is no file of torch.save, or holds more than "
            "tensors and plain values. Save the network's state_dict() alone."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise UserError(f"{path} cannot be read as a checkpoint of plain tensors: {reason}.") from None


def read_torch_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a plain state dictionary that ``torch.save`` wrote.

    Raises:
        UserError: see ``read_torch_file``, or something else is in it.
    """
    from torch import Tensor

    state = read_torch_file(path)
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} holds more than the tensors of a network by name: save its state_dict() alone.")
    return dict(state)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as ``.safetensors``; floating point as float32."""
    from safetensors.torch import save_file

    detached = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    save_file(
        # Copies: networks share tensors among their layers, files do not.
        {
            name: (tensor.float() if tensor.is_floating_point() else tensor).clone().contiguous()
            for name, tensor in detached.items()
        },
        path,
    )
