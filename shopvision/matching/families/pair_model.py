"""A pair model: network, arguments and parts of one family, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from shopvision.encoders.image_networks import image_dimension
from shopvision.encoders.word_tokens import cut_at_blanks_alone
from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.matching.families._network import ItemNetwork, ItemReader, PairNetwork, PairReader
from shopvision.matching.families._parts import FamilyArguments, FamilyOptions, Parts, Start, Weights
from shopvision.matching.families.axes import require_legal
from shopvision.matching.families.registry import AnyFamily, find_family
from shopvision.matching.families.text_reading import TextOptions
from shopvision.models.weights import load_strictly


@dataclass(frozen=True)
class PairModel:
    """A pair model, float32, CPU, in evaluation mode.

    Attributes:
        family: which.
        arguments: what the network was built from.
        parts: what else the model consists of.
        network: scores pairs or encodes items.
    """

    family: AnyFamily
    arguments: FamilyArguments
    parts: Parts
    network: PairNetwork | ItemNetwork

    @cached_property
    def reader(self) -> PairReader[Any] | ItemReader[Any]:
        """What makes batches for the network."""
        return self.family.reader(self.arguments, self.parts)

    @property
    def kept_dimension(self) -> int | None:
        """Length of what is kept of an item: a vector, or the features of its picture; None where nothing is."""
        if isinstance(self.network, ItemNetwork):
            return self.network.dimension
        return None if self.parts.image_encoder is None else image_dimension(self.parts.image_encoder)


def build_model(arguments: FamilyArguments, parts: Parts) -> PairModel:
    """The model of these arguments, weights still random.

    Raises:
        UserError: the arguments build nothing, or do not fit the parts.
    """
    family, axes = find_family(arguments.family), arguments.axes
    if axes.interaction != family.interaction:
        raise UserError(f"The family {family.name} is {family.interaction}, not {axes.interaction}.")
    require_legal(axes, family.legal, family.name)
    model = PairModel(family, arguments, parts, family.build(arguments, parts).eval())
    _ = model.reader  # what does not fit is to be known before anything is learnt
    return model


def begin_training(
    options: FamilyOptions, texts: TextOptions, items: Sequence[Item], *, seed: int, weights: Weights | None = None
) -> Beginning:
    """The model that a training configuration begins with.

    Args:
        options: section ``[model]``.
        texts: section ``[text]``.
        items: those of the training pairs.
        seed: of the weights that nothing was trained on.
        weights: to begin with; by default the encoders' own.

    Raises:
        UserError: an encoder cannot be had, or the configuration builds no model.
    """
    start: Start[Any] = find_family(options.family).start(options, texts, items)
    if texts.segmenter == "jieba" and start.parts.tokenizer is not None:
        cut_at_blanks_alone(start.parts.tokenizer)
    if weights is not None:
        start = replace(start, weights=weights)
    torch.manual_seed(seed)
    model = build_model(start.arguments, start.parts)
    load_start(model, start.weights)
    return Beginning(model, start)


@dataclass(frozen=True)
class Beginning:
    """An untrained model around its pretrained encoders, and where these are from."""

    model: PairModel
    start: Start[Any]


def load_start(model: PairModel, weights: Weights) -> None:
    """Put pretrained tensors into submodules of the network.

    Raises:
        JobError: they do not fit exactly.
    """
    for name, tensors in weights.items():
        load_strictly(model.network.get_submodule(name), tensors, f"{name} encoder")
