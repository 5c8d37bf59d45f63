"""Posts through the models: photos to garments, the thumbnails of those that pass to classes, both to pairs.

Pictures are read ahead of the models. All photos go first, then all thumbnails of the posts that are left: each model
has full batches, a photo that a rule rejects costs no thumbnail, and one that several posts show is read once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shopvision.errors import ItemError
from shopvision.fashion.detection.regions import RegionRules
from shopvision.fashion.posts.outcome import PostOutcome
from shopvision.fashion.posts.photo_hash import photo_hash
from shopvision.fashion.posts.rules import (
    SAME_PHOTO,
    LabelRules,
    SeenThumbnail,
    indexed_classes,
    of_classes,
    pair_up,
    reject_photo,
    reject_products,
)
from shopvision.images.preprocessing import fit
from shopvision.images.reader import PictureReader, PictureRequest, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.fashion.detection.predict import Detector, PreparedPicture
    from shopvision.fashion.detection.regions import Region
    from shopvision.fashion.posts.records import SocialPost
    from shopvision.fashion.thumbnails.classifier import ThumbnailClassifier
    from shopvision.images import Decoded, PictureDoor

# How long a batch waits for pictures before it goes without them, so that a job that was cancelled ends.
PATIENCE_SECONDS = 2.0
# Pictures of one shape go through a detector together; of more that are at hand, more have one shape.
DETECTOR_BATCHES = 2

KnownPhotos = Callable[[Mapping[str, int]], Mapping[str, str]]
"""Hashes of photos by post -> for some of these the kept post that has nearly the same photo."""


class _Photo(NamedTuple):
    prepared: PreparedPicture
    hash: int
    size: tuple[int, int]


class _Thumbnail(NamedTuple):
    size: tuple[int, int]
    pixels: NDArray[np.uint8]


class _Passed(NamedTuple):
    """A photo that no rule rejects; its pixels are gone."""

    hash: int
    size: tuple[int, int]
    garments: list[Region]


class Labeller:
    """Two models and rules. One thread uses it.

    Attributes:
        model_seconds: that pictures spent in the models.
        model_pictures: how many went through one.
    """

    def __init__(
        self, detector: Detector, classifier: ThumbnailClassifier, rules: LabelRules, known_photos: KnownPhotos
    ) -> None:
        """Tie the models to the rules.

        Raises:
            UserError: the models and the rules have no classes in common.
        """
        self._detector, self._classifier, self._rules = detector, classifier, rules
        self._known_photos = known_photos
        self._classes = indexed_classes(detector.labels, classifier.labels, rules)
        self._regions = RegionRules(rules.score, rules.same_class_iou, rules.any_class_iou, rules.smallest_garment)
        self.model_seconds, self.model_pictures = 0.0, 0

    def label(
        self, posts: Sequence[SocialPost], door: PictureDoor, should_stop: Callable[[], bool]
    ) -> tuple[list[PostOutcome], list[SocialPost]]:
        """What came of the posts, and those that nothing came of because it was asked to stop.

        Args:
            posts: any number.
            door: that their pictures come through.
            should_stop: asked between batches.

        Raises:
            TransientError: a source of pictures is away for the moment.
            JobError: a model cannot run.
        """
        settled: dict[str, PostOutcome] = {}
        for post in posts:
            if (reason := reject_products(post.products)) is not None:
                settled[post.post_id] = PostOutcome(post, reason)
        waiting = self._look_at_photos(
            [post for post in posts if post.post_id not in settled], door, settled, should_stop
        )
        thumbnails = self._look_at_thumbnails([post for post in posts if post.post_id in waiting], door, should_stop)
        for post in posts:
            needed = {product.thumbnail for product in post.products if product.thumbnail}
            if post.post_id in waiting and needed <= thumbnails.keys():
                settled[post.post_id] = self._paired(post, waiting[post.post_id], thumbnails)
        return list(settled.values()), [post for post in posts if post.post_id not in settled]

    def _look_at_photos(
        self,
        posts: Sequence[SocialPost],
        door: PictureDoor,
        settled: dict[str, PostOutcome],
        should_stop: Callable[[], bool],
    ) -> dict[str, _Passed]:
        """The posts whose photo passes, by id; the others are noted as settled."""
        waiting: dict[str, _Passed] = {}
        at_once = DETECTOR_BATCHES * self._detector.batch_size
        reader = PictureReader(door, self._photo, target=self._detector.target, ahead=2 * at_once)
        with reader.read([PictureRequest(key, post.photo) for key, post in enumerate(posts)]) as reading:
            while reading.missing and not should_stop():
                photos: dict[int, _Photo] = {}
                for outcome in reading.take_many(at_once, PATIENCE_SECONDS):
                    read = whole(outcome)
                    if isinstance(read, ItemError):
                        settled[posts[outcome.key].post_id] = PostOutcome(posts[outcome.key], failure=read)
                    else:
                        photos[outcome.key] = read
                found = self._detect({posts[key]: photo for key, photo in sorted(photos.items())}, settled)
                waiting |= {post.post_id: one for post, one in found.items()}
        return waiting

    def _photo(self, decoded: Decoded) -> _Photo:
        return _Photo(self._detector.prepare(decoded), photo_hash(decoded), decoded.size)

    def _detect(
        self, photos: Mapping[SocialPost, _Photo], settled: dict[str, PostOutcome]
    ) -> dict[SocialPost, _Passed]:
        known = self._known_photos({post.post_id: photo.hash for post, photo in photos.items()})
        for post, photo in photos.items():
            if post.post_id in known:
                settled[post.post_id] = PostOutcome(
                    post, SAME_PHOTO, photo_hash=photo.hash, photo_size=photo.size, same_as=known[post.post_id]
                )
        new = {post: photo for post, photo in photos.items() if post.post_id not in known}
        started = time.perf_counter()
        results = self._detector.detect([photo.prepared for photo in new.values()], self._regions)
        self._count(started, len(new))
        waiting = {}
        for (post, photo), regions in zip(new.items(), results, strict=True):
            if isinstance(regions, ItemError):
                settled[post.post_id] = PostOutcome(post, failure=regions, photo_hash=photo.hash, photo_size=photo.size)
                continue
            garments = of_classes(regions, self._classes)
            reason = reject_photo(garments, self._rules)
            if reason is None:
                waiting[post] = _Passed(photo.hash, photo.size, garments)
            else:
                settled[post.post_id] = PostOutcome(
                    post, reason, photo_hash=photo.hash, photo_size=photo.size, garments=len(garments)
                )
        return waiting

    def _look_at_thumbnails(
        self, posts: Sequence[SocialPost], door: PictureDoor, should_stop: Callable[[], bool]
    ) -> dict[str, SeenThumbnail | str]:
        """What each address shows, or the reason code why it cannot be read; in the order of the posts."""
        addresses = list(dict.fromkeys(one.thumbnail for post in posts for one in post.products if one.thumbnail))
        seen: dict[str, SeenThumbnail | str] = {}
        at_once = self._classifier.batch_size
        reader = PictureReader(
            door, self._thumbnail, target=self._classifier.preprocessing.resized, ahead=2 * at_once
        )  # fmt: skip
        with reader.read([PictureRequest(key, uri) for key, uri in enumerate(addresses)], in_order=True) as reading:
            while reading.missing and not should_stop():
                thumbnails: dict[str, _Thumbnail] = {}
                for outcome in reading.take_many(at_once, PATIENCE_SECONDS):
                    read = whole(outcome)
                    if isinstance(read, ItemError):
                        seen[addresses[outcome.key]] = read.code
                    else:
                        thumbnails[addresses[outcome.key]] = read
                if thumbnails:
                    seen |= self._classify(thumbnails)
        return seen

    def _thumbnail(self, decoded: Decoded) -> _Thumbnail:
        return _Thumbnail(decoded.size, fit(decoded, self._classifier.preprocessing))

    def _classify(self, thumbnails: Mapping[str, _Thumbnail]) -> dict[str, SeenThumbnail]:
        started = time.perf_counter()
        probabilities = self._classifier.probabilities(np.stack([one.pixels for one in thumbnails.values()]))
        self._count(started, len(thumbnails))
        labels = self._classifier.labels
        # NaN would be the greatest; a row that has one says nothing.
        best = np.nan_to_num(probabilities, nan=0.0).argmax(1)
        return {
            address: SeenThumbnail(one.size, labels[place], float(row[place]))
            for (address, one), row, place in zip(thumbnails.items(), probabilities, best.tolist(), strict=True)
        }

    def _paired(self, post: SocialPost, one: _Passed, thumbnails: Mapping[str, SeenThumbnail | str]) -> PostOutcome:
        reason, pairs = pair_up(post.products, thumbnails, one.garments, self._classes, self._rules)
        return PostOutcome(
            post, reason, photo_hash=one.hash, photo_size=one.size, garments=len(one.garments), pairs=pairs
        )

    def _count(self, started: float, pictures: int) -> None:
        self.model_seconds += time.perf_counter() - started
        self.model_pictures += pictures
