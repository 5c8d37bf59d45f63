"""A pair model as a model version: card, ``model.safetensors`` and, where it reads text, the tokenizer's two files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from shopvision.encoders.text_backbone import fetch_text
from shopvision.encoders.tokenizer_files import read_tokenizer, tokenizer_files
from shopvision.errors import UserError
from shopvision.evaluation.calibration import check_thresholds
from shopvision.images.preprocessing import Preprocessing
from shopvision.items.category_statistics import CategoryStatistics
from shopvision.items.item_texts import TextBuilder
from shopvision.matching.families._family import (
    FAMILIES,
    MatcherArguments,
    build_frozen_image,
    build_matcher,
    find_family,
    image_dimension,
)
from shopvision.matching.families.axes import Axes
from shopvision.matching.families.packing import Packer
from shopvision.matching.families.towers import OneTower, TwoTower
from shopvision.models import version_folder
from shopvision.models.card import CARD_FILE, WEIGHTS_FILE, Architecture, ModelCard
from shopvision.models.version_folder import read_arguments, weights_file, write_version
from shopvision.models.weights import load_strictly, read_tensors

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "KIND", "LoadedMatcher", "MatcherArguments", "load_matcher", "make_item_encoder", "make_packer",
    "read_card", "save_matcher",
]  # fmt: skip

KIND = "pair_scorer"
# In model.safetensors, of the image encoder that is no part of the network.
_FROZEN = "frozen_image."
# Of item encoders: what the encoder wants before a text, scale and shift. Fitted to 800 labelled pairs, most of them
# hard, and 1,200 random ones, of offers for electronics, shoes, computers and beer.
_COSINES = {"wheel:minilm": ("", 9.0, -8.5), "wheel:e5-small": ("query:", 50.0, -47.5)}
_OTHER_COSINES = ("", 9.0, -8.5)
_ENCODER_LENGTH = 128


@dataclass(frozen=True)
class LoadedMatcher:
    """A pair model ready to run: float32, CPU, evaluation mode.

    Attributes:
        network: scores pairs or encodes items.
        card: of the model version.
        arguments: what it was built from.
        packer: makes its sequences; None where it reads no text.
        preprocessing: of its pictures; None where it reads none.
        image_encoder: the frozen timm network without classifier whose features of unit length ``network`` reads; None
            where pictures are not read, or ``network`` reads pixels itself.
    """

    network: OneTower | TwoTower
    card: ModelCard
    arguments: MatcherArguments
    packer: Packer | None
    preprocessing: Preprocessing | None
    image_encoder: nn.Module | None


def make_packer(arguments: MatcherArguments, tokenizer: PreTrainedTokenizerFast) -> Packer:
    """The packer that goes with a network of these arguments.

    Raises:
        UserError: the length is impossible, the tokenizer lacks a special token, or the builder lacks statistics.
    """
    config = arguments.text_config or {}
    positions = config.get("max_position_embeddings", arguments.max_length)
    if arguments.max_length > positions:
        raise UserError(f"max_length {arguments.max_length} is more than the encoder's {positions} positions.")
    statistics = None if arguments.statistics is None else CategoryStatistics.from_json(arguments.statistics)
    return Packer(
        tokenizer,
        TextBuilder(
            arguments.builder,
            statistics=statistics,
            segmenter=arguments.segmenter,
            compare_codes=arguments.compare_codes,
        ),
        max_length=arguments.max_length,
        token_types=config.get("type_vocab_size", 1),
        image_token=find_family(arguments.family).frozen_image,
        prefix=arguments.text_prefix,
    )


def save_matcher(
    folder: Path,
    network: OneTower | TwoTower,
    arguments: MatcherArguments,
    tokenizer: PreTrainedTokenizerFast | None,
    preprocessing: Preprocessing | None,
    *,
    name: str,
    source: str,
    calibration: dict[str, Any],
    thresholds: dict[str, float],
    image_encoder: nn.Module | None = None,
    tag: str | None = None,
    **card_fields: Any,
) -> ModelCard:
    """Write a model version, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: made where it is missing.
        network: built from ``arguments``.
        arguments: what ``build_matcher`` needs.
        tokenizer: of the text encoder, where the family reads text.
        preprocessing: how pictures become input, where it reads pictures.
        name: of the model.
        source: where the weights came from.
        calibration: how logits become probabilities; put into the arguments.
        thresholds: probabilities: ``same`` and ``different``, between which a pair is for review, and ``decision``.
        image_encoder: the frozen one of text + image models.
        tag: by default made from the content.
        card_fields: further fields of ``ModelCard``: licence, training_data, metrics.

    Raises:
        UserError: the family needs a tokenizer, preprocessing or image encoder that is not given, or has none; or the
            thresholds are out of order.
    """
    family = find_family(arguments.family)
    for needed, given, what in (
        (family.reads_text, tokenizer, "tokenizer"),
        (family.reads_pictures, preprocessing, "preprocessing"),
        (family.frozen_image, image_encoder, "image encoder"),
    ):
        if needed != (given is not None):
            raise UserError(f"A model of the family {arguments.family} {'needs a' if needed else 'has no'} {what}.")
    check_thresholds(thresholds)
    state = dict(network.state_dict())
    dimension = network.dimension if isinstance(network, TwoTower) else None
    if image_encoder is not None:
        state |= {_FROZEN + key: tensor for key, tensor in image_encoder.state_dict().items()}
        dimension = image_dimension(image_encoder)
    arguments = arguments.model_copy(update={"calibration": calibration})
    return write_version(
        folder,
        [weights_file(state), *([tokenizer_files(tokenizer)] if tokenizer is not None else [])],
        name=name,
        tag=tag,
        kind=KIND,
        architecture=Architecture(
            library="shopvision", name=arguments.family, arguments=arguments.model_dump(mode="json")
        ),
        preprocessing=preprocessing,
        dimension=dimension,
        source=source,
        thresholds=thresholds,
        **card_fields,
    )


def read_card(folder: Path) -> ModelCard:
    """The card of a pair scorer of any family.

    Raises:
        UserError: no card, one of another kind, or one with thresholds out of order.
    """
    card = version_folder.read_card(folder, KIND)
    check_thresholds(card.thresholds)
    return card


def load_matcher(folder: Path) -> LoadedMatcher:
    """The pair model of a model version.

    Args:
        folder: from ``shopvision.models.registry.local_copy`` or ``save_matcher``.

    Raises:
        UserError: no card, one of another kind or family, or one whose arguments build nothing.
        JobError: the weights do not fit the architecture exactly, or a file is missing or damaged.
    """
    card = read_card(folder)
    family = card.architecture.name
    if family not in FAMILIES:
        raise UserError(f"{card.spec} is a {KIND} of the family {family}, not of {', '.join(FAMILIES)}.")
    arguments = read_arguments(folder, card, MatcherArguments)
    if arguments.family != family:
        raise UserError(
            f"{folder / CARD_FILE}: the architecture is {family}, its arguments are those of {arguments.family}."
        )
    network = build_matcher(arguments, card.preprocessing)
    image_encoder = build_frozen_image(arguments)
    tensors = read_tensors(folder / WEIGHTS_FILE)
    where = f"{card.spec}, {WEIGHTS_FILE}"
    if image_encoder is not None:
        names = [name for name in tensors if name.startswith(_FROZEN)]
        load_strictly(image_encoder, {name.removeprefix(_FROZEN): tensors.pop(name) for name in names}, where)
    load_strictly(network, tensors, where)
    packer = make_packer(arguments, read_tokenizer(folder)) if find_family(family).reads_text else None
    return LoadedMatcher(network, card, arguments, packer, card.preprocessing, image_encoder)


def make_item_encoder(source: str, folder: Path) -> ModelCard:
    """A two-tower model straight from a pretrained sentence encoder: cosines of texts, nothing trained on pairs.

    For finding candidates, and as a cheap first stage. Its log-odds are ``scale * cosine + shift`` with the numbers of
    ``_COSINES``, and its thresholds are not calibrated: train on your own pairs, or choose thresholds from them,
    before its verdicts decide anything.

    Args:
        source: of the encoder, see ``shopvision.encoders.text_backbone.fetch_text``.
        folder: gets the model version.

    Raises:
        UserError: the encoder cannot be had.
    """
    text = fetch_text(source)
    prefix, scale, shift = _COSINES.get(source, _OTHER_COSINES)
    arguments = MatcherArguments(
        family="text_two_tower",
        axes=Axes(interaction="two_tower", head="metric", similarity="cosine", loss="bce"),
        text_config=text.config,
        pooling=text.pooling,
        text_prefix=prefix,
        max_length=min(_ENCODER_LENGTH, text.tokenizer.model_max_length),
    )
    network = build_matcher(arguments)
    load_strictly(
        network,
        {f"text.{name}": tensor for name, tensor in text.tensors.items()}
        | {"head.log_scale": torch.tensor(math.log(scale)), "head.shift": torch.tensor(shift)},
        source,
    )
    return save_matcher(
        folder,
        network,
        arguments,
        text.tokenizer,
        None,
        name=f"{text.name}-items",
        source=f"item-encoder:{text.source}",
        calibration={"method": "none"},
        thresholds={"same": 0.9, "decision": 0.5, "different": 0.1},
        licence=text.licence,
        training_data=text.training_data,
    )
