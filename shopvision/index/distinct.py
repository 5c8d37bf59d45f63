"""Equal vectors are indexed once.

A placeholder that a thousand items show gives a thousand equal vectors. In a graph they have no neighbours but each
other, so that none is found from outside and the rest of the catalogue not from them.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shopvision.index.build import Spool

BLOCK_ROWS = 16_384
DIGEST_BYTES = 16

VectorRows = NDArray[np.int32]


def distinct_vectors(vectors: Spool, folder: Path) -> tuple[Spool, VectorRows | None]:
    """Each vector once, in the order of their first appearance.

    Args:
        vectors: fp16, shape (pictures, d); regions with vectors of their own count as pictures.
        folder: where the distinct vectors are spooled if some are equal.

    Returns:
        the distinct vectors, shape (rows, d), and which of them each picture has, shape (pictures,); ``None`` where all
        are distinct, so that picture ``i`` has row ``i``.
    """
    digests = bytearray()
    for start in range(0, len(vectors), BLOCK_ROWS):
        for vector in vectors[start : start + BLOCK_ROWS]:
            digests += blake2b(vector.tobytes(), digest_size=DIGEST_BYTES).digest()
    _, first, group = np.unique(np.frombuffer(digests, f"V{DIGEST_BYTES}"), return_index=True, return_inverse=True)
    if len(first) == len(vectors):
        return vectors, None
    rows = np.empty(len(first), np.int32)
    rows[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    first.sort()
    path = folder / "distinct.f16"
    with path.open("wb") as file:
        for start in range(0, len(first), BLOCK_ROWS):
            file.write(vectors[first[start : start + BLOCK_ROWS]].tobytes())
    return np.memmap(path, dtype="<f2", mode="r", shape=(len(first), vectors.shape[1])), rows[group]
