"""Checkpoints of the published CLIK code (iloveslowfood/CLIK): both of its layouts, with and without ``module.``.

A file is a training state ``{epoch, model, ...}`` or, as ``weights_*``, ``{model, feature_dim, queue_size,
backbone_img, backbone_txt, img_h, img_w, txt_max_length}``. The published code reads pictures squashed to the input
size and normalised with the statistics of ImageNet, also for networks that were pretrained with others; weights trained
so want it so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from shopvision.encoders.text_sources import fetch_text
from shopvision.errors import UserError
from shopvision.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.weights import load_strictly, read_torch_file
from shopvision.selection.clik.card import ClikArguments, build_clik, save_clik

# Of the revision e6b17c0 in the names of master.
_MASTER_NAMES = {"enc_context": "txt_encoder", "enc_instance": "img_encoder", "inst_queue": "memory_bank"}
# Written by transformers of that time; the numbers 0, 1, 2, ...
_LEFTOVERS = {"txt_encoder.enc.embeddings.position_ids"}
_OLD_TIMM_NAMES = {
    "vit_tiny_patch16_224_in21k": "vit_tiny_patch16_224.augreg_in21k",
    "vit_small_patch16_224_in21k": "vit_small_patch16_224.augreg_in21k",
    "vit_small_patch32_224_in21k": "vit_small_patch32_224.augreg_in21k",
    "vit_base_patch16_224_in21k": "vit_base_patch16_224.augreg_in21k",
    "vit_base_patch32_224_in21k": "vit_base_patch32_224.augreg_in21k",
}


class _Hyperparameters(BaseModel):
    """What a ``weights_*`` file says beside its tensors; of a training state only the bank's shape is known."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    feature_dim: int = Field(gt=0)
    queue_size: int = Field(gt=0)
    backbone_img: str | None = None
    backbone_txt: str | None = None
    img_h: int = Field(224, gt=0)
    img_w: int = Field(224, gt=0)
    txt_max_length: int = 128


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint with its tensors in the names of ``Clik``."""

    path: Path
    tensors: dict[str, Tensor]
    hyperparameters: _Hyperparameters


def rename_tensor(name: str) -> str:
    """Name of a published tensor in ``Clik``; one that is in neither layout keeps its name."""
    part, dot, rest = name.removeprefix("module.").partition(".")
    return f"{_MASTER_NAMES.get(part, part)}{dot}{rest}"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of the published code. Only tensors and plain values are read, never code.

    Raises:
        UserError: no such file, or it is no CLIK checkpoint.
    """
    state = read_torch_file(path)
    stored = state.get("model") if isinstance(state, Mapping) else None
    if not isinstance(stored, Mapping) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
        raise UserError(f"{path} is no CLIK checkpoint: it has no tensors under 'model'.")
    tensors = {rename_tensor(name): tensor for name, tensor in stored.items()}
    for leftover in _LEFTOVERS & tensors.keys():
        del tensors[leftover]
    bank = tensors.get("memory_bank")
    if bank is None or bank.ndim != 2:
        raise UserError(f"{path} is no CLIK checkpoint: tensor 'memory_bank' (or 'inst_queue') is missing.")
    rows, dimension = bank.shape
    try:
        said = _Hyperparameters.model_validate({"queue_size": rows, "feature_dim": dimension} | _plain(state))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {first['loc'][0]} {first['input']!r}: {first['msg']}.") from None
    return Checkpoint(path, tensors, said)


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name in _Hyperparameters.model_fields}


def import_checkpoint(path: Path, folder: Path, *, text: str | None = None, image: str | None = None) -> ModelCard:
    """Turn a published checkpoint into a model version in ``folder``.

    Args:
        path: the checkpoint.
        folder: gets the files and the card.
        text: where configuration and tokenizer of the text encoder come from, see ``fetch_text``; its weights are
            replaced. By default the hub repository that the checkpoint names.
        image: timm name of the image encoder; by default the one that the checkpoint names.

    Raises:
        UserError: the file is no checkpoint, or names no encoders and none are given.
        JobError: names the first tensor that does not fit.
    """
    checkpoint = read_checkpoint(path)
    said = checkpoint.hyperparameters
    image = image or said.backbone_img
    text = text or (f"hf-hub:{said.backbone_txt}" if said.backbone_txt else None)
    if text is None or image is None:
        raise UserError(
            f"{path} does not say which encoders it was trained with: give `--option text=SOURCE` and `--option "
            "image=NAME`."
        )
    encoder = fetch_text(text)
    arguments = ClikArguments(
        text_config=encoder.config | {"add_pooling_layer": True},
        pooling="pooler",
        image=Architecture(name=_OLD_TIMM_NAMES.get(image, image), arguments={"num_classes": 0}),
        feature_dim=said.feature_dim,
        bank_size=said.queue_size,
        max_length=said.txt_max_length,
        season_language="ko",
    )
    clik = build_clik(arguments)
    load_strictly(clik, checkpoint.tensors, str(path))
    return save_clik(
        folder,
        clik,
        arguments,
        encoder.tokenizer,
        Preprocessing(
            size=(said.img_h, said.img_w),
            interpolation="bilinear",
            resize_mode="squash",
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
        name="clik",
        source=f"clik:{path.name}",
    )
