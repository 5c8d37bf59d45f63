"""CLIK as a model version: a card, ``model.safetensors`` and the tokenizer's two files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from shopvision.encoders.image_networks import build_image, image_dimension
from shopvision.encoders.text_networks import Pooling, build_text
from shopvision.encoders.token_limit import require_room
from shopvision.encoders.tokenizer_files import read_tokenizer, tokenizer_files
from shopvision.errors import UserError
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.version_folder import load_weights, read_arguments, read_card, weights_file, write_version
from shopvision.selection.clik.losses import TEMPERATURE
from shopvision.selection.clik.model import Clik, ImageTower, Query, TextTower
from shopvision.selection.clik.topic_tokens import SeasonLanguage, TopicTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

KIND = "plan_ranker"


class ClikArguments(BaseModel):
    """Everything that a CLIK is built from, stored in ``architecture.arguments`` of its card.

    Attributes:
        text_config: of the text encoder, for ``shopvision.encoders.text_networks.build_text``.
        pooling: how its outputs become one vector.
        image: the image encoder, without classifier.
        feature_dim: h, length of the vectors.
        bank_size: M, rows of the memory bank; training needs the matching batch to be as large.
        max_length: most tokens of a topic.
        season_language: of the season words in topics.
        unit_features: whether backbone features are brought to one length before the projections.
        query: what pictures are compared with, see ``Clik``.
        temperature: tau of the losses it was trained with; scores are not divided by it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_config: dict[str, Any]
    pooling: Pooling
    image: Architecture
    feature_dim: int = Field(128, gt=0)
    bank_size: int = Field(gt=0)
    max_length: int = 128
    season_language: SeasonLanguage = "ko"
    unit_features: bool = False
    query: Query = "group"
    temperature: float = Field(TEMPERATURE, gt=0)


@dataclass(frozen=True)
class LoadedClik:
    """A CLIK ready to run: float32, CPU, evaluation mode."""

    clik: Clik
    card: ModelCard
    arguments: ClikArguments
    preprocessing: Preprocessing
    topic_tokenizer: TopicTokenizer


def build_clik(arguments: ClikArguments) -> Clik:
    """The network, float32, CPU, in evaluation mode, weights still random.

    Raises:
        UserError: timm or transformers has no such encoder.
    """
    text: Any = build_text(arguments.text_config)
    image: Any = build_image(arguments.image)
    dimension, unit = arguments.feature_dim, arguments.unit_features
    text_tower = TextTower(text, text.config.hidden_size, dimension, pooling=arguments.pooling, unit_features=unit)
    image_tower = ImageTower(image, image_dimension(image), dimension, unit_features=unit)
    return Clik(text_tower, image_tower, arguments.bank_size, arguments.query).eval()


def make_topic_tokenizer(arguments: ClikArguments, tokenizer: PreTrainedTokenizerFast) -> TopicTokenizer:
    """The topic tokenizer that goes with a network of these arguments.

    Raises:
        UserError: the length is impossible, or the tokenizer lacks a special token.
    """
    require_room(arguments.max_length, arguments.text_config, tokenizer)
    return TopicTokenizer(
        tokenizer,
        max_length=arguments.max_length,
        season_language=arguments.season_language,
        token_types=arguments.text_config.get("type_vocab_size", 1),
    )


def save_clik(
    folder: Path,
    clik: Clik,
    arguments: ClikArguments,
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
        clik: built from ``arguments``.
        arguments: what ``build_clik`` needs.
        tokenizer: of the text encoder.
        preprocessing: how pictures become input.
        name: of the model.
        source: where the weights came from.
        tag: by default made from the content.
        card_fields: further fields of ``ModelCard``: licence, training_data, metrics, thresholds.
    """
    return write_version(
        folder,
        [weights_file(clik.state_dict()), tokenizer_files(tokenizer)],
        name=name,
        tag=tag,
        kind=KIND,
        architecture=Architecture(library="shopvision", name="clik", arguments=arguments.model_dump(mode="json")),
        preprocessing=preprocessing,
        dimension=arguments.feature_dim,
        source=source,
        **card_fields,
    )


def load_clik(folder: Path) -> LoadedClik:
    """The CLIK of a model version.

    Args:
        folder: from ``shopvision.models.local_copy`` or ``save_clik``.

    Raises:
        UserError: no card, one of another kind, or one whose arguments build nothing.
        JobError: the weights do not fit the architecture exactly, or a file is missing or damaged.
    """
    card = read_card(folder, KIND)
    if card.architecture.name != "clik" or card.preprocessing is None:
        raise UserError(f"{card.spec} is a {KIND} of the architecture {card.architecture.name}, not clik.")
    arguments = read_arguments(folder, card, ClikArguments)
    clik = build_clik(arguments)
    load_weights(clik, folder, card)
    tokenizer = make_topic_tokenizer(arguments, read_tokenizer(folder))
    return LoadedClik(clik, card, arguments, card.preprocessing, tokenizer)
