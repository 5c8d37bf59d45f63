"""Before the first step: one look at every picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from shopvision.encoders.devices import best_precision
from shopvision.encoders.image_encoder import ImageEncoder
from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.items.item import Item
from shopvision.matching.families._parts import FamilyOptions, FrozenFeatures
from shopvision.matching.families.pair_model import Beginning
from shopvision.matching.fitting.inputs import FeaturePictures, Pictures, PixelPictures
from shopvision.training.pixels import PixelReader
from shopvision.training.pretrained import survey_pictures
from shopvision.training.run import TrainingRun

if TYPE_CHECKING:
    from torch import Tensor

    from shopvision.training.distributed import Process
    from shopvision.training.pretrained import PretrainedImage

PICTURES_AT_ONCE = 32


class PicturePreparation:
    """Looks at every picture once: features of encoders that stay as they are, or whether it can be read.

    Attributes:
        unreadable: address -> reason of each picture that a model does without.
    """

    def __init__(self, beginning: Beginning, options: FamilyOptions, run: TrainingRun, door: PictureDoor) -> None:
        """Prepare for a model; ``door`` stays open for as long as the pictures are used."""
        self._model, self._image, self._options = beginning.model, beginning.start.image, options
        self._run, self._door = run, door
        self.unreadable: dict[str, str] = {}

    def of_groups(self, groups: Mapping[str, Sequence[Item]]) -> dict[str, Pictures | None]:
        """``pictures`` of several groups of items, which may have items in common; each picture is looked at once."""
        places: dict[tuple[str, str], int] = {}
        items: list[Item] = []
        rows: dict[str, list[int]] = {name: [] for name in groups}
        for name, group in groups.items():
            for item in group:
                key = item.picture, "" if item.picture else item.item_id
                rows[name].append(places.setdefault(key, len(items)))
                if rows[name][-1] == len(items):
                    items.append(item)
        found = self.pictures(items)
        return {name: None if found is None else found.select(np.array(own, np.int64)) for name, own in rows.items()}

    def pictures(self, items: Sequence[Item]) -> Pictures | None:
        """Pictures of ``items``, in their order; None where the model reads none.

        Raises:
            UserError: not one item has a picture; or an item of a model that reads nothing else has none, or one that
                cannot be read.
        """
        family, image = self._model.family, self._image
        if not family.reads_pictures or image is None:
            return None
        with_picture = [number for number, item in enumerate(items) if item.picture]
        if not with_picture:
            raise UserError(f"Not one of {len(items):,} items has a picture: give pictures, or take a text family.")
        if family.needs_every_picture and len(with_picture) < len(items):
            bare = [item for item in items if not item.picture]
            raise UserError(
                f"Item {bare[0].item_id!r} has no picture ({len(bare):,} in all): {family.name} reads nothing else. "
                "Leave such items out, or take another family."
            )
        uris = [items[number].picture for number in with_picture]
        features, unit = family.pictures == "features", self._model.parts.unit_features
        survey = survey_pictures(uris, image, self._run, self._door, encode=features and unit)
        if family.needs_every_picture and not survey.readable.all():
            self._refuse(items, survey.reasons)
        self.unreadable |= {uris[position]: reason for position, reason in survey.reasons.items()}
        readable = [number for number, fit in zip(with_picture, survey.readable.tolist(), strict=True) if fit]
        if survey.features is not None:
            vectors = np.zeros((len(items), image.dimension), np.float16)
            vectors[readable] = survey.features.vectors[survey.features.rows[survey.readable]]
            return FeaturePictures(vectors)
        kept = set(readable)
        shown = [item.picture if number in kept else "" for number, item in enumerate(items)]
        pixels = PixelPictures(shown, PixelReader(self._door, image.preprocessing), family.flips(self._options))
        frozen = raw_features(image, self._run.process) if features else self._of_network()
        return pixels if frozen is None else self._computed(pixels, frozen)

    def _of_network(self) -> FrozenFeatures | None:
        return self._model.family.frozen_features(self._model.network, self._options)

    def _refuse(self, items: Sequence[Item], reasons: dict[int, str]) -> None:
        reason = "the main process says why"
        if reasons:
            first = min(reasons)
            reason = f"item {items[first].item_id!r}: {reasons[first]}, {len(reasons):,} in all"
        raise UserError(f"A picture cannot be read ({reason}): repair it, or leave the item out.")

    @torch.no_grad()
    def _computed(self, pixels: PixelPictures, features: FrozenFeatures) -> FeaturePictures:
        """What a frozen network says of each picture, zeros of none; every process looks at some."""
        process = self._run.process
        self._model.network.eval()
        there = np.flatnonzero([bool(uri) for uri in pixels.uris])
        count = len(there)
        parts = [there[start : start + PICTURES_AT_ONCE] for start in range(0, count, PICTURES_AT_ONCE)]
        result = torch.zeros(len(pixels.uris), features.dimension, device=process.device)
        progress = self._run.stage("features")
        for done, rows in enumerate(parts[process.rank :: process.world], start=1):
            result[torch.from_numpy(rows)] = features.compute(pixels.take(rows, None).to(process.device)).float()
            progress(min(done * PICTURES_AT_ONCE * process.world, count), count)
        values: NDArray[np.float32] = process.total(result).cpu().numpy()
        return FeaturePictures(values)


def raw_features(image: PretrainedImage, process: Process) -> FrozenFeatures:
    """What an image encoder that stays as it is says of pixels, as long as it says it."""
    encoder = ImageEncoder(
        deepcopy(image.network),  # it folds and casts what it takes over
        image.preprocessing,
        image.dimension,
        device=process.device,
        dtype=best_precision(process.device),
        unit_length=False,
    )

    def compute(pixels: Tensor) -> Tensor:
        return torch.from_numpy(encoder.encode(pixels.cpu().numpy())).to(process.device)

    return FrozenFeatures(compute, image.dimension)
