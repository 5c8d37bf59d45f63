"""Before the first step: pretrained encoders, and one look at every picture and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from shopvision.encoders.text_sources import TextSource, fetch_text
from shopvision.images import PictureDoor
from shopvision.models.weights import load_strictly
from shopvision.selection.clik.card import ClikArguments, build_clik, make_topic_tokenizer
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.clik.exhibitions import RankingData
from shopvision.selection.clik.features import topic_features
from shopvision.selection.clik.inputs import FeatureInputs, Inputs, RawInputs
from shopvision.selection.clik.model import Clik
from shopvision.selection.clik.topic_tokens import TopicTokenizer
from shopvision.selection.topic import Topic
from shopvision.training.features import Features, FeatureStore
from shopvision.training.pretrained import PretrainedImage, fetch_image, read_at_stages, survey_pictures
from shopvision.training.run import TrainingRun
from shopvision.training.text_features import text_encoder_digest


@dataclass(frozen=True)
class Encoders:
    """Pretrained encoders, the untrained ranker that holds them, and what goes with it."""

    text: TextSource
    image: PretrainedImage
    clik: Clik
    arguments: ClikArguments
    tokenizer: TopicTokenizer


def fetch_encoders(config: ClikConfig, bank_size: int) -> Encoders:
    """The encoders that the configuration names, in a ranker whose other weights are drawn from the seed.

    Raises:
        UserError: an encoder cannot be had, or is of the wrong kind.
    """
    text, image = fetch_text(config.model.text), fetch_image(config.model.image)
    image = read_at_stages(image, wanted=config.model.image_stages, frozen=config.model.frozen)
    if not config.model.frozen:  # published: the whole picture, whatever its shape
        whole = image.preprocessing.model_copy(update={"resize_mode": "squash", "crop_fraction": 1.0})
        image = replace(image, preprocessing=whole)
    arguments = ClikArguments(
        text_config=text.config,
        pooling=text.pooling,
        image=image.card.architecture,
        feature_dim=config.model.feature_dim,
        bank_size=bank_size,
        max_length=config.model.max_length,
        season_language=config.model.season_language,
        unit_features=config.model.frozen,
        query=config.query,
        temperature=config.train.temperature,
    )
    tokenizer = make_topic_tokenizer(arguments, text.tokenizer)
    torch.manual_seed(config.train.seed)
    clik = build_clik(arguments)
    load_strictly(clik.txt_encoder.enc, text.tensors, config.model.text)
    load_strictly(clik.img_encoder.enc, image.network.state_dict(), config.model.image)
    return Encoders(text, image, clik, arguments, tokenizer)


class Preparation:
    """Looks at every picture once before training: features of frozen encoders, or whether it can be read."""

    def __init__(self, config: ClikConfig, encoders: Encoders, run: TrainingRun, door: PictureDoor) -> None:
        """``door`` stays open for as long as the inputs are used."""
        self._config, self._encoders, self._run, self._door = config, encoders, run, door

    def pictures(self, splits: Mapping[str, RankingData]) -> tuple[NDArray[np.bool_], dict[str, str], Features | None]:
        """Look at the pictures of all splits.

        Returns:
            Which products' pictures are readable, (products,), those of no split too; the reasons of the others by
            address (main process only); with frozen encoders the features by product.

        Raises:
            UserError: not one is readable.
        """
        products = splits["train"].products
        used = np.unique(np.concatenate([data.used_products() for data in splits.values()]))
        uris = [products.image(int(index)) for index in used]
        frozen = self._config.model.frozen
        survey = survey_pictures(uris, self._encoders.image, self._run, self._door, encode=frozen)
        readable = np.ones(len(products), bool)
        readable[used] = survey.readable
        reasons = {uris[position]: reason for position, reason in survey.reasons.items()}
        features = survey.features
        return readable, reasons, features and _by_product(features, used, len(products))

    def inputs(self, splits: Mapping[str, RankingData], pictures: Features | None) -> tuple[Inputs, Inputs | None]:
        """Inputs of train, and of valid where there is any."""
        result: dict[str, Inputs] = {}
        for name in ("train", "valid"):
            if splits[name].exhibitions:
                result[name] = self._split_inputs(splits[name], pictures, augment=name == "train")
        return result["train"], result.get("valid")

    def _split_inputs(self, data: RankingData, pictures: Features | None, *, augment: bool) -> Inputs:
        train = self._config.train
        if pictures is None:
            encoders = self._encoders
            return RawInputs(
                data, encoders.tokenizer, self._door, encoders.image.preprocessing, word_dropout=train.word_dropout
            )
        own_texts = None
        if augment and train.text_augmentation and self._config.needs_matching:
            used = data.used_products()
            features = self._text_features([data.products.topic(int(index)) for index in used])
            own_texts = _by_product(features, used, len(data.products))
        topics = self._text_features([exhibition.topic for exhibition in data.exhibitions])
        return FeatureInputs(data, topics, own_texts, pictures)

    def _text_features(self, topics: Sequence[Topic]) -> Features:
        encoders, tower = self._encoders, self._encoders.clik.txt_encoder
        model = self._config.model
        key = text_encoder_digest(encoders.text, model.max_length, model.season_language)
        store = FeatureStore(self._run.feature_cache / f"texts-{key[:16]}", tower.proj.linear_in.in_features)
        tower.eval()
        return topic_features(topics, store, tower, encoders.tokenizer, self._run.stage("texts"))


def _by_product(features: Features, products: NDArray[np.int32], count: int) -> Features:
    """Features of some products, to be asked for by the number of any of ``count``."""
    rows = np.zeros(count, np.int64)
    rows[products] = features.rows
    return Features(features.vectors, rows)
