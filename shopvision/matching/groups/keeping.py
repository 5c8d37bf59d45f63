"""Of the items of a group the one to keep, by rules, and what the others have that it lacks; pure functions.

Rules are asked in order, and the first that tells two items apart decides. A rule that knows nothing of an item, as of
how often it was sold, puts it behind all of which it knows something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shopvision.items.text_normalisation import attribute_key
from shopvision.matching.options import KeepOptions, KeepRule

BY_ID = "id"  # what decides where all rules see no difference
TEXT_FIELDS = ("title", "brand", "category", "description")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of an item: its address, and what is known of its bytes and of its width times height."""

    uri: str
    sha256: bytes | None = None
    pixels: int | None = None


@dataclass(frozen=True)
class Member:
    """An item of a group, as far as it matters which one to keep.

    Attributes:
        texts: of ``TEXT_FIELDS``, empty where there is none.
        attributes: (key, value) of the item, without those of its variants.
        variant_keys: names of its variants' attributes.
        has_price: whether it has one.
        pictures: the leading one first.
        sold: how often; None where nobody knows.
    """

    item_id: str
    created_at: datetime
    texts: Mapping[str, str] = field(default_factory=dict)
    attributes: Sequence[tuple[str, str]] = ()
    variant_keys: Sequence[str] = ()
    has_price: bool = False
    pictures: Sequence[Picture] = ()
    source: str | None = None
    sold: float | None = None

    @property
    def completeness(self) -> int:
        """How many of the texts, price, pictures and distinct attributes it has."""
        keys = {attribute_key(key) for key in (*(key for key, _ in self.attributes), *self.variant_keys)}
        return sum(bool(self.texts.get(name)) for name in TEXT_FIELDS) + self.has_price + len(self.pictures) + len(keys)


@dataclass(frozen=True)
class Kept:
    """What became of a group.

    Attributes:
        item_id: of the item to keep.
        rule: what told it from the next best, ``BY_ID`` where no rule did.
        lends: item -> what it has that the one to keep lacks: ``{"field", "values"}``, of an attribute also ``"key"``.
            What several have is lent by the best of them.
    """

    item_id: str
    rule: str
    lends: dict[str, list[dict[str, Any]]]


def choose(members: Sequence[Member], options: KeepOptions) -> Kept:
    """The item to keep of one or more."""
    order = {source: place for place, source in enumerate(options.sources)}
    measures: dict[KeepRule, Callable[[Member], float]] = {
        "source": lambda member: -order.get(member.source or "", len(order)),
        "sold": lambda member: -1 if member.sold is None else member.sold,
        "complete": lambda member: member.completeness,
        "resolution": lambda member: (member.pictures[0].pixels or 0) if member.pictures else -1,
        "oldest": lambda member: -member.created_at.timestamp(),
        "newest": lambda member: member.created_at.timestamp(),
    }
    worth = {one.item_id: [measures[rule](one) for rule in options.rules] for one in members}
    ranked = sorted(members, key=lambda one: ([-value for value in worth[one.item_id]], one.item_id))
    best, *others = (worth[one.item_id] for one in ranked)
    rule = BY_ID
    if others:
        rule = next((rule for rule, a, b in zip(options.rules, best, others[0], strict=True) if a != b), BY_ID)
    return Kept(ranked[0].item_id, rule, _lent(ranked[0], ranked[1:]))


def _lent(kept: Member, others: Sequence[Member]) -> dict[str, list[dict[str, Any]]]:
    texts = {name for name in TEXT_FIELDS if kept.texts.get(name)}
    keys = {attribute_key(key) for key in (*(key for key, _ in kept.attributes), *kept.variant_keys)}
    pictures: set[str | bytes] = {mark for picture in kept.pictures for mark in _marks(picture)}
    lends: dict[str, list[dict[str, Any]]] = {}
    for other in others:
        loans: list[dict[str, Any]] = []
        for name in TEXT_FIELDS:
            if name not in texts and other.texts.get(name):
                texts.add(name)
                loans.append({"field": name, "values": [other.texts[name]]})
        several: dict[str, tuple[str, list[str]]] = {}
        for key, value in other.attributes:
            if attribute_key(key) not in keys:
                values = several.setdefault(attribute_key(key), (key, []))[1]
                values += [value] if value not in values else []
        keys |= several.keys()
        loans += [{"field": "attributes", "key": key, "values": values} for key, values in several.values()]
        uris = []
        for picture in other.pictures:
            if pictures.isdisjoint(_marks(picture)):
                uris.append(picture.uri)
            pictures |= _marks(picture)
        loans += [{"field": "images", "values": uris}] if uris else []
        if loans:
            lends[other.item_id] = loans
    return lends


def _marks(picture: Picture) -> set[str | bytes]:
    """By which a picture is the same as another: its address, its bytes."""
    return {picture.uri} if picture.sha256 is None else {picture.uri, picture.sha256}
