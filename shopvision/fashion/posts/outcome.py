"""What came of one post."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shopvision.fashion.posts.rules import SAME_PHOTO

if TYPE_CHECKING:
    from shopvision.errors import ItemError
    from shopvision.fashion.posts.records import SocialPost
    from shopvision.fashion.posts.rules import PairDecision

# Of pictures: what may be over tomorrow although nothing changes here.
PASSING = ("unavailable", "timeout")


@dataclass(frozen=True)
class PostOutcome:
    """A post with its pairs, or why it has none.

    Attributes:
        post: as it was read.
        reason: the rule that rejects it; None where it gives a pair, or failed.
        failure: why its photo is no use.
        photo_hash: see ``photo_hash``; None where nobody looked at the photo.
        photo_size: (width, height) of the upright photo.
        garments: of indexed classes that are in it.
        same_as: the post that has nearly the same photo.
        pairs: one decision for each product, where somebody looked at the thumbnails.
    """

    post: SocialPost
    reason: str | None = None
    failure: ItemError | None = None
    photo_hash: int | None = None
    photo_size: tuple[int, int] | None = None
    garments: int = 0
    same_as: str | None = None
    pairs: Sequence[PairDecision] = field(default=())

    @property
    def state(self) -> str:
        """``kept``, ``rejected`` or ``failed``."""
        if self.failure is not None:
            return "failed"
        return "kept" if self.reason is None else "rejected"

    @property
    def is_final(self) -> bool:
        """Whether looking again would change nothing."""
        reasons = {pair.reason for pair in self.pairs} | {self.failure.code if self.failure else None}
        return reasons.isdisjoint(PASSING)

    def as_copy_of(self, post_id: str) -> PostOutcome:
        """The same, once it is known that another post has nearly the same photo."""
        return PostOutcome(
            self.post, SAME_PHOTO, photo_hash=self.photo_hash, photo_size=self.photo_size, garments=self.garments,
            same_as=post_id,
        )  # fmt: skip
