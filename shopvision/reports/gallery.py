"""A page with every picture that was scored for a text, from the best to the worst; thousands of them in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shopvision.errors import UserError
from shopvision.images.near_duplicates import leaders
from shopvision.reports.page import render_page

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images import PictureDoor

NEARLY_SAME = 0.98
# Pixels a side by how many pictures the page holds: 5,000 make a file of some 15 MB.
SIDES = ((300, 180), (1_500, 128), (10_000, 96))
MOST_PICTURES = 10_000  # in one page, of all texts together


@dataclass(frozen=True, slots=True)
class GalleryPicture:
    """A picture with its score.

    Attributes:
        uri: its address.
        score: for the text; higher is better.
        title: what stands below it.
        note: smaller, below that.
        is_right: whether it shows what the text says, where that is known.
    """

    uri: str
    score: float
    title: str
    note: str = ""
    is_right: bool | None = None


@dataclass(frozen=True)
class GalleryQuery:
    """A text, and the pictures that were compared with it.

    Attributes:
        text: as it was asked.
        pictures: n of them, in any order.
        vectors: (n, d) float32 of unit length: pictures that are nearly the same are folded; None folds none.
        left_out: pictures between the best and the worst that are not among them.
    """

    text: str
    pictures: Sequence[GalleryPicture]
    vectors: NDArray[np.float32] | None = None
    left_out: int = 0


def require_place(output: Path) -> None:
    """Refuse a page that could not be written, before anything is computed for it.

    Raises:
        UserError: there is no folder for it.
    """
    if not output.parent.is_dir() or output.is_dir():
        raise UserError(f"{output} cannot be written: name a file in a folder that exists.")


def write_gallery(
    output: Path,
    queries: Sequence[GalleryQuery],
    *,
    title: str = "Pictures for a text",
    subtitle: str = "Every picture with its score, the best first.",
    facts: Sequence[tuple[str, str]] = (),
    least: float | None = None,
    nearly_same: float = NEARLY_SAME,
    door: PictureDoor | None = None,
) -> None:
    """Write the page, with small pictures inside. Of more than ``MOST_PICTURES`` it shows the best and the worst.

    Args:
        output: the HTML file.
        queries: texts with their pictures.
        title: of the page.
        subtitle: a sentence below it.
        facts: (name, value) pairs shown on top.
        least: score from which on a picture counts as right; marked among the scores.
        nearly_same: a cosine; of pictures that are nearer the best one stands for the others.
        door: that pictures come through; by default as the settings say.

    Raises:
        UserError: the file cannot be written.
    """
    each = max(2, MOST_PICTURES // max(1, len(queries)))
    numbers: dict[str, int] = {}
    shown = [_shown(query, each, nearly_same, numbers) for query in queries]
    render_page(
        "gallery.html",
        output,
        {number: uri for uri, number in numbers.items()},
        door,
        side=next((side for most, side in SIDES if len(numbers) <= most), SIDES[-1][1]),
        title=title,
        subtitle=subtitle,
        facts=[("pictures", f"{sum(len(query.pictures) for query in queries):,}"), *facts],
        queries=shown,
        least=least,
    )


def _shown(query: GalleryQuery, most: int, nearly_same: float, numbers: dict[str, int]) -> dict[str, Any]:
    """What the page's script reads of a text: pictures by falling score, those that are folded behind their leader."""
    scores = np.array([one.score for one in query.pictures], np.float64)
    order = np.argsort(-scores, kind="stable")
    kept = order if len(order) <= most else np.concatenate([order[: most - most // 2], order[-(most // 2) :]])
    first = np.arange(len(kept))
    if query.vectors is not None and len(kept):
        first = leaders(query.vectors[kept], nearly_same)
    rows = [
        {
            "score": round(one.score, 4), "title": one.title, "note": one.note, "right": one.is_right,
            "picture": numbers.setdefault(one.uri, len(numbers)), "leader": int(leader),
        }
        for one, leader in zip((query.pictures[row] for row in kept), first, strict=True)
    ]  # fmt: skip
    return {"text": query.text, "rows": rows, "left_out": query.left_out + len(order) - len(kept)}
