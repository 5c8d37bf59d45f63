"""Training and validation pictures: what is of one product, or of identical bytes, is on one side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shopvision.errors import UserError
from shopvision.training.parting import components, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.fashion.thumbnails.data import LabelledPictures


def contradictory(data: LabelledPictures, contents: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) which pictures have the same bytes as another one of another class.

    Args:
        data: n pictures.
        contents: (n,) equal for those of identical bytes.
    """
    pairs = np.unique(np.stack([contents, data.labels], axis=1), axis=0)
    several, counts = np.unique(pairs[:, 0], return_counts=True)
    return np.isin(contents, several[counts > 1])


def split_by_product(
    data: LabelledPictures, contents: NDArray[np.int64], valid: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows to validate on, of each class in about the same shares.

    Pictures that share a product or their bytes, over any chain of others, stay together; their side depends on their
    names and the seed as far as shares allow, not on the order of the file.

    Args:
        data: n pictures.
        contents: (n,) equal for those of identical bytes.
        valid: share to validate on.
        seed: of the draw.

    Raises:
        UserError: one side would be empty.
    """
    group = _groups(data, contents)
    members = _drawn(data, group, seed)
    chosen: set[int] = set()
    for label in range(len(data.classes)):
        own = [number for number, rows in members.items() if data.labels[rows[0]] == label]
        if len(own) < 2:  # it stays to be learnt from
            continue
        wanted = round(valid * sum(len(members[number]) for number in own))
        smallest = min(own, key=lambda number: len(members[number]))
        taken = {smallest} if len(members[smallest]) >= wanted else set[int]()
        for number in own[:-1]:
            if sum(len(members[one]) for one in taken) + len(members[number]) <= wanted:
                taken.add(number)
        chosen |= taken
    on_valid = np.isin(group, list(chosen))
    if not on_valid.any():
        raise UserError(
            f"{len(data):,} pictures are of {len(members):,} products and cannot be parted with a share of {valid:g}: "
            "add pictures, or name data.valid."
        )
    return np.flatnonzero(~on_valid), np.flatnonzero(on_valid)


def fold_by_product(data: LabelledPictures, contents: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """(n,) the fold of each picture, of each class about as many in every fold; what hangs together is in one.

    Args:
        data: n pictures.
        contents: (n,) equal for those of identical bytes.
        folds: how many there are.
        seed: of the draw.
    """
    group = _groups(data, contents)
    members = _drawn(data, group, seed)
    in_turn = sorted(members, key=lambda number: int(data.labels[members[number][0]]))
    fold_of = {number: place % folds for place, number in enumerate(in_turn)}
    return np.array([fold_of[number] for number in group.tolist()], np.int64)


def _drawn(data: LabelledPictures, group: NDArray[np.int64], seed: int) -> dict[int, list[int]]:
    """Group -> its rows, in an order that depends on names and the seed alone."""
    members: dict[int, list[int]] = {}
    for row, number in enumerate(group.tolist()):
        members.setdefault(number, []).append(row)
    names = {number: min(data.names[row] for row in rows) for number, rows in members.items()}
    drawn = sorted(members, key=lambda number: draw(names[number], seed))
    return {number: members[number] for number in drawn}


def shared_with(data: LabelledPictures, contents: NDArray[np.int64], rows: NDArray[np.int64]) -> str | None:
    """A picture before ``rows`` that is of the product or the bytes of one of them; None where there is none.

    Args:
        data: training pictures, and behind them those of ``rows``.
        contents: (n,) equal for those of identical bytes.
        rows: to validate on.
    """
    products = {data.products[row] for row in rows.tolist()} - {""}
    seen = np.isin(contents, contents[rows]) | np.array([product in products for product in data.products])
    seen[rows] = False
    found = np.flatnonzero(seen)
    return data.names[found[0]] if len(found) else None


def _groups(data: LabelledPictures, contents: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) number of what each picture hangs together with."""
    bound = [
        [content, product] if product else [content]
        for content, product in zip(contents.tolist(), data.products, strict=True)
    ]
    return np.array(components(bound), np.int64)
