"""Pairs of a file scored without a database: what can be scored is, the rest is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from shopvision.errors import ItemError
from shopvision.matching.pictures import read_pictures
from shopvision.matching.record_files import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images.preprocessing import Preprocessing
    from shopvision.matching.predict import BaseScorer
    from shopvision.matching.records import Item
    from shopvision.matching.table import PairTable

Row = tuple[str, str, float, str]

COLUMNS: dict[str, Kind] = {
    "left_item_id": "string", "right_item_id": "string", "probability": "float32", "verdict": "string",
}  # fmt: skip
PAIRS_AT_ONCE = 20_000
ITEMS_AT_ONCE = 1_024


def score_table(
    scorer: BaseScorer, table: PairTable, on_failure: Callable[[ItemError], None]
) -> Iterator[tuple[int, list[Row]]]:
    """Probabilities and verdicts of pairs, in their order, some thousand at a time.

    Args:
        scorer: keeps its item vectors for the length of the call: ``vector_dimension`` times 4 bytes an item.
        table: the pairs.
        on_failure: is told of each pair with an item that the model cannot read.

    Yields:
        how many pairs are done, and the rows (left id, right id, probability, verdict) of the last ones.
    """
    failed = _unreadable(scorer, table)
    vectors = _vectors(scorer, table, failed)
    for start in range(0, len(table), PAIRS_AT_ONCE):
        left, right = table.left[start : start + PAIRS_AT_ONCE], table.right[start : start + PAIRS_AT_ONCE]
        fit = np.array([a not in failed and b not in failed for a, b in zip(left, right, strict=True)], bool)
        for a, b in zip(left[~fit].tolist(), right[~fit].tolist(), strict=True):
            on_failure(_failure(table.items[a], table.items[b], failed.get(a) or failed[b]))
        left, right = left[fit], right[fit]
        rows, ends = np.unique(np.concatenate([left, right]), return_inverse=True)
        items = [table.items[row] for row in rows.tolist()]
        ends = ends.reshape(2, -1)
        probabilities = scorer.score(items, ends[0], ends[1], None if vectors is None else vectors[rows])
        verdicts = scorer.verdicts(probabilities)
        scored = zip(left.tolist(), right.tolist(), probabilities.tolist(), verdicts.tolist(), strict=True)
        done = min(start + PAIRS_AT_ONCE, len(table))
        yield done, [(table.items[a].item_id, table.items[b].item_id, value, word) for a, b, value, word in scored]


def _failure(left: Item, right: Item, reason: ItemError) -> ItemError:
    return ItemError(reason.code, f"pair {left.item_id!r}, {right.item_id!r}: {reason.message}".rstrip("."))


def _unreadable(scorer: BaseScorer, table: PairTable) -> dict[int, ItemError]:
    failed = {}
    for row in table.item_rows().tolist():
        try:
            scorer.check(table.items[row])
        except ItemError as error:
            failed[row] = error
    return failed


def _vectors(scorer: BaseScorer, table: PairTable, failed: dict[int, ItemError]) -> NDArray[np.float32] | None:
    """(items, dimension); rows of items that are in no pair, or failed, are zero."""
    if scorer.vector_dimension is None:
        return None
    result = np.zeros((len(table.items), scorer.vector_dimension), np.float32)
    waiting = [row for row in table.item_rows().tolist() if row not in failed]
    for start in range(0, len(waiting), ITEMS_AT_ONCE):
        rows = waiting[start : start + ITEMS_AT_ONCE]
        pictures = None
        if scorer.preprocessing is not None:
            pictures = _pictures({row: table.items[row] for row in rows}, scorer.preprocessing, failed)
            rows = [row for row in rows if row not in failed]
        if rows:
            result[rows] = scorer.item_vectors([table.items[row] for row in rows], pictures)
    return result


def _pictures(
    items: dict[int, Item], preprocessing: Preprocessing, failed: dict[int, ItemError]
) -> list[NDArray[np.uint8] | None]:
    """Prepared pictures of the items that do not fail."""
    try:
        return [picture for _, some in read_pictures(list(items.values()), preprocessing) for picture in some]
    except ItemError:  # rarely; then it is worth to look at each on its own
        pictures = []
        for row, item in items.items():
            try:
                pictures += [picture for _, some in read_pictures([item], preprocessing) for picture in some]
            except ItemError as error:
                failed[row] = error
        return pictures
