"""Before the first step: pretrained encoders in a dual tower, and one look at every picture and text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.encoders.sentences import SentenceTokenizer
from shopvision.encoders.text_sources import TextSource, fetch_text, first_layers
from shopvision.models.weights import load_strictly
from shopvision.selection.recall.card import RecallArguments, build_recall, make_sentence_tokenizer
from shopvision.selection.recall.inputs import FeatureInputs, Inputs, RawInputs
from shopvision.training.features import Features, FeatureStore
from shopvision.training.pretrained import PictureSurvey, PretrainedImage, fetch_image, read_at_stages, survey_pictures
from shopvision.training.text_features import text_encoder_digest, text_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shopvision.images import PictureDoor
    from shopvision.selection.recall.config import RecallConfig
    from shopvision.selection.recall.model import DualTower
    from shopvision.training.run import TrainingRun


@dataclass(frozen=True)
class Encoders:
    """Pretrained encoders, the untrained dual tower that holds them, and what goes with it."""

    text: TextSource
    image: PretrainedImage
    network: DualTower
    arguments: RecallArguments
    tokenizer: SentenceTokenizer


def fetch_encoders(config: RecallConfig, relations: tuple[str, ...]) -> Encoders:
    """The encoders that the configuration names, in a dual tower whose other weights are drawn from the seed.

    Args:
        config: of the training.
        relations: of the knowledge graph; none without one.

    Raises:
        UserError: an encoder cannot be had, or is of the wrong kind.
    """
    model = config.model
    text, image = fetch_text(model.text), fetch_image(model.image)
    if model.text_layers is not None:
        text = first_layers(text, model.text_layers)
    if model.pooling is not None:
        text = replace(text, pooling=model.pooling)
    image = read_at_stages(image, wanted=model.image_stages, frozen=model.frozen)
    if not model.frozen:  # published: the whole picture, whatever its shape
        whole = image.preprocessing.model_copy(update={"resize_mode": "squash", "crop_fraction": 1.0})
        image = replace(image, preprocessing=whole)
    arguments = RecallArguments(
        text_config=text.config,
        pooling=text.pooling,
        image=image.card.architecture,
        dimension=model.dimension,
        image_head=model.image_head,
        text_head=model.text_head,
        unit_features=model.frozen,
        scale=model.scale,
        text_form=model.text_form,
        text_prefix=text.prefix if model.text_prefix is None else model.text_prefix,
        max_length=model.max_length,
        relations=relations,
    )
    tokenizer = make_sentence_tokenizer(arguments, text.tokenizer)
    torch.manual_seed(config.train.seed)
    network = build_recall(arguments, initial_scale=model.start_scale)
    load_strictly(network.text.network, text.tensors, model.text)
    load_strictly(network.image.network, image.network.state_dict(), model.image)
    return Encoders(text, image, network, arguments, tokenizer)


@dataclass(frozen=True)
class Corpus:
    """Every text and every picture that training and validation need.

    Attributes:
        texts: distinct.
        pictures: distinct addresses.
        readable: (pictures,).
        contents: (pictures,) int64, equal for equal bytes.
        reasons: address -> why it cannot be read.
        inputs: texts and pictures by their rows.
    """

    texts: Sequence[str]
    pictures: Sequence[str]
    readable: NDArray[np.bool_]
    contents: NDArray[np.int64]
    reasons: dict[str, str]
    inputs: Inputs

    @property
    def readable_pictures(self) -> frozenset[str]:
        """Addresses of those that can be read."""
        return frozenset(uri for uri, good in zip(self.pictures, self.readable, strict=True) if good)


def prepare_corpus(
    encoders: Encoders,
    run: TrainingRun,
    door: PictureDoor,
    *,
    texts: Sequence[str],
    pictures: Sequence[str],
    frozen: bool,
) -> Corpus:
    """Look at every picture once; of frozen encoders everything is encoded, where it was not before.

    Args:
        encoders: on the process's device.
        run: this run.
        door: stays open for as long as the inputs are used.
        texts: distinct.
        pictures: distinct addresses.
        frozen: whether the encoders stay as they are.

    Raises:
        UserError: not one picture is readable.
        TransientError: a source of pictures is away for the moment.
    """
    survey: PictureSurvey = survey_pictures(pictures, encoders.image, run, door, encode=frozen)
    inputs: Inputs
    if survey.features is None:
        inputs = RawInputs(texts, pictures, encoders.tokenizer, door, encoders.image.preprocessing)
    else:
        inputs = FeatureInputs(_text_features(encoders, texts, run), survey.features)
    reasons = {pictures[place]: reason for place, reason in survey.reasons.items()}
    return Corpus(texts, pictures, survey.readable, survey.contents, reasons, inputs)


def _text_features(encoders: Encoders, texts: Sequence[str], run: TrainingRun) -> Features:
    tower, arguments = encoders.network.text.eval(), encoders.arguments
    key = text_encoder_digest(encoders.text, "sentences", arguments.max_length, arguments.text_prefix)
    store = FeatureStore(run.feature_cache / f"texts-{key[:16]}", tower.head.linear.in_features)

    def encode(some: Sequence[str]) -> Tensor:
        return tower.features(encoders.tokenizer.encode(some).to(run.process.device))

    return text_features(texts, str, store, encode, run.stage("texts"))
