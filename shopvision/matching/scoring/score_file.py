"""Pairs of a file scored without a database: what can be scored is, the rest is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from shopvision.errors import ItemError
from shopvision.images import PictureDoor
from shopvision.matching.scoring.item_pictures import vectors_in_batches
from shopvision.matching.scoring.submission import SubmissionRow, similarities, threshold_between
from shopvision.reports.row_writer import Kind
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.items.item import Item
    from shopvision.items.pair_table import OnFailure, PairTable
    from shopvision.matching.scoring.predict import BaseScorer

Row = tuple[str, str, float, str]

COLUMNS: dict[str, Kind] = {
    "left_item_id": "string", "right_item_id": "string", "probability": "float32", "verdict": "string",
}  # fmt: skip
PAIRS_AT_ONCE = 20_000


def score_table(scorer: BaseScorer, table: PairTable, on_failure: OnFailure) -> Iterator[tuple[int, list[Row]]]:
    """Probabilities and verdicts of pairs, in their order, some thousand at a time.

    Args:
        scorer: keeps its item vectors for the length of the call: ``vector_dimension`` times 4 bytes an item.
        table: the pairs.
        on_failure: is told of each pair with an item that the model cannot read.

    Yields:
        how many pairs are done, and the rows (left id, right id, probability, verdict) of the last ones.
    """
    vectors, failed = _vectors(scorer, table)
    for start in range(0, len(table), PAIRS_AT_ONCE):
        batch = table.select(np.arange(start, min(start + PAIRS_AT_ONCE, len(table))))
        batch = _readable(batch, failed, on_failure)
        probabilities = _probabilities(scorer, batch, vectors)
        verdicts = scorer.verdicts(probabilities)
        scored = zip(_ids(batch), probabilities.tolist(), verdicts.tolist(), strict=True)
        yield min(start + PAIRS_AT_ONCE, len(table)), [(*ids, value, word) for ids, value, word in scored]


def submission_of(scorer: BaseScorer, table: PairTable, on_failure: OnFailure) -> tuple[str, list[SubmissionRow]]:
    """Pairs as they are submitted: the name of the similarity, and the rows.

    A two-tower with a metric head submits its item vectors, with the threshold at which their similarity decides these
    pairs as the model does; any other model the probabilities of the pairs.

    Args:
        scorer: as in ``score_table``.
        table: the pairs.
        on_failure: as in ``score_table``.
    """
    vectors, failed = _vectors(scorer, table)
    batch = _readable(table, failed, on_failure)
    probabilities = _probabilities(scorer, batch, vectors)
    name, threshold = _similarity(scorer), scorer.card.thresholds["decision"]
    if name == "second" or vectors is None:
        sides = np.stack([1 - probabilities, probabilities])[:, :, None]
    else:
        sides = np.stack([vectors[batch.left], vectors[batch.right]])
        if len(batch):
            threshold = threshold_between(similarities(name, *sides), probabilities >= threshold)
    rows = zip(_ids(batch), sides[0], sides[1], strict=True)
    return name, [SubmissionRow(left, right, u, v, threshold) for (left, right), u, v in rows]


def _similarity(scorer: BaseScorer) -> str:
    axes = scorer.card.architecture.arguments.get("axes", {})
    metric = axes.get("interaction") == "two_tower" and axes.get("head") == "metric"
    return str(axes["similarity"]) if metric else "second"


def _readable(table: PairTable, failed: Mapping[int, ItemError], on_failure: OnFailure) -> PairTable:
    """The pairs of which neither item failed."""
    ends = zip(table.left.tolist(), table.right.tolist(), strict=True)
    fit = np.ones(len(table), bool)
    for row, (left, right) in enumerate(ends):
        reason = failed.get(left) or failed.get(right)
        if reason is not None:
            on_failure(_failure(table.items[left], table.items[right], reason))
            fit[row] = False
    return table.select(fit)


def _probabilities(scorer: BaseScorer, table: PairTable, vectors: NDArray[np.float32] | None) -> NDArray[np.float32]:
    rows, ends = np.unique(np.concatenate([table.left, table.right]), return_inverse=True)
    left, right = ends.reshape(2, -1)
    items = [table.items[row] for row in rows.tolist()]
    return scorer.score(items, left, right, None if vectors is None else vectors[rows])


def _ids(table: PairTable) -> Iterator[tuple[str, str]]:
    ends = zip(table.left.tolist(), table.right.tolist(), strict=True)
    return ((table.items[left].item_id, table.items[right].item_id) for left, right in ends)


def _failure(left: Item, right: Item, reason: ItemError) -> ItemError:
    return ItemError(reason.code, f"pair {left.item_id!r}, {right.item_id!r}: {reason.message}".rstrip("."))


def _vectors(scorer: BaseScorer, table: PairTable) -> tuple[NDArray[np.float32] | None, dict[int, ItemError]]:
    """(items, dimension) what the scorer keeps of items, zero where it was not made; and which items it cannot read."""
    result = np.zeros((len(table.items), scorer.vector_dimension or 0), np.float32)
    failed: dict[int, ItemError] = {}
    places = table.item_rows()
    with PictureDoor(get_settings()) as door:
        for batch in vectors_in_batches(scorer, table.used_items(), door):
            result[places[batch.rows]] = batch.vectors
            failed.update((int(places[row]), error) for row, error in batch.failed.items())
    return None if scorer.vector_dimension is None else result, failed
