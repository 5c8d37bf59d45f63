"""Pretrained image encoders that recipes start from, and the one look at every picture before the first step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from shopvision.encoders.devices import best_precision
from shopvision.encoders.image_encoder import ImageEncoder
from shopvision.encoders.image_networks import KIND, image_dimension, load_network
from shopvision.encoders.stage_pooling import StagePooling, with_stages
from shopvision.errors import UserError
from shopvision.models.card import WEIGHTS_FILE, ModelCard
from shopvision.models.importers import fetch
from shopvision.training.features import Features, FeatureStore, digest, picture_features
from shopvision.training.pixels import look_at_pictures

if TYPE_CHECKING:
    from torch import nn

    from shopvision.images import PictureDoor
    from shopvision.images.pipeline import Encoder
    from shopvision.images.preprocessing import Preprocessing
    from shopvision.training.run import TrainingRun


@dataclass(frozen=True)
class PretrainedImage:
    """An image encoder: its card, and the network with its weights, without classifier, on the CPU."""

    card: ModelCard
    preprocessing: Preprocessing
    dimension: int
    network: nn.Module


def fetch_image(source: str) -> PretrainedImage:
    """The image encoder that a configuration's ``model.image`` names.

    Raises:
        UserError: it cannot be had, or is no image encoder.
    """
    with tempfile.TemporaryDirectory(prefix="shopvision-train-") as temporary:
        folder = Path(temporary, "model")
        card = fetch(source, folder)
        if card.kind != KIND or card.preprocessing is None or card.dimension is None:
            raise UserError(f"model.image: {source} is of the kind {card.kind}, not {KIND}: name an image encoder.")
        return PretrainedImage(card, card.preprocessing, card.dimension, load_network(folder, card))


def at_size(image: PretrainedImage, size: int) -> PretrainedImage:
    """An image encoder that reads square pictures of ``size`` pixels; positions of patches are interpolated.

    Raises:
        UserError: it reads pictures of its own size alone.
    """
    network, architecture = image.network, image.card.architecture
    problem = f"model.image_size {size}: {image.card.source} reads pictures of {image.preprocessing.size} pixels alone"
    try:
        if hasattr(network, "set_input_size"):  # of timm's transformers
            network.set_input_size(img_size=(size, size))  # type: ignore[operator] # timm is untyped
            arguments = architecture.arguments | {"img_size": size}
            architecture = architecture.model_copy(update={"arguments": arguments})
        with torch.no_grad():
            network(torch.zeros(1, 3, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(f"{problem} ({' '.join(str(error).split())[:200]}).") from None
    preprocessing = image.preprocessing.model_copy(update={"size": (size, size)})
    card = image.card.model_copy(update={"architecture": architecture, "preprocessing": preprocessing})
    return replace(image, card=card, preprocessing=preprocessing)


def all_stages(image: PretrainedImage) -> PretrainedImage | None:
    """The same weights, read at every stage; None where the network does not tell what its stages see.

    See ``shopvision.encoders.stage_pooling``.
    """
    architecture = with_stages(image.card.architecture)
    if architecture is None:
        return None
    network = StagePooling(image.network)
    card = image.card.model_copy(update={"architecture": architecture})
    return replace(image, card=card, dimension=image_dimension(network), network=network)


def read_at_stages(image: PretrainedImage, *, wanted: bool | None, frozen: bool) -> PretrainedImage:
    """The encoder as a configuration's ``model.image_stages`` wants it read; None: where it is frozen and can be.

    Raises:
        UserError: the network does not tell what its stages see, and that is wanted.
    """
    if not (frozen if wanted is None else wanted):
        return image
    staged = all_stages(image)
    if staged is None and wanted:
        raise UserError(f"model.image_stages: {image.card.source} does not tell what its stages see: leave it out.")
    return staged or image


@dataclass(frozen=True)
class PictureSurvey:
    """What a look at n pictures found.

    Attributes:
        readable: (n,) bool, the same in every process.
        contents: (n,) int64, equal for readable pictures of identical bytes; the same in every process.
        reasons: position -> why it is not, in the main process; empty in the others.
        features: unit vectors of the readable ones, if they were asked for.
    """

    readable: NDArray[np.bool_]
    contents: NDArray[np.int64]
    reasons: dict[int, str]
    features: Features | None


def survey_pictures(
    uris: Sequence[str], image: PretrainedImage, run: TrainingRun, door: PictureDoor, *, encode: bool
) -> PictureSurvey:
    """Look at every picture once. The main process looks; the others take over what it found.

    Args:
        uris: addresses of n pictures.
        image: the encoder that will read them; it is left as it is.
        run: this run.
        door: to the pictures.
        encode: whether their features are wanted, as of an encoder that stays frozen. They are kept on disk.

    Raises:
        UserError: not one is readable.
        TransientError: a source is away for the moment; what was encoded is kept.
    """
    if encode:
        return survey_features(uris, partial(_feature_encoder, image, run), run, door)
    digests, failures = dict[int, bytes](), dict[int, str]()
    contents = np.zeros(len(uris), np.int64)
    if run.process.is_main:
        digests, failures = look_at_pictures(uris, image.preprocessing, door, run.stage("pictures"))
        numbers: dict[bytes, int] = {}
        for position, sha256 in digests.items():
            contents[position] = numbers.setdefault(sha256, len(numbers))
    return _shared(contents, failures, None, run)


def survey_features(
    uris: Sequence[str], open_encoder: Callable[[], tuple[FeatureStore, Encoder]], run: TrainingRun, door: PictureDoor
) -> PictureSurvey:
    """As ``survey_pictures``, of any encoder that stays frozen: its features are wanted, and kept on disk.

    Args:
        uris: addresses of n pictures.
        open_encoder: gives the encoder, and the store of what it says.
        run: this run.
        door: to the pictures.

    Raises:
        UserError: not one is readable.
        TransientError: a source is away for the moment; what was encoded is kept.
    """
    process = run.process
    store, encoder = open_encoder()
    if process.is_main:
        features, failures = picture_features(uris, store, encoder, door, run.stage("pictures"))
        process.wait()
    else:  # everything is in the cache by then
        process.wait()
        features, failures = picture_features(uris, store, encoder, door, run.stage("pictures"))
    contents = features.rows if process.is_main else np.zeros(len(uris), np.int64)  # a row for each sha256
    return _shared(contents, failures if process.is_main else {}, features, run)


def _shared(
    contents: NDArray[np.int64], failures: dict[int, str], features: Features | None, run: TrainingRun
) -> PictureSurvey:
    """The same survey for every process, from what the main process found; the others give zeros and nothing."""
    found = torch.zeros(2, len(contents), dtype=torch.int64)
    found[0] = torch.from_numpy(contents)
    found[1, sorted(failures)] = 1
    reasons = dict(sorted(failures.items()))
    contents, bad = run.process.total(found.to(run.process.device)).cpu().numpy()
    readable: NDArray[np.bool_] = bad == 0
    if len(readable) and not readable.any():
        reason = next(iter(reasons.values()), "see the main process")
        raise UserError(f"Not one of {len(readable):,} pictures can be read ({reason}): check the picture folder.")
    return PictureSurvey(readable, contents, reasons, features)


def _feature_encoder(image: PretrainedImage, run: TrainingRun) -> tuple[FeatureStore, ImageEncoder]:
    device = run.process.device
    dtype = best_precision(device)
    key = digest(
        image.card.files[WEIGHTS_FILE],
        image.card.architecture.model_dump(),
        image.preprocessing.model_dump(),
        str(dtype),
    )
    store = FeatureStore(run.feature_cache / f"pictures-{key[:16]}", image.dimension)
    # A copy, because the encoder folds and casts what it takes over.
    return store, ImageEncoder(
        deepcopy(image.network), image.preprocessing, image.dimension, device=device, dtype=dtype
    )
