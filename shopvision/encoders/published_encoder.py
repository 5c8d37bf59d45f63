"""Encoders of the published fashion search: a Swin of transformers 4, pooled, and a linear layer ``embedding_layer``.

A folder or hub repository holds ``model.safetensors`` with flat names (``swin.*``, ``embedding_layer.*``), the
configuration of the Swin and that of its image processor. The processor gives mean and standard deviation alone:
the published code squashes pictures to the input size with a bilinear filter, whatever the processor says. Older
trainings left a plain ``image_encoder.pt`` of a Swin-B, mostly without the other files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from shopvision.encoders.model_place import ModelPlace, parse_place
from shopvision.encoders.projected_network import ProjectedArguments, build_projected, save_projected
from shopvision.encoders.transformers_4_names import present_name
from shopvision.encoders.transformers_images import MODEL_TYPES, network_config
from shopvision.encoders.unreadable import cannot_load
from shopvision.errors import UserError
from shopvision.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from shopvision.models.card import WEIGHTS_FILE, Architecture, ModelCard, as_folder_name
from shopvision.models.weights import load_strictly, read_tensors, read_torch_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

OLDER_WEIGHTS_FILE = "image_encoder.pt"
_CONFIG_FILE, _PROCESSOR_FILE = "config.json", "preprocessor_config.json"
_HEAD = "embedding_layer"
_SWIN_B: Mapping[str, Any] = {
    "model_type": "swin", "image_size": 224, "patch_size": 4, "embed_dim": 128, "depths": [2, 2, 18, 2],
    "num_heads": [4, 8, 16, 32], "window_size": 7,
}  # fmt: skip
_IMAGENET: Mapping[str, Any] = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}


def import_encoder(source: str, folder: Path) -> ModelCard:
    """Turn a published encoder into a model version in ``folder``.

    Args:
        source: ``local-dir:DIR`` or ``hf-hub:ORG/NAME[@revision]``.
        folder: gets the files and the card.

    Raises:
        UserError: unknown source, unreachable hub, a file that is missing or damaged, or another kind of network.
        JobError: names the first tensor that is missing, left over or of another shape.
    """
    place = parse_place(source, "Encoder")
    files = _fetch(place)
    is_older = not (files / WEIGHTS_FILE).is_file()
    tensors = read_torch_tensors(files / OLDER_WEIGHTS_FILE) if is_older else read_tensors(files / WEIGHTS_FILE)
    config = _read_json(files / _CONFIG_FILE, _SWIN_B if is_older else None)
    processor = _read_json(files / _PROCESSOR_FILE, _IMAGENET if is_older else None)
    name = str(config.get("model_type"))
    if name not in MODEL_TYPES:
        raise UserError(f"{place.said} is a network of the type '{name}': there are {' and '.join(MODEL_TYPES)}.")
    head = tensors.get(f"{_HEAD}.weight")
    if head is None or head.ndim != 2:
        raise UserError(f"{place.said}: tensor '{_HEAD}.weight' is missing: this is no encoder with a projection.")
    backbone = Architecture(library="transformers", name=name, arguments={"config": network_config(config)})
    network = build_projected(ProjectedArguments(backbone=backbone, dimension=head.shape[0]))
    load_strictly(network, _renamed(tensors, f"{name}."), place.said)
    return save_projected(
        folder,
        network,
        _preprocessing(config, processor, place.said),
        name=as_folder_name(place.name),
        source=f"encoder:{place.said}",
    )


def _fetch(place: ModelPlace) -> Path:
    """The folder with the files, downloaded where they are on the hub."""
    names = [_CONFIG_FILE, _PROCESSOR_FILE, WEIGHTS_FILE, OLDER_WEIGHTS_FILE]
    if place.is_folder:
        files = Path(place.place)
    else:
        from huggingface_hub import snapshot_download

        try:
            files = Path(snapshot_download(place.place, revision=place.revision, allow_patterns=names))
        except Exception as error:  # noqa: BLE001 - the hub's client raises errors of several libraries
            mend = "Check the name and the network, or use local-dir:DIR."
            raise cannot_load(place.said, error, place.place, place.revision, mend) from None
    if not any((files / name).is_file() for name in (WEIGHTS_FILE, OLDER_WEIGHTS_FILE)):
        raise UserError(f"{place.said} holds neither {WEIGHTS_FILE} nor {OLDER_WEIGHTS_FILE}: name another folder.")
    return files


def _read_json(path: Path, default: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if default is not None and not path.is_file():
        return default
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path.parent} holds no {path.name}: copy it from where the weights came from.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON ({error}): copy it anew.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is no JSON object: copy it anew.")
    return values


def _renamed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """In the names of ``ProjectedNetwork``; what is in neither layout keeps its name."""
    renamed = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if name.startswith(prefix):
            present = present_name(rest)
            if present is not None:
                renamed[f"backbone.network.{present}"] = tensor
        else:
            renamed[f"projection.{rest}" if part == _HEAD else name] = tensor
    return renamed


def _preprocessing(config: Mapping[str, Any], processor: Mapping[str, Any], where: str) -> Preprocessing:
    size = config.get("image_size", 224)
    try:
        return Preprocessing(
            size=(size, size) if isinstance(size, int) else size,
            interpolation="bilinear",
            resize_mode="squash",
            mean=processor.get("image_mean"),
            std=processor.get("image_std"),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: preprocessing with {first['loc'][0]} {first['input']!r} is not supported.") from None
