"""From an item's candidates to the pictures that represent it: the best first, none twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shopvision.images.near_duplicates import leaders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.selection.library import FoundPicture
    from shopvision.selection.picture_vectors import StoredVector

OWN, CATEGORY, LIBRARY = "own", "category", "library"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that may represent an item.

    Attributes:
        source: whose it is: the item's ``own``, another's of its ``category``, or any of the ``library``.
        recall: what the recall model sees in it.
        ranked: what the ranker reads of it: (d,) float32.
        stands_for: pictures of the library that are nearly the same.
    """

    image_id: int
    source: str
    recall: StoredVector
    ranked: NDArray[np.float32]
    stands_for: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SelectedPicture:
    """A picture's place among those that represent an item.

    Attributes:
        rank: from 1.
        recall_score: cosine of picture and text.
        click_score: of the ranker; None without one.
        stands_for: candidates that are nearly the same.
    """

    image_id: int
    rank: int
    recall_score: float
    click_score: float | None
    source: str
    stands_for: tuple[int, ...]


def gather(
    own: Sequence[int],
    found: Sequence[FoundPicture],
    recall: Mapping[int, StoredVector],
    ranker: Mapping[int, StoredVector],
) -> list[Candidate]:
    """The candidates that have their vectors: the item's own first, then what was found."""
    sources: list[tuple[int, str, tuple[int, ...]]] = [(image_id, OWN, ()) for image_id in own]
    sources += [(one.image_id, CATEGORY if one.in_category else LIBRARY, one.stands_for) for one in found]
    return [
        Candidate(image_id, source, recall[image_id], ranker[image_id].vector, stands_for)
        for image_id, source, stands_for in sources
        if image_id in recall and image_id in ranker
    ]


def choose(
    candidates: Sequence[Candidate],
    query: NDArray[np.float32],
    click_scores: NDArray[np.float32] | None,
    *,
    top_k: int,
    nearly_same: float,
) -> tuple[list[SelectedPicture], int]:
    """The ``top_k`` best pictures, and how many candidates are nearly the same as a better one.

    Args:
        candidates: n of them; of equal scores the earlier one comes first.
        query: (d,) float32, the vector of the item's text.
        click_scores: (n,) of the ranker; without them the recall score orders.
        top_k: how many are kept.
        nearly_same: a cosine; of pictures that are nearer, or have equal bytes, the best one is kept.
    """
    seen = np.stack([one.recall.vector for one in candidates])
    recall_scores = seen @ query
    order = np.argsort(-(recall_scores if click_scores is None else click_scores), kind="stable")
    first = order[leaders(seen[order], nearly_same, [candidates[row].recall.sha256 for row in order])]
    stands_for: dict[int, list[int]] = {}
    kept: list[int] = []
    for row, leader in zip(order.tolist(), first.tolist(), strict=True):
        if row == leader:
            kept.append(row)
            stands_for[row] = list(candidates[row].stands_for)
        else:
            stands_for[leader] += [candidates[row].image_id, *candidates[row].stands_for]
    pictures = [
        SelectedPicture(
            candidates[row].image_id, place, float(recall_scores[row]),
            None if click_scores is None else float(click_scores[row]), candidates[row].source, tuple(stands_for[row]),
        )
        for place, row in enumerate(kept[:top_k], 1)
    ]  # fmt: skip
    repeated = len(order) - len(kept) + sum(len(one.stands_for) for one in candidates)
    return pictures, repeated
