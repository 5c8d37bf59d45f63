"""Before the first step: pretrained encoders in an untrained pair model, and one look at every picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from shopvision.encoders.image_encoder import ImageEncoder, best_precision
from shopvision.encoders.text_backbone import TextSource, fetch_text
from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.items.category_statistics import CategoryStatistics
from shopvision.items.item import Item
from shopvision.items.pair_table import PairTable
from shopvision.matching.families._family import MatcherArguments, build_matcher, image_dimension
from shopvision.matching.families.card import make_packer
from shopvision.matching.families.packing import Packer
from shopvision.matching.families.towers import OneTower, TwoTower
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.inputs import FeaturePictures, Pictures, PixelPictures
from shopvision.models.card import WEIGHTS_FILE
from shopvision.models.weights import load_strictly
from shopvision.training.distributed import Process
from shopvision.training.features import FeatureStore, digest, picture_features
from shopvision.training.pixels import PixelReader, unreadable_pictures
from shopvision.training.pretrained import PretrainedImage, fetch_image

if TYPE_CHECKING:
    from shopvision.images.preprocessing import Preprocessing

OnStage = Callable[[str, int, int], None]
"""Called with (what is being prepared, done, all)."""
PICTURES_AT_ONCE = 32


@dataclass(frozen=True)
class Untrained:
    """Pretrained encoders in a pair model whose other weights are drawn from the seed, and what goes with it."""

    network: OneTower | TwoTower
    arguments: MatcherArguments
    text: TextSource | None
    image: PretrainedImage | None
    packer: Packer | None


def fetch_model(config: MatcherConfig, train: PairTable) -> Untrained:
    """The encoders that the configuration names, in a model that is ready to be trained on ``train``.

    Raises:
        UserError: an encoder cannot be had, or the configuration builds no model.
    """
    family, model = config.family, config.model
    text = fetch_text(model.text) if family.reads_text else None
    image = fetch_image(model.image) if family.reads_pictures else None
    arguments = _arguments(config, text, image, train)
    torch.manual_seed(config.train.seed)
    network = build_matcher(arguments, image.preprocessing if image else None)
    packer = None
    if text is not None and network.text is not None:
        # A pooler that is not read would be weights without a gradient, and is not there.
        unread = () if arguments.pooling == "pooler" else ("pooler.",)
        read = {name: tensor for name, tensor in text.tensors.items() if not name.startswith(unread)}
        load_strictly(network.text, read, model.text)
        packer = make_packer(arguments, text.tokenizer)
    if image is not None and isinstance(network, TwoTower) and network.image is not None:
        load_strictly(network.image, image.network.state_dict(), model.image)
    return Untrained(network, arguments, text, image, packer)


def _arguments(
    config: MatcherConfig, text: TextSource | None, image: PretrainedImage | None, train: PairTable
) -> MatcherArguments:
    model, texts = config.model, config.texts
    reading: dict[str, object] = {}
    if text is not None:
        pooling = text.pooling
        if config.family.interaction == "one_tower":
            pooling = model.pooling or ("cls" if pooling == "pooler" else pooling)
            reading |= {
                "layers": model.layers,
                "layer_pooling": model.layer_pooling,
                "compare_codes": texts.compare_codes,
            }
        else:
            reading["text_prefix"] = texts.prefix
        statistics = None
        if texts.builder in ("frequency", "aligned"):
            statistics = CategoryStatistics.fit(train.used_items()).to_json()
        reading |= {
            "text_config": text.config,
            "pooling": pooling,
            "builder": texts.builder,
            "segmenter": texts.segmenter,
            "statistics": statistics,
            "max_length": texts.max_length,
        }
    return MatcherArguments(
        family=model.family,
        axes=model.axes,
        image=image.card.architecture if image else None,
        compare_pictures=config.family.frozen_image and model.compare_pictures,
        projection=model.projection,
        dropout=model.dropout,
        symmetric=model.scores_both_orders,
        **reading,
    )


class PicturePreparation:
    """Looks at every picture once: features of encoders that stay as they are, or whether it can be read.

    Attributes:
        unreadable: address -> reason of each picture that a model does without.
    """

    def __init__(
        self,
        config: MatcherConfig,
        untrained: Untrained,
        *,
        cache: Path,
        door: PictureDoor,
        process: Process,
        on_stage: OnStage,
    ) -> None:
        """Keep features under ``cache``; ``door`` stays open for as long as the pictures are used."""
        self._config, self._untrained, self._cache = config, untrained, cache / "features"
        self._door, self._process, self._on_stage = door, process, on_stage
        self.unreadable: dict[str, str] = {}

    def pictures(self, items: Sequence[Item]) -> Pictures | None:
        """Pictures of ``items``, in their order; None where the model reads none.

        Raises:
            UserError: not one item has a picture; or an item of a model that reads nothing else has none, or one that
                cannot be read.
        """
        network = self._untrained.network
        if self._untrained.image is None:
            return None
        bare = [item for item in items if not item.picture]
        if isinstance(network, OneTower):
            if len(bare) == len(items):
                raise UserError(f"Not one of {len(items):,} items has a picture: give pictures, or take a text family.")
            return self._features_of_encoder(items, self._untrained.image)
        if bare:
            raise UserError(
                f"Item {bare[0].item_id!r} has no picture ({len(bare):,} in all): {self._config.model.family} reads "
                "nothing else. Leave such items out, or take another family."
            )
        uris = [item.picture for item in items]
        self._require_readable(items, uris, self._untrained.image.preprocessing)
        reader = PixelReader(self._door, self._untrained.image.preprocessing)
        pixels = PixelPictures(uris, reader)
        return self._features_of_network(pixels, network) if self._config.model.frozen_image else pixels

    def _require_readable(self, items: Sequence[Item], uris: list[str], preprocessing: Preprocessing) -> None:
        broken = torch.zeros(1, device=self._process.device)
        reason = "the main process says why"
        if self._process.is_main:
            failures = unreadable_pictures(uris, preprocessing, self._door, self._progress("pictures"))
            if failures:
                first = min(failures)
                reason = f"item {items[first].item_id!r}: {failures[first]}, {len(failures):,} in all"
                broken += 1
        if self._process.total(broken).item():
            raise UserError(f"A picture cannot be read ({reason}): repair it, or leave the item out.")

    def _features_of_encoder(self, items: Sequence[Item], image: PretrainedImage) -> FeaturePictures:
        """Unit features, kept on disk; zeros where an item has no picture, or one that cannot be read."""
        with_picture = [number for number, item in enumerate(items) if item.picture]
        uris = [items[number].picture for number in with_picture]
        dtype = best_precision(self._process.device)
        key = digest(
            image.card.files[WEIGHTS_FILE],
            image.card.architecture.model_dump(),
            image.preprocessing.model_dump(),
            str(dtype),
        )
        dimension = image.card.dimension
        if dimension is None:
            raise UserError(f"model.image: the card of {self._config.model.image} says no dimension.")
        store = FeatureStore(self._cache / f"pictures-{key[:16]}", dimension)
        if not self._process.is_main:  # everything is in the cache after the main process
            self._process.wait()
        encoder = ImageEncoder(
            # A copy, because the encoder folds and casts what it takes over.
            deepcopy(image.network), image.preprocessing, dimension, device=self._process.device, dtype=dtype,
        )  # fmt: skip
        features, failures = picture_features(uris, store, encoder, self._door, self._progress("pictures"))
        if self._process.is_main:
            self._process.wait()
        if len(failures) == len(uris):
            reason = failures[min(failures)]
            raise UserError(
                f"Not one of {len(uris):,} pictures can be read ({reason}): mend that, or take a text family."
            )
        result = np.zeros((len(items), dimension), np.float16)
        result[with_picture] = features.vectors[features.rows]
        for position, reason in failures.items():
            result[with_picture[position]] = 0
            self.unreadable[uris[position]] = reason
        return FeaturePictures(result)

    @torch.no_grad()
    def _features_of_network(self, pixels: PixelPictures, network: TwoTower) -> FeaturePictures:
        """What the frozen image tower says of each picture; every process looks at some."""
        process, count = self._process, len(pixels.uris)
        network.eval()
        parts = [np.arange(start, min(start + PICTURES_AT_ONCE, count)) for start in range(0, count, PICTURES_AT_ONCE)]
        if network.image is None:
            raise TypeError("only a model of pictures has an image tower")
        result = torch.zeros(count, image_dimension(network.image), device=process.device)
        for done, rows in enumerate(parts[process.rank :: process.world], start=1):
            features = network.features(None, pixels.take(rows, None).to(process.device)).float()
            result[torch.from_numpy(rows)] = features
            self._progress("features")(min(done * PICTURES_AT_ONCE * process.world, count), count)
        values: NDArray[np.float32] = process.total(result).cpu().numpy()
        return FeaturePictures(values)

    def _progress(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self._on_stage(stage, done, total)
