"""A page of the texts whose pictures a recall model found worst: what stood before them, and what stood last."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shopvision.reports.gallery import MOST_PICTURES, GalleryPicture, GalleryQuery, write_gallery

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.selection.recall.evaluate import RecallEvaluation, Searched

MOST_TEXTS = 20  # each with 500 pictures of a larger library


def write_recall_page(
    evaluation: RecallEvaluation, output: Path, *, least: float | None, door: PictureDoor | None = None
) -> None:
    """Write the page. It holds ``MOST_TEXTS`` texts at most: those whose nearest right picture stands farthest behind.

    Args:
        evaluation: of a model version.
        output: the HTML file.
        least: score from which on a picture counts as right; marked among the scores.
        door: that pictures come through; by default as the settings say.

    Raises:
        UserError: the file cannot be written.
    """
    searched = evaluation.searched
    worst = np.argsort(searched.found.reciprocal_rank, kind="stable")[:MOST_TEXTS].tolist()
    owners = _owners(searched)
    each = max(2, MOST_PICTURES // max(1, len(worst)))
    hit = evaluation.metrics["hit_rate_5"]
    write_gallery(
        output,
        [_query(searched, owners, text, each) for text in worst],
        title="Pictures that texts find",
        subtitle="Texts whose pictures were found worst, the worst text first. What a text asks for is marked.",
        facts=[
            ("model", evaluation.model),
            ("texts", f"{len(worst):,} of {len(searched.texts):,}"),
            ("searched among", f"{len(searched.uris):,}"),
            ("hit rate at 5", f"{hit.value:.3f}"),
        ],
        least=least,
        door=door,
    )


def _owners(searched: Searched) -> dict[int, str]:
    """The first text that each picture is right for."""
    owners: dict[int, str] = {}
    for text, rows in zip(searched.texts, searched.right, strict=True):
        for row in rows:
            owners.setdefault(row, text)
    return owners


def _query(searched: Searched, owners: dict[int, str], text: int, most: int) -> GalleryQuery:
    """The best and the worst pictures of one text; what it asks for is there, wherever it stands."""
    scores = searched.vectors @ searched.text_vectors[text]
    right = set(searched.right[text])
    order = np.argsort(-scores, kind="stable")
    ends = max(2, most - len(right))
    kept = order if len(order) <= most else np.concatenate([order[: ends - ends // 2], order[-(ends // 2) :]])
    rows = list(dict.fromkeys([*kept.tolist(), *right]))
    pictures = [
        GalleryPicture(
            searched.uris[row], float(scores[row]), owners.get(row, ""), searched.uris[row].rpartition("/")[2],
            is_right=row in right,
        )
        for row in rows
    ]  # fmt: skip
    return GalleryQuery(searched.texts[text], pictures, searched.vectors[rows], len(order) - len(rows))
