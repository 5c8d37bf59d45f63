"""A click ranker as a model version: a card, ``model.safetensors``, and in ``recall/`` the recall model below it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from shopvision.errors import UserError
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.version_folder import (
    load_weights,
    member_folder,
    read_arguments,
    read_card,
    weights_file,
    write_version,
)
from shopvision.selection.click.context import ContextText
from shopvision.selection.click.network import ClickNetwork, NetworkArguments

if TYPE_CHECKING:
    from shopvision.images.preprocessing import Preprocessing

KIND = "image_ranker"
ARCHITECTURE = "siamese"
RECALL_FOLDER = "recall"


class RankerArguments(NetworkArguments):
    """Everything that a ranker is built from, stored in ``architecture.arguments`` of its card.

    Attributes:
        entities: how many of an item's entities it looks at.
        text: which text it is told of an item, see ``context_text``.
        recall: the recall model version whose vectors of pictures it reads; None where it has an image tower of its
            own, whose vectors are no other model's.
    """

    entities: int = Field(5, ge=0)
    text: ContextText = "entities"
    recall: str | None = None


@dataclass(frozen=True)
class LoadedRanker:
    """A ranker ready to run: float32, CPU, evaluation mode. The recall model lies in ``recall_folder``, not loaded."""

    network: ClickNetwork
    card: ModelCard
    arguments: RankerArguments
    preprocessing: Preprocessing
    recall_folder: Path


def save_ranker(
    folder: Path,
    network: ClickNetwork,
    arguments: RankerArguments,
    recall_folder: Path,
    *,
    name: str,
    source: str,
    tag: str | None = None,
    **card_fields: Any,
) -> ModelCard:
    """Write a model version, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: made where it is missing.
        network: built from ``arguments``.
        arguments: what ``load_ranker`` needs.
        recall_folder: model version of the recall model, which is copied in.
        name: of the model.
        source: where the weights came from.
        tag: by default made from the content.
        card_fields: further fields of ``ModelCard``: licence, training_data, metrics.

    Raises:
        UserError: ``recall_folder`` holds no model of pictures and texts with vectors of the right length.
    """
    recall = read_card(recall_folder)
    if recall.preprocessing is None or recall.dimension != arguments.dimension:
        raise UserError(
            f"{recall.spec} gives vectors of {recall.dimension} numbers, the ranker reads {arguments.dimension}: name "
            "the recall model that it was trained on."
        )
    return write_version(
        folder,
        [weights_file(network.state_dict()), member_folder(recall_folder, RECALL_FOLDER)],
        name=name,
        tag=tag,
        kind=KIND,
        architecture=Architecture(library="shopvision", name=ARCHITECTURE, arguments=arguments.model_dump(mode="json")),
        preprocessing=recall.preprocessing,
        dimension=recall.dimension,
        source=source,
        **card_fields,
    )


def load_ranker(folder: Path) -> LoadedRanker:
    """The ranker of a model version.

    Args:
        folder: from ``shopvision.models.local_copy`` or ``save_ranker``.

    Raises:
        UserError: no card, one of another kind, or one whose arguments build nothing.
        JobError: the weights do not fit the architecture exactly, or a file is missing or damaged.
    """
    card = read_card(folder, KIND)
    if card.architecture.name != ARCHITECTURE or card.preprocessing is None:
        raise UserError(f"{card.spec} is a {KIND} of the architecture {card.architecture.name}, not {ARCHITECTURE}.")
    arguments = read_arguments(folder, card, RankerArguments)
    network = ClickNetwork(arguments).eval()
    load_weights(network, folder, card)
    return LoadedRanker(network, card, arguments, card.preprocessing, folder / RECALL_FOLDER)
