"""One encoder taught: from pairs whose views were looked at to a model version folder."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shopvision.encoders.projected_network import save_projected
from shopvision.fashion.encoding.config import EncoderConfig
from shopvision.fashion.encoding.inputs import ViewInputs
from shopvision.fashion.encoding.learner import EncoderLearner, Trained, TrainingPairs
from shopvision.fashion.encoding.measure import Measures, measure_search
from shopvision.fashion.encoding.pairs import Pair, PairData
from shopvision.fashion.encoding.searching import Search
from shopvision.fashion.encoding.start import Start, freeze, learning_parameters, project_main_directions
from shopvision.fashion.encoding.views import View
from shopvision.models.card import ModelCard
from shopvision.training.loop import FitResult, fit
from shopvision.training.pair_sampling import PairSampler
from shopvision.training.run import TrainingRun

# Views whose features tell the main directions.
LOOKED_AT = 3_000
FINAL_RESAMPLES = 1_000


@dataclass(frozen=True)
class Materials:
    """What encoders of one run have in common.

    Attributes:
        start: what training starts from.
        inputs: of every view.
        contents: view -> number, equal for views of equal bytes.
    """

    start: Start
    inputs: ViewInputs
    contents: Mapping[View, int]


@dataclass(frozen=True)
class Fitted:
    """An encoder that was taught.

    Attributes:
        learner: holds the best epoch.
        result: which that was.
        valid: metrics of validation, with intervals.
        frozen: the same of the image encoder before training.
    """

    learner: EncoderLearner
    result: FitResult
    valid: Measures
    frozen: Measures


def fit_encoder(
    config: EncoderConfig,
    materials: Materials,
    train: PairData,
    valid: PairData,
    run: TrainingRun,
    *,
    more: PairData | None = None,
) -> Fitted:
    """Train one encoder; every process of the run takes part.

    Args:
        config: what to train from and how.
        materials: of the run.
        train: pairs to learn from.
        valid: pairs to choose the epoch on.
        run: where it is written.
        more: further pairs, whose pictures tell the main directions where those of ``train`` are too few.

    Raises:
        UserError: too few pairs.
        JobError: the loss is not finite, or a picture went away.
    """
    model, process = config.model, run.process
    encoder = deepcopy(materials.start.network)
    learning = learning_parameters(encoder.backbone, model)
    freeze(encoder, learning)
    network = Trained(encoder, config.train.temperature, learn_temperature=config.train.learn_temperature)
    search = Search.of(valid, materials.contents)
    learner = EncoderLearner(
        network.to(process.device),
        config,
        materials.inputs,
        train=_training_pairs(config, materials, train),
        valid=search,
        process=process,
        frozen=() if learning else (encoder.backbone,),
    )
    kept = materials.start.projected
    frozen = learner.found(search) if kept else learner.found_by_features(search)
    if not kept and model.start != "random":
        views = train.views()
        if more is not None and len(views) <= model.dimension:
            views = more.views()
        rows = materials.inputs.rows_of(views)
        chosen = np.random.default_rng(config.train.seed).permutation(rows)[:LOOKED_AT]
        features = learner.features_of(chosen)
        project_main_directions(encoder.projection, features, whiten=model.start == "whitening")
    identity = {
        **config.model_dump(mode="json"),
        "data content": {"train": train.fingerprint(), "valid": valid.fingerprint()},
    }
    result = fit(learner, config.train, run, identity=identity, patience=config.train.patience)
    found = learner.found(search)
    return Fitted(
        learner,
        result,
        measure_search(search, found, resamples=FINAL_RESAMPLES),
        measure_search(search, frozen, resamples=FINAL_RESAMPLES),
    )


def training_data(config: EncoderConfig, train: PairData) -> str:
    """What an encoder was taught with, as its card says it."""
    return f"{config.data.file.name}, {len(train.pairs)} pairs, content sha256 {train.fingerprint()}"


def save_fitted(fitted: Fitted, start: Start, folder: Path, *, name: str, training_data: str) -> ModelCard:
    """Write the model version of an encoder that was taught."""
    metrics = {metric: of.value for metric, of in fitted.valid.items()}
    for metric in ("recall_1", "map"):
        metrics[f"random_{metric}"] = fitted.valid[metric].random
        metrics[f"frozen_{metric}"] = fitted.frozen[metric].value
    return save_projected(
        folder,
        deepcopy(fitted.learner.network.encoder).cpu(),
        start.image.preprocessing,
        name=name,
        source=f"train encoder: {start.image.card.source}",
        licence=f"image encoder {start.image.card.licence}",
        training_data=training_data,
        metrics={metric: round(value, 6) for metric, value in metrics.items()},
    )


def trained_on(config: EncoderConfig, data: PairData) -> tuple[Pair, ...]:
    """The pairs that make steps.

    Raises:
        UserError: they are too few for one.
    """
    pairs = data.pairs if config.train.single_pictures else data.measured
    PairSampler([pair.category for pair in pairs], config.train.batch_size, one_category=False, seed=0)
    return pairs


def _training_pairs(config: EncoderConfig, materials: Materials, data: PairData) -> TrainingPairs:
    pairs = trained_on(config, data)
    number = {product: row for row, product in enumerate(dict.fromkeys(pair.product for pair in pairs))}
    rows = materials.inputs.rows_of
    return TrainingPairs(
        anchors=rows([pair.anchor for pair in pairs]),
        positives=rows([pair.positive for pair in pairs]),
        products=np.array([number[pair.product] for pair in pairs], np.int64),
        contents=np.array([materials.contents[pair.positive] for pair in pairs], np.int64),
        categories=[pair.category for pair in pairs],
    )
