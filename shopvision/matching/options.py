"""What a matching may be told: how candidates are found, what a probability means, how careful groups are.

Light to import, because the parameters of ``tasks.score_pairs`` are made of these. Values out of range are refused
where an instance is made, names that there are not where one is made from JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from shopvision.errors import UserError

Source = Literal["code", "attribute", "words", "text_vector", "picture", "same_picture"]
SOURCES: tuple[Source, ...] = get_args(Source)
TEXT_SOURCES: tuple[Source, ...] = ("code", "attribute", "words")
Within = Literal["category", "root_category", "any"]

_NO_OTHER_NAMES = {"extra": "forbid"}  # pydantic's settings of a dataclass


@dataclass(frozen=True)
class Thresholds:
    """A probability of ``same`` and above is that verdict, of ``different`` and below that one, else ``review``.

    Raises:
        UserError: they are out of order.
    """

    __pydantic_config__ = _NO_OTHER_NAMES

    same: float
    different: float

    def __post_init__(self) -> None:
        if not 0 <= self.different <= self.same <= 1:
            raise UserError(
                f"Thresholds different={self.different}, same={self.same}: give 0 <= different <= same <= 1."
            )


@dataclass(frozen=True)
class CascadeOptions:
    """A two-tower that decides first: what is at most ``low`` or at least ``high`` the model need not see.

    Attributes:
        model: ``name:tag``; by default the version that is active for the role ``pair_blocker``.
        low: by default its threshold for ``different``, or that of the model where it is lower.
        high: by default its threshold for ``same``, or that of the model where it is higher.
    """

    __pydantic_config__ = _NO_OTHER_NAMES

    model: str | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BlockingOptions:
    """How candidates are found.

    Attributes:
        max_per_item: how many partners one item looks up at most; the strongest stay. Others may still find it, so
            there are at most ``max_per_item`` pairs for each due item, whatever the size of the catalogue.
        sources: what may bring two items together: a model ``code``, a rare ``attribute`` value, rare ``words`` of the
            title, ``text_vector`` and ``picture`` that are near, the ``same_picture`` (equal bytes, or nearly so).
        neighbours: of one item by words, by its text vector, and by its pictures.
        min_similarity: of such a neighbour, by cosine; less alike is not worth scoring.
        same_picture_similarity: from which cosine of the catalogue encoder on two pictures count as copies. On shop
            photos EfficientNet-Lite0 puts nearly all copies above it that were compressed again, halved in size or cut
            by 3 % at each side, and no other article; what was cut more is still among the nearest.
        rare_value_limit: a value or a picture that more items share is no evidence.
        within: items are compared where one's category path begins with the other's (``category``), where both have the
            same first part (``root_category``), or always. An item without a category is compared with any.

    Raises:
        UserError: a value that makes no sense.
    """

    __pydantic_config__ = _NO_OTHER_NAMES

    max_per_item: int = 50
    sources: tuple[Source, ...] = SOURCES
    neighbours: int = 20
    min_similarity: float = 0.1
    same_picture_similarity: float = 0.95
    rare_value_limit: int = 50
    within: Within = "root_category"

    def __post_init__(self) -> None:
        for name, least in (("max_per_item", 1), ("neighbours", 1), ("rare_value_limit", 2)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}: blocking needs at least {least}.")
        for name in ("min_similarity", "same_picture_similarity"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}: a similarity is from 0 to 1.")
        unknown = [source for source in self.sources if source not in SOURCES]
        if unknown or not self.sources:
            raise UserError(f"Blocking sources {list(self.sources)}: give some of {', '.join(SOURCES)}.")
        if self.within not in get_args(Within):
            raise UserError(f"within is {self.within!r}: use one of {', '.join(get_args(Within))}.")


@dataclass(frozen=True)
class GroupOptions:
    """How careful grouping is.

    Attributes:
        max_size: items of a group at most.
        different_below: a pair with verdict "different" of at most this probability keeps its two items apart; one
            with a higher probability is outvoted by the equal pairs around it.
        one_per_source: a group holds one item of each source at most, unless people said otherwise: for catalogues that
            list nothing twice, such as a supplier's. Items without a source go with any.

    Raises:
        UserError: a value that makes no sense.
    """

    __pydantic_config__ = _NO_OTHER_NAMES

    max_size: int = 50
    different_below: float = 0.05
    one_per_source: bool = False

    def __post_init__(self) -> None:
        if self.max_size < 2:
            raise UserError(f"max_size is {self.max_size}: a group has 2 items at least.")
        if not 0 <= self.different_below <= 1:
            raise UserError(f"different_below is {self.different_below}: a probability is between 0 and 1.")


KeepRule = Literal["source", "sold", "complete", "resolution", "oldest", "newest"]


@dataclass(frozen=True)
class KeepOptions:
    """Which item of a group to keep.

    Attributes:
        rules: asked in order, the first that tells two items apart decides: ``source``, the one that comes first in
            ``sources``; ``sold``, the most sold; ``complete``, the one with most texts, attributes and pictures;
            ``resolution``, that of the leading picture with most pixels; ``oldest`` or ``newest`` in the catalogue.
        sources: from the one whose items are liked best on; others follow.
        sold_key: the key of the items' records that says how often each was sold.

    Raises:
        UserError: an unknown rule, one given twice, or none.
    """

    __pydantic_config__ = _NO_OTHER_NAMES

    rules: tuple[KeepRule, ...] = ("source", "sold", "complete", "resolution", "oldest")
    sources: tuple[str, ...] = ()
    sold_key: str = "sold"

    def __post_init__(self) -> None:
        known = get_args(KeepRule)
        if not self.rules or len({*self.rules}) < len(self.rules) or not {*self.rules} <= {*known}:
            raise UserError(f"Rules of what to keep {list(self.rules)}: give some of {', '.join(known)}, each once.")


class MatchingParams(Protocol):
    """A matching job's parameters; ``tasks.score_pairs.ScoreParams`` says what they mean."""

    scope: Literal["changed", "all"]
    item_ids: list[str] | None
    categories: list[str] | None
    sources: list[str] | None
    pairs_file: str | None
    model: str | None
    blocker: str | None
    cascade: bool | CascadeOptions
    thresholds: Thresholds | None
    group: bool | None
    blocking: BlockingOptions
    grouping: GroupOptions
    keep: KeepOptions
