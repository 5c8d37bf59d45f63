"""The published thumbnail classifier ``classifier.pt``: a ViT of transformers 4 (``vit.*``), a linear layer ``fc``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from shopvision.encoders.transformers_4_names import present_name
from shopvision.errors import UserError
from shopvision.fashion.thumbnails.card import save_classifier
from shopvision.fashion.thumbnails.network import ClassifierArguments, build_classifier
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.weights import load_strictly, read_torch_tensors

if TYPE_CHECKING:
    from torch import Tensor

LABELS = ("bag", "bottom", "dress", "hat", "outer", "shoes", "top", "etc")
# Of every ViT from the smallest to the large one.
_HEAD_WIDTH = 64
_PATCHES, _POSITIONS = "vit.embeddings.patch_embeddings.projection.weight", "vit.embeddings.position_embeddings"
_INNER = "vit.encoder.layer.0.intermediate.dense.weight"


def import_classifier(file: str, folder: Path, *, labels: str | None = None) -> ModelCard:
    """Turn a published classifier into a model version in ``folder``.

    Args:
        file: the state dictionary; only tensors are read, never code.
        folder: gets the files and the card.
        labels: the classes in their order, with commas between; by default those that were published.

    Raises:
        UserError: the file is no such classifier, or has another number of classes.
        JobError: names the first tensor that is missing, left over or of another shape.
    """
    path = Path(file).expanduser()
    tensors = read_torch_tensors(path)
    names = LABELS if labels is None else tuple(label.strip() for label in labels.split(","))
    config = _config(tensors, path)
    if len(tensors["fc.weight"]) != len(names):
        raise UserError(
            f"{path} tells {len(tensors['fc.weight'])} classes apart, not {len(names)}: give "
            "`--option labels=FIRST,SECOND,...` in the order that it was trained with."
        )
    try:
        arguments = ClassifierArguments(
            backbone=Architecture(library="transformers", name="vit", arguments={"config": config}),
            labels=names,
            unit_features=False,
        )
    except ValidationError as error:
        raise UserError(
            f"--option labels={labels}: {error.errors()[0]['msg'].removeprefix('Value error, ')}."
        ) from None
    network = build_classifier(arguments)
    load_strictly(network, {_present(name): tensor for name, tensor in tensors.items()}, str(path))
    side = config["image_size"]
    return save_classifier(
        folder,
        network,
        Preprocessing(size=(side, side), interpolation="bilinear", resize_mode="squash"),
        name="thumbnail-classifier",
        source=f"classifier:{path.name}",
    )


def _config(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """The configuration of the ViT, read from the shapes of its tensors."""
    for name, dimensions in ((_PATCHES, 4), (_POSITIONS, 3), (_INNER, 2), ("fc.weight", 2)):
        if name not in tensors or tensors[name].ndim != dimensions:
            raise UserError(f"{path} is no published thumbnail classifier: tensor '{name}' is missing.")
    hidden, _, patch, _ = tensors[_PATCHES].shape
    layers = {name.split(".")[3] for name in tensors if name.startswith("vit.encoder.layer.")}
    return {
        "image_size": patch * math.isqrt(tensors[_POSITIONS].shape[1] - 1),
        "patch_size": patch,
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, hidden // _HEAD_WIDTH),
        "intermediate_size": tensors[_INNER].shape[0],
    }


def _present(name: str) -> str:
    """In the names of ``ClassifierNetwork``; what is not in the layout keeps its name."""
    part, _, rest = name.partition(".")
    if part == "vit":
        return f"backbone.network.{present_name(rest)}"
    return f"head.{rest}" if part == "fc" else name
