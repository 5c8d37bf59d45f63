"""What a search answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from shopvision.images import Box


@dataclass(frozen=True, slots=True)
class FoundItem:
    """One item, with the picture of it that is nearest to the query.

    Attributes:
        region: which part of the picture; 0 is the whole.
        score: cosine similarity of that part.
        style: what it shares with its variants; None where it has none, or nobody asked.
        fits: whether it fits every filter that was asked for.
        colour_difference: from the query's colour (CIE76: distance in CIELAB; 2 is just visible); None where the colour
            was not asked for or is not known.
        variants: items that are not shown beside it: of the same style, or with nearly the same picture.
        is_comparable: whether one encoder made both vectors. Of two, the score means nothing; such items come last.
    """

    item_id: str
    title: str | None
    brand: str | None
    category: str | None
    price: Decimal | None
    currency: str | None
    image_id: int
    region: int
    uri: str
    score: float
    style: str | None
    fits: bool
    colour_difference: float | None = None
    variants: tuple[str, ...] = ()
    is_comparable: bool = True


@dataclass(frozen=True, slots=True)
class Garment:
    """A part of a photo with the items that look like it.

    Attributes:
        number: from 1 on, by falling score of the detector; 0 is the whole photo, or a box that was given.
        box: (left, top, right, bottom) in pixels of the upright photo at full scale.
        label: its class, in the detector's words; None where nobody said.
        score: of the detector, between 0 and 1; None likewise.
        items: the best first.
        notes: what there is to know about the answer, in sentences.
    """

    number: int
    box: Box
    label: str | None
    score: float | None
    items: tuple[FoundItem, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """The answer for one photo.

    Attributes:
        photo: as it was given; empty for bytes.
        size: (width, height) in pixels, upright.
        garments: what was searched with, by number.
        notes: what there is to know about all of them, in sentences.
        generation: of the index.
        model: ``name:tag`` of the model that the generation was made with.
        detector: ``name:tag``; None where none served.
        seconds: that each step took, of all photos that were searched for together.
    """

    photo: str
    size: tuple[int, int]
    garments: tuple[Garment, ...]
    notes: tuple[str, ...]
    generation: str
    model: str
    detector: str | None
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class PhotoFailure:
    """A photo that cannot be searched with, and why."""

    photo: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ItemResult:
    """The answer for an item: other items that look like any of its pictures; see ``PhotoResult``."""

    item_id: str
    items: tuple[FoundItem, ...]
    notes: tuple[str, ...]
    generation: str
    model: str


@dataclass(frozen=True, slots=True)
class TextResult:
    """The answer for a text: items whose pictures show what it says; see ``PhotoResult``.

    Attributes:
        text: as it was asked.
        least_score: cosine from which on a picture shows what a text says; None where the model does not tell.
    """

    text: str
    items: tuple[FoundItem, ...]
    notes: tuple[str, ...]
    generation: str
    model: str
    least_score: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)


PhotoOutcome: TypeAlias = PhotoResult | PhotoFailure
