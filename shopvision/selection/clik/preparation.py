"""Before the first step: pretrained encoders, and one look at every picture and text."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.encoders.image_encoder import ImageEncoder, best_precision
from shopvision.encoders.text_backbone import TextSource, fetch_text
from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.card import WEIGHTS_FILE, ModelCard
from shopvision.models.importers import fetch
from shopvision.models.weights import load_network, load_strictly
from shopvision.selection.clik.card import ClikArguments, build_clik, make_topic_tokenizer
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.clik.exhibitions import RankingData
from shopvision.selection.clik.features import text_features
from shopvision.selection.clik.inputs import FeatureInputs, Inputs, RawInputs
from shopvision.selection.clik.model import Clik
from shopvision.selection.clik.topic_tokens import TopicTokenizer
from shopvision.selection.topic import Topic
from shopvision.training.distributed import Process
from shopvision.training.features import Features, FeatureStore, OnProgress, digest, picture_features
from shopvision.training.pixels import unreadable_pictures

OnStage = Callable[[str, int, int], None]
"""Called with (what is being prepared, done, all)."""


@dataclass(frozen=True)
class Encoders:
    """Pretrained encoders, the untrained ranker that holds them, and what goes with it."""

    text: TextSource
    image: ModelCard
    preprocessing: Preprocessing
    clik: Clik
    arguments: ClikArguments
    tokenizer: TopicTokenizer


def fetch_encoders(config: ClikConfig, bank_size: int) -> Encoders:
    """The encoders that the configuration names, in a ranker whose other weights are drawn from the seed.

    Raises:
        UserError: an encoder cannot be had, or is of the wrong kind.
    """
    text = fetch_text(config.model.text)
    with tempfile.TemporaryDirectory(prefix="shopvision-train-") as temporary:
        folder = Path(temporary)
        image = fetch(config.model.image, folder).card(folder, None, None)
        if image.kind != "image_encoder" or image.preprocessing is None:
            raise UserError(f"model.image: {config.model.image} is a {image.kind}, not an image_encoder.")
        network = load_network(folder, image)
    preprocessing = image.preprocessing
    if not config.model.frozen:  # published: the whole picture, whatever its shape
        preprocessing = preprocessing.model_copy(update={"resize_mode": "squash", "crop_fraction": 1.0})
    arguments = ClikArguments(
        text_config=text.config,
        pooling=text.pooling,
        image=image.architecture,
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
    load_strictly(clik.img_encoder.enc, network.state_dict(), config.model.image)
    return Encoders(text, image, preprocessing, clik, arguments, tokenizer)


class Preparation:
    """Looks at every picture once before training: features of frozen encoders, or whether it can be read."""

    def __init__(
        self,
        config: ClikConfig,
        encoders: Encoders,
        *,
        cache: Path,
        door: PictureDoor,
        process: Process,
        on_stage: OnStage,
    ) -> None:
        """Keep features under ``cache``; ``door`` stays open for as long as the inputs are used."""
        self._config, self._encoders, self._cache = config, encoders, cache / "features"
        self._door, self._process, self._on_stage = door, process, on_stage

    def pictures(self, splits: Mapping[str, RankingData]) -> tuple[NDArray[np.bool_], dict[str, str], Features | None]:
        """Look at the pictures of all splits. The main process looks; the others take over what it found.

        Returns:
            Which products' pictures are readable, (products,); the reasons of the others by address (main process
            only); with frozen encoders the features by product.

        Raises:
            UserError: not one is readable.
        """
        products = splits["train"].products
        used = np.unique(np.concatenate([data.used_products() for data in splits.values()]))
        uris = [products.image(int(index)) for index in used]
        failures: dict[int, str] = {}
        features = None
        if not self._config.model.frozen:
            if self._process.is_main:
                failures = unreadable_pictures(
                    uris, self._encoders.preprocessing, self._door, self._progress("pictures")
                )
        elif self._process.is_main:
            features, failures = self._picture_features(uris)
            self._process.wait()
        else:  # everything is in the cache by then
            self._process.wait()
            features, _ = self._picture_features(uris)
        bad = torch.zeros(len(products), device=self._process.device)
        if self._process.is_main:
            bad[used[sorted(failures)]] = 1
        readable = self._process.total(bad).cpu().numpy() == 0
        if not readable[used].any():
            reason = next(iter(failures.values()), "see the main process")
            raise UserError(f"Not one of {len(used):,} pictures can be read ({reason}): check the picture folder.")
        reasons = {uris[position]: reason for position, reason in sorted(failures.items())}
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
                data, encoders.tokenizer, self._door, encoders.preprocessing, word_dropout=train.word_dropout
            )
        own_texts = None
        if augment and train.text_augmentation and self._config.needs_matching:
            used = data.used_products()
            features = self._text_features([data.products.topic(int(index)) for index in used])
            own_texts = _by_product(features, used, len(data.products))
        topics = self._text_features([exhibition.topic for exhibition in data.exhibitions])
        return FeatureInputs(data, topics, own_texts, pictures)

    def _picture_features(self, uris: list[str]) -> tuple[Features, dict[int, str]]:
        clik, image, device = self._encoders.clik, self._encoders.image, self._process.device
        dtype = best_precision(device)
        preprocessing = self._encoders.preprocessing
        key = digest(image.files[WEIGHTS_FILE], image.architecture.model_dump(), preprocessing.model_dump(), str(dtype))
        dimension = clik.img_encoder.proj.linear_in.in_features
        store = FeatureStore(self._cache / f"pictures-{key[:16]}", dimension)
        # A copy, because the encoder folds and casts what it takes over.
        network = deepcopy(clik.img_encoder.enc).cpu()
        encoder = ImageEncoder(network, preprocessing, dimension, device=device, dtype=dtype)
        return picture_features(uris, store, encoder, self._door, self._progress("pictures"))

    def _text_features(self, topics: Sequence[Topic]) -> Features:
        encoders, tower = self._encoders, self._encoders.clik.txt_encoder
        weights = digest({name: _checksum(tensor) for name, tensor in encoders.text.tensors.items()})
        vocabulary = encoders.text.tokenizer.backend_tokenizer.to_str()
        model = self._config.model
        key = digest(
            weights, encoders.text.config, vocabulary, encoders.text.pooling, model.max_length, model.season_language
        )
        store = FeatureStore(self._cache / f"texts-{key[:16]}", tower.proj.linear_in.in_features)
        tower.eval()
        return text_features(topics, store, tower, encoders.tokenizer, self._progress("texts"))

    def _progress(self, stage: str) -> OnProgress:
        return lambda done, total: self._on_stage(stage, done, total)


def _by_product(features: Features, products: NDArray[np.int32], count: int) -> Features:
    """Features of some products, to be asked for by the number of any of ``count``."""
    rows = np.zeros(count, np.int64)
    rows[products] = features.rows
    return Features(features.vectors, rows)


def _checksum(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
