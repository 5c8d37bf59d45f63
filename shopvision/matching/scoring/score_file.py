"""Pairs of a file scored without a database: what can be scored is, the rest is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shopvision.errors import ItemError
from shopvision.images import PictureDoor
from shopvision.matching.scoring.item_pictures import gather_vectors
from shopvision.matching.scoring.submission import SubmissionRow, similarities, threshold_between
from shopvision.reports.row_writer import Kind
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.items.pair_table import OnFailure, PairTable
    from shopvision.matching.scoring.head_similarity import HeadSimilarity
    from shopvision.matching.scoring.predict import BaseScorer

Row = tuple[str, str, float, str]

COLUMNS: dict[str, Kind] = {
    "left_item_id": "string", "right_item_id": "string", "probability": "float32", "verdict": "string",
}  # fmt: skip
NOTHING_IN_COMMON = "no member of the ensemble reads both: give both a title, or both a picture"

PAIRS_AT_ONCE = 20_000


def score_table(
    scorer: BaseScorer, table: PairTable, on_failure: OnFailure, *, picture_folders: Sequence[Path] = ()
) -> Iterator[tuple[int, list[Row]]]:
    """Probabilities and verdicts of pairs, in their order, some thousand at a time.

    Args:
        scorer: keeps its item vectors for the length of the call: ``vector_dimension`` times 4 bytes an item.
        table: the pairs.
        on_failure: is told of each pair with an item that the model cannot read.
        picture_folders: local folders that pictures may be read from beside those of the settings.

    Yields:
        how many pairs are done, and the rows (left id, right id, probability, verdict) of the last ones.
    """
    used, vectors, failed = _gathered(scorer, table, picture_folders)
    for start in range(0, len(used), PAIRS_AT_ONCE):
        rows = np.arange(start, min(start + PAIRS_AT_ONCE, len(used)))
        batch = _readable(scorer, used.select(rows), failed, on_failure)
        probabilities = _probabilities(scorer, batch, vectors)
        verdicts = scorer.verdicts(probabilities)
        scored = zip(_ids(batch), probabilities.tolist(), verdicts.tolist(), strict=True)
        yield min(start + PAIRS_AT_ONCE, len(table)), [(*ids, value, word) for ids, value, word in scored]


def submission_of(
    scorer: BaseScorer, table: PairTable, on_failure: OnFailure, *, picture_folders: Sequence[Path] = ()
) -> tuple[str | HeadSimilarity, list[SubmissionRow]]:
    """Pairs as they are submitted: the similarity, and the rows.

    A two-tower submits its item vectors, with the threshold at which their similarity (a metric, or what its head
    computes) decides these pairs as the model does; any other model the probabilities of the pairs.

    Args:
        scorer: as in ``score_table``.
        table: the pairs.
        on_failure: as in ``score_table``, as the next.
        picture_folders: see there.
    """
    used, vectors, failed = _gathered(scorer, table, picture_folders)
    batch = _readable(scorer, used, failed, on_failure)
    probabilities = _probabilities(scorer, batch, vectors)
    similarity, threshold = _similarity(scorer), scorer.card.thresholds["decision"]
    if similarity == "second" or vectors is None:
        sides = np.stack([1 - probabilities, probabilities])[:, :, None]
    else:
        sides = np.stack([vectors[batch.left], vectors[batch.right]])
        if len(batch):
            values = similarities(similarity, *sides) if isinstance(similarity, str) else similarity.of(*sides)
            threshold = threshold_between(values, probabilities >= threshold)
    rows = zip(_ids(batch), sides[0], sides[1], strict=True)
    return similarity, [SubmissionRow(left, right, u, v, threshold) for (left, right), u, v in rows]


def _similarity(scorer: BaseScorer) -> str | HeadSimilarity:
    axes = scorer.card.architecture.arguments.get("axes", {})
    if axes.get("interaction") == "two_tower" and axes.get("head") == "metric":
        return str(axes["similarity"])
    from shopvision.matching.scoring.predict import PairScorer

    learnt = scorer.head_similarity if isinstance(scorer, PairScorer) else None
    return "second" if learnt is None else learnt


def _readable(
    scorer: BaseScorer, table: PairTable, failed: Mapping[int, ItemError], on_failure: OnFailure
) -> PairTable:
    """The pairs of which neither item failed, and both are read by one model."""
    readable = table.without_items(failed)
    together = table.select(readable)
    apart = np.flatnonzero(readable)[~scorer.readable_pairs(together.items, together.left, together.right)]
    readable[apart] = False
    for row in np.flatnonzero(~readable).tolist():
        left, right = int(table.left[row]), int(table.right[row])
        reason = failed.get(left) or failed.get(right) or ItemError("nothing_in_common", NOTHING_IN_COMMON)
        ids = f"pair {table.items[left].item_id!r}, {table.items[right].item_id!r}"
        on_failure(ItemError(reason.code, f"{ids}: {reason.message}".rstrip(".")))
    return table.select(readable)


def _probabilities(scorer: BaseScorer, table: PairTable, vectors: NDArray[np.float32] | None) -> NDArray[np.float32]:
    part = table.compact()
    return scorer.score(part.items, part.left, part.right, None if vectors is None else vectors[table.item_rows()])


def _ids(table: PairTable) -> Iterator[tuple[str, str]]:
    ends = zip(table.left.tolist(), table.right.tolist(), strict=True)
    return ((table.items[left].item_id, table.items[right].item_id) for left, right in ends)


def _gathered(
    scorer: BaseScorer, table: PairTable, picture_folders: Sequence[Path]
) -> tuple[PairTable, NDArray[np.float32] | None, dict[int, ItemError]]:
    """The pairs without items that are in none, and what ``gather_vectors`` gives of the others."""
    used = table.compact()
    with PictureDoor(get_settings().with_image_roots(picture_folders)) as door:
        return used, *gather_vectors(scorer, used.items, door)
