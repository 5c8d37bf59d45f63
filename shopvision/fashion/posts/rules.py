"""Which posts give training pairs, and which products of them: the rules one by one, without any model.

From the published way of labelling posts, with two differences: only classes that the index knows count (of twelve
classes two gloves would reject most posts), and a thumbnail without a garment loses its own pair and not the others'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shopvision.errors import UserError

if TYPE_CHECKING:
    from shopvision.fashion.detection.regions import Region
    from shopvision.fashion.posts.records import TaggedProduct

MOST_PHOTO_DISTANCE = 4  # bits; see ``photo_hash.MOST_DISTANCE``

# Why a post gives no pair.
NO_PRODUCTS = "no_products"
NO_THUMBNAILS = "no_thumbnails"
SAME_PHOTO = "same_photo"
NO_GARMENT = "no_garment"
TOO_MANY_SHOES = "too_many_shoes"
REPEATED_CLASS = "repeated_class"
NO_USABLE_THUMBNAIL = "no_usable_thumbnail"
THUMBNAILS_OF_ONE_CLASS = "thumbnails_of_one_class"
NO_PAIR = "no_pair"
# Why a product gives none.
NO_THUMBNAIL = "no_thumbnail"
SMALL_THUMBNAIL = "small_thumbnail"
UNSURE_CLASS = "unsure_class"
OTHER_CLASS = "other_class"
NOT_IN_PHOTO = "not_in_photo"
PERSON = "person"


@dataclass(frozen=True)
class LabelRules:
    """What posts and thumbnails must fulfil.

    Attributes:
        classes: that the index knows, and that pairs are made of; by default those that detector and classifier both
            know, but for ``left_out``. Garments and thumbnails of other classes count for nothing.
        left_out: classes of thumbnails that are no garments.
        score: garments must be above it.
        same_class_iou: of two boxes of one class that overlap by more, the better one stays.
        any_class_iou: likewise of two boxes of any classes.
        smallest_garment: pixels of the photo that both sides of a box must have.
        shoes: the class that a person wears two of.
        max_shoes: boxes of it; with more there are several people.
        probability: that the classifier must give a thumbnail's class at least.
        smallest_thumbnail: pixels that both sides of a thumbnail must have.
        photo_distance: bits in which the hashes of two photos differ at most where they are one; None keeps all.

    Raises:
        UserError: a value that makes no sense.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's settings of a dataclass

    classes: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ("etc",)
    score: float = 0.5
    same_class_iou: float = 0.75
    any_class_iou: float = 0.9
    smallest_garment: float = 16.0
    shoes: str = "shoes"
    max_shoes: int = 2
    probability: float = 0.8
    smallest_thumbnail: int = 200
    photo_distance: int | None = MOST_PHOTO_DISTANCE

    def __post_init__(self) -> None:
        for name in ("score", "same_class_iou", "any_class_iou", "probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}: give a number from 0 to 1.")
        for name in ("smallest_garment", "smallest_thumbnail"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)}: give pixels, from 0 on.")
        if self.max_shoes < 1:
            raise UserError(f"max_shoes is {self.max_shoes}: give 1 or more.")
        if self.photo_distance is not None and not 0 <= self.photo_distance <= MOST_PHOTO_DISTANCE:
            raise UserError(f"photo_distance is {self.photo_distance}: give 0 to {MOST_PHOTO_DISTANCE}, or null.")
        if self.classes is not None and not self.classes:
            raise UserError("classes is empty: name some, or leave it out.")


@dataclass(frozen=True, slots=True)
class SeenThumbnail:
    """What a classifier says of a thumbnail.

    Attributes:
        size: (width, height) of the original, in pixels.
        label: its most probable class.
        probability: of that class.
    """

    size: tuple[int, int]
    label: str
    probability: float


@dataclass(frozen=True, slots=True)
class PairDecision:
    """A product's pair, or why it has none: then ``reason`` says it and ``garment`` is None."""

    product: TaggedProduct
    thumbnail: SeenThumbnail | None = None
    garment: Region | None = None
    reason: str | None = None


def indexed_classes(detector: Sequence[str], classifier: Sequence[str], rules: LabelRules) -> frozenset[str]:
    """The classes that pairs are made of, from the classes of both models.

    Raises:
        UserError: a model does not know a class that is named; or they have none in common.
    """
    both = {*detector} & {*classifier} - {*rules.left_out}
    if rules.classes is not None:
        for name in rules.classes:
            for model, known in (("detector", detector), ("thumbnail classifier", classifier)):
                if name not in known:
                    raise UserError(f"The {model} knows no class {name!r}, only {', '.join(known)}: correct classes.")
        return frozenset(rules.classes)
    if not both:
        raise UserError(
            f"Detector ({', '.join(detector)}) and thumbnail classifier ({', '.join(classifier)}) have no class in "
            "common: use models of the same classes."
        )
    return frozenset(both)


def reject_products(products: Sequence[TaggedProduct]) -> str | None:
    """A post needs a product, and one of its products a thumbnail."""
    if not products:
        return NO_PRODUCTS
    return None if any(product.thumbnail for product in products) else NO_THUMBNAILS


def of_classes(regions: Iterable[Region], classes: Collection[str]) -> list[Region]:
    """The garments that count."""
    return [region for region in regions if region.label in classes]


def too_many_shoes(garments: Iterable[Region], rules: LabelRules) -> bool:
    """One person wears two shoes."""
    return sum(garment.label == rules.shoes for garment in garments) > rules.max_shoes


def repeats_a_class(garments: Iterable[Region], rules: LabelRules) -> bool:
    """Of all but shoes one person wears one; with two nobody knows which is tagged."""
    counts = Counter(garment.label for garment in garments if garment.label != rules.shoes)
    return any(count > 1 for count in counts.values())


def reject_photo(garments: Sequence[Region], rules: LabelRules) -> str | None:
    """A photo must show one person, in something."""
    if not garments:
        return NO_GARMENT
    if too_many_shoes(garments, rules):
        return TOO_MANY_SHOES
    return REPEATED_CLASS if repeats_a_class(garments, rules) else None


def best_of_each_class(garments: Iterable[Region]) -> dict[str, Region]:
    """Of two shoes the one that the detector is surer of."""
    best: dict[str, Region] = {}
    for garment in garments:
        if garment.label not in best or garment.score > best[garment.label].score:
            best[garment.label] = garment
    return best


def reject_thumbnail(thumbnail: SeenThumbnail, classes: Collection[str], rules: LabelRules) -> str | None:
    """A thumbnail must be large, and surely of a class that counts."""
    if min(thumbnail.size) < rules.smallest_thumbnail:
        return SMALL_THUMBNAIL
    if not thumbnail.probability >= rules.probability:  # NaN is not
        return UNSURE_CLASS
    return None if thumbnail.label in classes else OTHER_CLASS


def pair_up(
    products: Iterable[TaggedProduct],
    thumbnails: Mapping[str, SeenThumbnail | str],
    garments: Iterable[Region],
    classes: Collection[str],
    rules: LabelRules,
) -> tuple[str | None, list[PairDecision]]:
    """Each product with the garment of its class, and why the post gives no pair, if it gives none.

    Args:
        products: of the post.
        thumbnails: address -> what was seen, or the reason code why it cannot be read.
        garments: of a photo that no rule rejects.
        classes: that count.
        rules: what must be fulfilled.
    """
    judged = [_judged(product, thumbnails, classes, rules) for product in products]
    usable = Counter(one.thumbnail.label for one in judged if one.reason is None and one.thumbnail is not None)
    if not usable:
        return NO_USABLE_THUMBNAIL, judged
    if max(usable.values()) > 1:
        reason = THUMBNAILS_OF_ONE_CLASS
        return reason, [PairDecision(one.product, one.thumbnail, reason=one.reason or reason) for one in judged]
    best = best_of_each_class(garments)
    pairs = [_with_garment(one, best) for one in judged]
    return (None if any(pair.reason is None for pair in pairs) else NO_PAIR), pairs


def _judged(
    product: TaggedProduct,
    thumbnails: Mapping[str, SeenThumbnail | str],
    classes: Collection[str],
    rules: LabelRules,
) -> PairDecision:
    if product.thumbnail is None:
        return PairDecision(product, reason=NO_THUMBNAIL)
    seen = thumbnails[product.thumbnail]
    if isinstance(seen, str):
        return PairDecision(product, reason=seen)
    return PairDecision(product, seen, reason=reject_thumbnail(seen, classes, rules))


def _with_garment(one: PairDecision, best: Mapping[str, Region]) -> PairDecision:
    if one.reason is not None or one.thumbnail is None:
        return one
    garment = best.get(one.thumbnail.label)
    reason = NOT_IN_PHOTO if garment is None else None
    return PairDecision(one.product, one.thumbnail, garment, reason)
