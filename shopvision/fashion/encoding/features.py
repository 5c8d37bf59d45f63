"""One look at every view before the first step; features of an encoder that stays frozen, computed once per machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shopvision.encoders.devices import best_precision
from shopvision.encoders.image_encoder import ImageEncoder
from shopvision.errors import ItemError, UserError
from shopvision.fashion.encoding.views import KEPT, Changes, Pixels, View, read_views
from shopvision.models.card import WEIGHTS_FILE
from shopvision.training.features import FeatureStore, SeenPictures, digest

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.training.pretrained import PretrainedImage
    from shopvision.training.run import TrainingRun

T = TypeVar("T")
ENCODED_AT_ONCE = 64


@dataclass(frozen=True)
class ViewFeatures:
    """Of n views, each in 1 + k variants of which the first is the view as it is.

    Attributes:
        vectors: (rows, d) float16, not normalised, mapped from disk.
        rows: (n, 1 + k) int64.
    """

    vectors: NDArray[np.float16]
    rows: NDArray[np.int64]

    def take(self, views: NDArray[np.int64], variants: NDArray[np.int64] | int = 0) -> Tensor:
        """(len(views), d) float32 of these variants; 0 is the view as it is."""
        return torch.from_numpy(self.vectors[self.rows[views, variants]].astype(np.float32))


@dataclass(frozen=True)
class ViewSurvey:
    """What a look at n views found.

    Attributes:
        readable: (n,) bool, the same in every process.
        contents: (n,) int64, equal for views of equal bytes and the same part; the same in every process.
        reasons: place -> why it is not readable, in the main process; empty in the others.
        features: of the readable ones, if they were asked for.
    """

    readable: NDArray[np.bool_]
    contents: NDArray[np.int64]
    reasons: dict[int, str]
    features: ViewFeatures | None


def survey_views(
    views: Sequence[View],
    image: PretrainedImage,
    run: TrainingRun,
    door: PictureDoor,
    *,
    changes: Changes,
    variants: int | None,
) -> ViewSurvey:
    """Look at every view once. The main process looks; the others take over what it found.

    Args:
        views: all that training will read.
        image: the encoder that will read them.
        run: this run.
        door: to the pictures.
        changes: how variants differ from their view.
        variants: of each view beside itself whose features are wanted; None: no features at all.

    Raises:
        UserError: not one is readable.
        TransientError: a source of pictures is away for the moment; what was encoded is kept.
    """
    process, features = run.process, None
    digests, failures = [b""] * len(views), dict[int, str]()
    if process.is_main:
        if variants is None:
            for done, read in enumerate(read_views(views, door, image.preprocessing), start=1):
                digests[read.place] = read.sha256
                if isinstance(read.pixels, ItemError):
                    failures[read.place] = read.pixels.message
                run.on_stage("pictures", done, len(views))
        else:
            features, digests, failures = _Encoding(views, image, run, door, changes=changes, variants=variants).run()
        process.wait()
    else:
        process.wait()
        if variants is not None:  # everything is in the cache by then
            features, digests, failures = _Encoding(views, image, run, door, changes=changes, variants=variants).run()
    found = torch.zeros(2, len(views), dtype=torch.int64)
    if process.is_main:
        number: dict[tuple[bytes, object], int] = {}
        keys = [(sha256, view.box) for sha256, view in zip(digests, views, strict=True)]
        found[0] = torch.tensor([number.setdefault(key, len(number)) for key in keys])
        found[1, sorted(failures)] = 1
    contents, bad = process.total(found.to(process.device)).cpu().numpy()
    if len(views) and bad.all():
        reason = next(iter(failures.values()), "see the main process")
        raise UserError(f"Not one of {len(views):,} pictures can be read ({reason}): check the picture folder.")
    return ViewSurvey(bad == 0, contents, dict(sorted(failures.items())) if process.is_main else {}, features)


class _Encoding:
    """Features of every view and of its changes; only what is new or changed is read and encoded."""

    def __init__(
        self,
        views: Sequence[View],
        image: PretrainedImage,
        run: TrainingRun,
        door: PictureDoor,
        *,
        changes: Changes,
        variants: int,
    ) -> None:
        self._views, self._image, self._run, self._door = views, image, run, door
        self._changes, self._variants = changes, variants
        device = run.process.device
        dtype = best_precision(device)
        key = digest(
            "views",
            image.card.files[WEIGHTS_FILE],
            image.card.architecture.model_dump(),
            image.preprocessing.model_dump(),
            str(dtype),
        )
        # A copy, because the encoder folds and casts what it takes over. The projection wants vectors as long as the
        # network makes them.
        self._encoder = ImageEncoder(
            deepcopy(image.network), image.preprocessing, image.dimension, device=device, dtype=dtype, unit_length=False
        )
        self._store = FeatureStore(run.feature_cache / f"views-{key[:16]}", image.dimension)
        self._digests = [b""] * len(views)
        self._failures: dict[int, str] = {}
        self._done = 0

    def run(self) -> tuple[ViewFeatures, list[bytes], dict[int, str]]:
        """The features, the sha256 of each view's picture, and place -> reason of what cannot be read."""
        store, views = self._store, self._views
        with store.writing():
            self._append(self._plain())
            missing = [
                place
                for place in range(len(views))
                if place not in self._failures and any(key not in store for key in self._keys(place))
            ]
            self._done = len(views) - len(missing)
            self._append(self._changed(missing))
        rows = np.zeros((len(views), 1 + self._variants), np.int64)
        for place in range(len(views)):
            if place not in self._failures:
                rows[place] = store.rows(self._keys(place))
        return ViewFeatures(store.vectors(), rows), self._digests, self._failures

    def _keys(self, place: int, sha256: bytes | None = None) -> list[bytes]:
        """Of the view and each of its variants: what decides how their pixels look."""
        box = self._views[place].box
        told = [(sha256 or self._digests[place]).hex(), box]
        changes = self._changes
        drawn = [changes.least_area, changes.flip, changes.light]
        parts = [told, *([*told, *drawn, variant] for variant in range(1, self._variants + 1))]
        return [hashlib.sha256(json.dumps(part).encode()).digest() for part in parts]

    def _plain(self) -> Iterator[tuple[bytes, Pixels]]:
        seen = SeenPictures(self._store.folder)
        known = {}
        for place, view in enumerate(self._views):
            entry = seen.get(view.uri)
            if entry is not None and all(key in self._store for key in self._keys(place, entry[1])):
                known[place] = entry
        for read in read_views(self._views, self._door, self._image.preprocessing, known=known):
            self._digests[read.place] = read.sha256
            if isinstance(read.pixels, ItemError):
                self._failures[read.place] = read.pixels.message
            elif read.pixels is not None:
                seen.note([(self._views[read.place].uri, read.fingerprint, read.sha256)])
                yield self._keys(read.place)[0], read.pixels

    def _changed(self, places: Sequence[int]) -> Iterator[tuple[bytes, Pixels]]:
        wanted = [self._views[place] for place in places]
        for read in read_views(wanted, self._door, self._image.preprocessing, larger=KEPT):
            place = places[read.place]
            self._done += 1
            self._run.on_stage("features", self._done, len(self._views))
            if not isinstance(read.pixels, np.ndarray):
                raise UserError(f"{self._views[place].uri} changed while it was read: start again.")
            for variant, key in enumerate(self._keys(place)[1:], start=1):
                change = self._changes.draw(np.random.default_rng([variant, *key[:8]]))
                yield key, change(read.pixels, self._image.preprocessing.size)

    def _append(self, items: Iterable[tuple[bytes, Pixels]]) -> None:
        """Encode and keep what the store has not."""
        for batch in _batches(((key, pixels) for key, pixels in items if key not in self._store), ENCODED_AT_ONCE):
            fresh = dict(batch)
            # Of pictures that are all mirrored, stack would keep the order in memory.
            vectors = self._encoder.encode(np.ascontiguousarray(np.stack(list(fresh.values()))))
            self._store.append(list(fresh), vectors.astype(np.float16))


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
