"""A pair model as a model version: card, ``model.safetensors``, and what its family stores beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shopvision.errors import UserError
from shopvision.evaluation.calibration import check_thresholds
from shopvision.matching.families._parts import FamilyArguments
from shopvision.matching.families.pair_model import PairModel, build_model
from shopvision.matching.families.registry import family_names, find_family
from shopvision.models import version_folder
from shopvision.models.card import CARD_FILE, WEIGHTS_FILE, Architecture, ModelCard
from shopvision.models.version_folder import FileWriter, read_arguments, weights_file, write_version
from shopvision.models.weights import load_strictly, read_tensors

KIND = "pair_scorer"
# In model.safetensors, of the image encoder that is no part of the network.
_FROZEN = "frozen_image."


@dataclass(frozen=True)
class LoadedMatcher:
    """A pair model with its card."""

    model: PairModel
    card: ModelCard


def save_matcher(
    folder: Path,
    model: PairModel,
    *,
    name: str,
    source: str,
    calibration: dict[str, Any],
    thresholds: dict[str, float],
    tag: str | None = None,
    more_files: Sequence[FileWriter] = (),
    **card_fields: Any,
) -> ModelCard:
    """Write a model version, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: made where it is missing.
        model: what to write; on any device.
        name: of the model.
        source: where the weights came from.
        calibration: how logits become probabilities; put into the arguments.
        thresholds: probabilities: ``same`` and ``different``, between which a pair is for review, and ``decision``.
        tag: by default made from the content.
        more_files: write what else shall lie in the folder.
        card_fields: further fields of ``ModelCard``: licence, training_data, metrics, promises.

    Raises:
        UserError: the thresholds are out of order.
    """
    check_thresholds(thresholds)
    state = dict(model.network.state_dict())
    if model.parts.image_encoder is not None:
        state |= {_FROZEN + key: tensor for key, tensor in model.parts.image_encoder.state_dict().items()}
    arguments = model.arguments.model_copy(update={"calibration": calibration})
    return write_version(
        folder,
        [weights_file(state), *model.family.part_files(model.parts), *more_files],
        name=name,
        tag=tag,
        kind=KIND,
        architecture=Architecture(
            library="shopvision", name=model.family.name, arguments=arguments.model_dump(mode="json")
        ),
        preprocessing=None if model.parts.preprocessing is None else model.parts.preprocessing.whole,
        dimension=model.kept_dimension,
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
        folder: from ``shopvision.models.local_copy`` or ``save_matcher``.

    Raises:
        UserError: no card, one of another kind or family, or one whose arguments build nothing.
        JobError: the weights do not fit the architecture exactly, or a file is missing or damaged.
    """
    card = read_card(folder)
    name = card.architecture.name
    if name not in family_names():
        raise UserError(f"{card.spec} is a {KIND} of the family {name}, not of {', '.join(family_names())}.")
    family = find_family(name)
    stated = card.architecture.arguments.get("family")
    if stated != name:
        raise UserError(f"{folder / CARD_FILE}: the architecture is {name}, its arguments are those of {stated}.")
    arguments: FamilyArguments = read_arguments(folder, card, family.arguments)
    parts = family.load_parts(folder, card, arguments)
    try:
        model = build_model(arguments, parts)
    except UserError as error:
        raise UserError(f"{folder / CARD_FILE}: {error} Train the model anew.") from None
    tensors = read_tensors(folder / WEIGHTS_FILE)
    where = f"{card.spec}, {WEIGHTS_FILE}"
    if parts.image_encoder is not None:
        names = [name for name in tensors if name.startswith(_FROZEN)]
        load_strictly(parts.image_encoder, {name.removeprefix(_FROZEN): tensors.pop(name) for name in names}, where)
    load_strictly(model.network, tensors, where)
    return LoadedMatcher(model, card)
