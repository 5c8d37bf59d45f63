"""A page for whoever looks after training pairs: photo, garment and thumbnail side by side, wrong ones by a click."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import and_, func, select

from shopvision.database import snapshot
from shopvision.fashion.posts.export import count_reasons
from shopvision.fashion.posts.rules import PERSON
from shopvision.fashion.posts.tables import LabelledPost, Post, TrainingPair, TrainingPairReview
from shopvision.images import Box, PictureDoor
from shopvision.reports import render_page
from shopvision.reports.cutouts import WHOLE, read_cutouts
from shopvision.settings import get_settings

PAIRS = 300


@dataclass(frozen=True)
class ShownPair:
    """A pair as the page shows it.

    Attributes:
        box: of the garment in the photo, in pixels.
        size: (width, height) of the photo.
        is_new: whether the job of the page made it.
    """

    post_id: str
    product_id: str
    title: str
    category: str
    photo: str
    thumbnail: str
    box: Box
    size: tuple[int, int]
    garment_score: float
    class_probability: float
    is_new: bool

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the box, in percent of the photo."""
        (left, top, right, bottom), (width, height) = self.box, self.size
        return 100 * left / width, 100 * top / height, 100 * (right - left) / width, 100 * (bottom - top) / height

    @property
    def text(self) -> str:
        """What the page's filter looks through."""
        marks = ["new"] if self.is_new else []
        return " ".join([self.post_id, self.product_id, self.title, self.category, *marks]).lower()


@dataclass(frozen=True)
class PairsPage:
    """What the page shows: the pairs that nobody has decided, and what became of all posts and pairs, by reason."""

    pairs: list[ShownPair]
    undecided: int
    reasons: Mapping[str, Mapping[str, int]]


def pairs_page(detector: int, classifier: int, job_id: uuid.UUID, *, most: int = PAIRS) -> PairsPage:
    """The pairs of two model versions that nobody has decided, those that the job made first, the least sure first.

    Args:
        detector: id of the detector's version.
        classifier: id of the thumbnail classifier's version.
        job_id: whose pairs are marked.
        most: so many pairs at most.
    """
    new = (TrainingPair.job_id == job_id).label("is_new")
    reviewed = and_(
        TrainingPairReview.post_id == TrainingPair.post_id, TrainingPairReview.product_id == TrainingPair.product_id
    )
    wanted = (
        TrainingPair.detector_version_id == detector, TrainingPair.classifier_version_id == classifier,
        TrainingPair.state == "kept", ~select(TrainingPairReview.verdict).where(reviewed).exists(),
    )  # fmt: skip
    query = (
        select(*TrainingPair.__table__.c, LabelledPost.photo_size, Post.products, new)
        .join(
            LabelledPost,
            and_(
                LabelledPost.detector_version_id == TrainingPair.detector_version_id,
                LabelledPost.classifier_version_id == TrainingPair.classifier_version_id,
                LabelledPost.post_id == TrainingPair.post_id,
            ),
        )
        .join(Post, Post.post_id == TrainingPair.post_id)
        .where(*wanted)
        .order_by(
            new.desc(), func.least(TrainingPair.garment_score, TrainingPair.class_probability), TrainingPair.post_id,
            TrainingPair.product_id,
        )
        .limit(most)
    )  # fmt: skip
    with snapshot() as connection:
        rows = connection.execute(query).all()
        undecided = int(connection.scalar(select(func.count()).select_from(TrainingPair).where(*wanted)) or 0)
    return PairsPage([_shown(row) for row in rows], undecided, count_reasons(detector, classifier))


def write_report(
    output: Path,
    page: PairsPage,
    *,
    facts: Sequence[tuple[str, str]] = (),
    failures: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the page, with its pictures inside.

    Args:
        output: the HTML file.
        page: from ``pairs_page``.
        facts: (name, value) pairs shown on top.
        failures: ``item_key``, ``code`` and ``message`` of posts that failed.

    Raises:
        UserError: the file cannot be written.
    """
    parts: dict[str, tuple[str, Box]] = {}
    for number, pair in enumerate(page.pairs):
        parts[f"photo {number}"] = (pair.photo, WHOLE)
        parts[f"garment {number}"] = (pair.photo, pair.box)
        parts[f"thumbnail {number}"] = (pair.thumbnail, WHOLE)
    with PictureDoor(get_settings()) as door:
        made = read_cutouts(parts, door)
    counts = [
        ("posts", sum(page.reasons["posts"].values())),
        ("posts that give pairs", page.reasons["posts"].get("kept", 0)),
        ("pairs kept", page.reasons["pairs"].get("kept", 0)),
        ("pairs rejected by people", page.reasons["pairs"].get(PERSON, 0)),
    ]
    render_page(
        "training_pairs.html",
        output,
        {},
        made=made,
        title="Training pairs from posts",
        subtitle="Does the thumbnail show the garment in the box? Mark wrong pairs by a click; the file of your "
        "decisions goes into `shopvision posts review`.",
        facts=[(name, f"{count:,}") for name, count in counts] + list(facts),
        page=page,
        failures=failures,
    )


def _shown(row: Any) -> ShownPair:
    titles = {product["product_id"]: product["title"] for product in row.products}
    left, top, right, bottom = row.anchor_box
    return ShownPair(
        row.post_id, row.product_id, titles.get(row.product_id, ""), row.category, row.anchor_uri, row.positive_uri,
        (left, top, right, bottom), (row.photo_size[0], row.photo_size[1]), row.garment_score, row.class_probability,
        row.is_new,
    )  # fmt: skip
