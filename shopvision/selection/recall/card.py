"""A dual tower as a model version: a card, ``model.safetensors`` and the tokenizer's two files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from shopvision.encoders.image_networks import build_image, image_dimension
from shopvision.encoders.sentences import SentenceTokenizer
from shopvision.encoders.text_networks import Pooling, build_text
from shopvision.encoders.token_limit import require_room
from shopvision.encoders.tokenizer_files import read_tokenizer, tokenizer_files
from shopvision.errors import UserError
from shopvision.graph.relations import WIDTH, RelationVectors
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.version_folder import load_weights, read_arguments, read_card, weights_file, write_version
from shopvision.selection.recall.model import DualTower, Head, HeadName, ImageTower, ScaleName, TextTower
from shopvision.selection.recall.texts import TextForm

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KIND = "image_recall"
NAME = "dual_tower"
SCORE = "score"
"""The threshold of a card: cosine from which on a picture shows what a text says."""


class RecallArguments(BaseModel):
    """Everything that a dual tower is built from, stored in ``architecture.arguments`` of its card.

    Attributes:
        text_config: of the text encoder, for ``shopvision.encoders.text_networks.build_text``.
        pooling: how its outputs become one vector.
        image: the image network, without classifier.
        dimension: h, length of the vectors.
        image_head: layers between the image network and the vectors.
        text_head: likewise of texts.
        unit_features: whether backbone features are brought to one length before the heads.
        scale: how the factor of cosines is learnt.
        text_form: what is read of an item.
        text_prefix: what the encoder wants before every text, e.g. ``query: `` (E5).
        max_length: most tokens of a text.
        relations: of the knowledge graph that the model learnt from, in the order of its rows; none without one.
        relation_width: of the relations' table.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_config: dict[str, Any]
    pooling: Pooling
    image: Architecture
    dimension: int = Field(512, gt=0)
    image_head: HeadName = "linear"
    text_head: HeadName = "linear"
    unit_features: bool = False
    scale: ScaleName = "exponential"
    text_form: TextForm = "name"
    text_prefix: str = ""
    max_length: int = Field(50, gt=2)
    relations: tuple[str, ...] = ()
    relation_width: int = Field(WIDTH, gt=0)


@dataclass(frozen=True)
class LoadedRecall:
    """A dual tower ready to run: float32, CPU, evaluation mode."""

    network: DualTower
    card: ModelCard
    arguments: RecallArguments
    preprocessing: Preprocessing
    tokenizer: SentenceTokenizer


def build_recall(arguments: RecallArguments, *, initial_scale: float = 1.0) -> DualTower:
    """The network, float32, CPU, in evaluation mode, weights still random.

    Args:
        arguments: of a card.
        initial_scale: the factor of cosines that training begins with.

    Raises:
        UserError: timm or transformers has no such encoder.
    """
    text: Any = build_text(arguments.text_config)
    image: Any = build_image(arguments.image)
    dimension, unit = arguments.dimension, arguments.unit_features
    relations = RelationVectors(arguments.relations, dimension, arguments.relation_width)
    return DualTower(
        ImageTower(image, Head(image_dimension(image), dimension, arguments.image_head), unit_features=unit),
        TextTower(
            text,
            Head(text.config.hidden_size, dimension, arguments.text_head),
            pooling=arguments.pooling,
            unit_features=unit,
        ),
        scale=arguments.scale,
        initial_scale=initial_scale,
        relations=relations if arguments.relations else None,
    ).eval()


def make_sentence_tokenizer(arguments: RecallArguments, tokenizer: PreTrainedTokenizerFast) -> SentenceTokenizer:
    """What cuts texts for a network of these arguments.

    Raises:
        UserError: the length is impossible, or the tokenizer lacks a special token.
    """
    require_room(arguments.max_length, arguments.text_config, tokenizer)
    return SentenceTokenizer(tokenizer, max_length=arguments.max_length, prefix=arguments.text_prefix)


def save_recall(
    folder: Path,
    network: DualTower,
    arguments: RecallArguments,
    tokenizer: PreTrainedTokenizerFast,
    preprocessing: Preprocessing,
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
        arguments: what ``build_recall`` needs.
        tokenizer: of the text encoder.
        preprocessing: how pictures become input.
        name: of the model.
        source: where the weights came from.
        tag: by default made from the content.
        card_fields: further fields of ``ModelCard``: licence, training_data, metrics, thresholds.
    """
    return write_version(
        folder,
        [weights_file(network.state_dict()), tokenizer_files(tokenizer)],
        name=name,
        tag=tag,
        kind=KIND,
        architecture=Architecture(library="shopvision", name=NAME, arguments=arguments.model_dump(mode="json")),
        preprocessing=preprocessing,
        dimension=arguments.dimension,
        source=source,
        **card_fields,
    )


def text_form_of(folder: Path) -> TextForm:
    """What the model of a version reads of an item.

    Raises:
        UserError: no card, or one of another kind.
    """
    return read_arguments(folder, read_card(folder, KIND), RecallArguments).text_form


def load_recall(folder: Path) -> LoadedRecall:
    """The dual tower of a model version.

    Args:
        folder: from ``shopvision.models.local_copy`` or ``save_recall``.

    Raises:
        UserError: no card, one of another kind, or one whose arguments build nothing.
        JobError: the weights do not fit the architecture exactly, or a file is missing or damaged.
    """
    card = read_card(folder, KIND)
    if card.architecture.name != NAME or card.preprocessing is None:
        raise UserError(f"{card.spec} is a {KIND} of the architecture {card.architecture.name}, not {NAME}.")
    arguments = read_arguments(folder, card, RecallArguments)
    network = build_recall(arguments)
    load_weights(network, folder, card)
    tokenizer = make_sentence_tokenizer(arguments, read_tokenizer(folder))
    return LoadedRecall(network, card, arguments, card.preprocessing, tokenizer)
