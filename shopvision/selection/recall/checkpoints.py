"""Checkpoints of the published recall model (youyuge34/AutoImageSelection, ``align_model.pth``).

A file is ``{"state_dict": tensors, ...}``: an EfficientNet-B3 of ``efficientnet_pytorch`` with its own classifier, a
linear layer behind it, a BERT cut to its first layers, a linear layer behind its first token, the scale, and what the
knowledge graph left: a table of relations and its projection. Pictures are squashed to 224 x 224.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from shopvision.encoders.fixed_padding import NAME as FIXED_PADDING
from shopvision.encoders.fixed_padding import FixedPaddingArguments
from shopvision.errors import UserError
from shopvision.graph.relations import Relation
from shopvision.images.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.weights import load_strictly, read_torch_file
from shopvision.selection.recall.card import RecallArguments, build_recall, save_recall

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# In the order of their rows: has_cate, has_image, has_title.
PUBLISHED_RELATIONS: tuple[Relation, ...] = ("has_category", "has_picture", "has_title")
PREPROCESSING = Preprocessing(
    size=(224, 224), interpolation="bilinear", resize_mode="squash", mean=IMAGENET_MEAN, std=IMAGENET_STD
)
# efficientnet_pytorch pads B3 for pictures of 300 x 300, whatever it is given.
_IMAGE = FixedPaddingArguments(
    network=Architecture(name="tf_efficientnet_b3", arguments={"num_classes": 0, "drop_rate": 0.3}), size=300
)
_STAGES = (2, 3, 3, 5, 5, 6, 2)
_HEAD_WIDTH = 64  # of BERT's attention heads, in all its sizes

_PARTS = {
    "image_model._fc": "image.head.linear",
    "image_hidden_layer": "image.head.second",
    "text_hidden_layer": "text.head.linear",
    "relations_emb": "relations.embedding",
    "linear_relation": "relations.projection",
    "image_model._conv_stem": "image.network.conv_stem",
    "image_model._bn0": "image.network.bn1",
    "image_model._conv_head": "image.network.conv_head",
    "image_model._bn1": "image.network.bn2",
}
_EVERY_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
}
_FIRST_STAGE = _EVERY_BLOCK | {"_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LATER_STAGES = _EVERY_BLOCK | {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_BLOCK = re.compile(r"image_model\._blocks\.(\d+)\.(\w+)\.(\w+)")
# The numbers 0, 1, 2, ..., and a layer that nothing reads.
_LEFTOVERS = {
    "text_model.embeddings.position_ids", "text_model.pooler.dense.weight", "text_model.pooler.dense.bias",
}  # fmt: skip


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors in the names of ``DualTower``, without leftovers; what is in neither layout keeps its name."""
    return {_name(name): tensor for name, tensor in tensors.items() if name not in _LEFTOVERS}


def arguments_of(tensors: Mapping[str, Tensor], where: str) -> RecallArguments:
    """What a dual tower of published tensors is built from, as their shapes say.

    Args:
        tensors: in published names.
        where: they come from, for messages.

    Raises:
        UserError: one that decides the shape is missing.
    """

    def shape(name: str) -> tuple[int, ...]:
        tensor = tensors.get(name)
        if tensor is None or tensor.ndim != 2:
            raise UserError(f"{where} is no published recall model: tensor '{name}' is missing.")
        return tuple(tensor.shape)

    dimension, hidden = shape("text_hidden_layer.weight")
    vocabulary, _ = shape("text_model.embeddings.word_embeddings.weight")
    positions, _ = shape("text_model.embeddings.position_embeddings.weight")
    types, _ = shape("text_model.embeddings.token_type_embeddings.weight")
    intermediate, _ = shape("text_model.encoder.layer.0.intermediate.dense.weight")
    layers = {name.split(".")[3] for name in tensors if name.startswith("text_model.encoder.layer.")}
    config: dict[str, Any] = {
        "model_type": "bert", "vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, hidden // _HEAD_WIDTH), "intermediate_size": intermediate,
        "max_position_embeddings": positions, "type_vocab_size": types, "add_pooling_layer": False,
    }  # fmt: skip
    has_graph = "relations_emb.weight" in tensors
    return RecallArguments(
        text_config=config,
        pooling="cls",
        image=Architecture(library="shopvision", name=FIXED_PADDING, arguments=_IMAGE.model_dump(mode="json")),
        dimension=dimension,
        image_head="two_linear" if "image_hidden_layer.weight" in tensors else "linear",
        scale="plain",
        max_length=min(50, positions),
        relations=PUBLISHED_RELATIONS if has_graph else (),
        relation_width=shape("relations_emb.weight")[1] if has_graph else 1,
    )


def import_checkpoint(path: Path, folder: Path, *, vocabulary: Path | None = None) -> ModelCard:
    """Turn a published checkpoint into a model version in ``folder``.

    Args:
        path: the checkpoint.
        folder: gets the files and the card.
        vocabulary: ``vocab.txt`` of its BERT, a word piece a line, which the checkpoint does not hold.

    Raises:
        UserError: the file is no such checkpoint, or the vocabulary is missing or another one's.
        JobError: names the first tensor that is missing, left over or of another shape.
    """
    state = read_torch_file(path)
    tensors = state.get("state_dict") if isinstance(state, Mapping) else None
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise UserError(f"{path} is no published recall model: it has no tensors under 'state_dict'.")
    if vocabulary is None:
        raise UserError(f"{path} does not hold the words of its BERT: give `--option vocabulary=vocab.txt`.")
    arguments = arguments_of(tensors, str(path))
    tokenizer = read_vocabulary(vocabulary, arguments.text_config["vocab_size"])
    network = build_recall(arguments)
    load_strictly(network, renamed(tensors), str(path))
    return save_recall(folder, network, arguments, tokenizer, PREPROCESSING, name="align", source=f"align:{path.name}")


def read_vocabulary(path: Path, size: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a bare ``vocab.txt``: BERT's, which puts all in lower case and takes accents away.

    Args:
        path: the file.
        size: how many word pieces the network knows.

    Raises:
        UserError: the file cannot be read, or holds another number of pieces.
    """
    from transformers import BertTokenizer

    try:
        pieces = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"{path} cannot be read ({reason}): name the vocab.txt of the model's BERT.") from None
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    if len(vocabulary) != size:
        raise UserError(f"{path} holds {len(vocabulary):,} word pieces, the model knows {size:,}: name its own file.")
    tokenizer: PreTrainedTokenizerFast = BertTokenizer(vocab=vocabulary, do_lower_case=True)
    return tokenizer


def _name(name: str) -> str:
    """The name in ``DualTower``."""
    if found := _BLOCK.fullmatch(name):
        number, part, rest = int(found[1]), found[2], found[3]
        for stage, depth in enumerate(_STAGES):
            if number < depth:
                inside = (_LATER_STAGES if stage else _FIRST_STAGE).get(part)
                return name if inside is None else f"image.network.blocks.{stage}.{number}.{inside}.{rest}"
            number -= depth
        return name
    part, _, rest = name.rpartition(".")
    if part in _PARTS:
        return f"{_PARTS[part]}.{rest}"
    return f"text.network.{name.removeprefix('text_model.')}" if name.startswith("text_model.") else name
