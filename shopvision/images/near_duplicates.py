"""Pictures that are nearly the same, so that each is shown once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 256


def leaders(
    vectors: NDArray[np.float32], nearly_same: float, contents: Sequence[bytes | None] | None = None
) -> NDArray[np.int64]:
    """Which picture stands for each: the first one that is nearly the same, which is often itself.

    Args:
        vectors: (n, d) of unit length, in order of preference.
        nearly_same: a cosine; pictures that are nearer are nearly the same.
        contents: marks of the pictures' bytes; equal ones are the same picture, whatever the vectors. None is unknown.

    Returns:
        (n,) row of the picture that stands for it. Those that stand for others stand for themselves.
    """
    count = len(vectors)
    found = np.arange(count)
    kept: list[int] = []
    by_content: dict[bytes, int] = {}
    for start in range(0, count, BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        # Against all that were kept before, at once; within the block one after the other.
        before = np.array(kept, np.int64)
        # Rounded vectors may be a little longer than one.
        near = np.minimum(block @ vectors[before].T, 1.0) > nearly_same
        within = np.minimum(block @ block.T, 1.0) > nearly_same
        new: list[int] = []
        for place in range(len(block)):
            row = start + place
            content = contents[row] if contents is not None else None
            same = by_content.get(content) if content is not None else None
            if same is None and near[place].any():
                same = int(before[near[place].argmax()])
            if same is None:
                same = next((other for other in new if within[place, other - start]), None)
            if same is None:
                new.append(row)
                same = row
                if content is not None:
                    by_content[content] = row
            found[row] = same
        kept += new
    return found
