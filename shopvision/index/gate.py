"""What a generation must prove before readers get it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import JobError
from shopvision.index.build import Spool, efforts, search_parameters
from shopvision.index.manifest import IndexType

MIN_RECALL = 0.95
MIN_PROBES_FOUND = 0.99  # a graph may leave one picture in a thousand unreachable; recall counts it too
SAMPLE = 200
NEIGHBOURS = 10
SAME_SCORE = 1e-3  # half precision: two scores closer than this are the same answer
UNIT_TOLERANCE = 0.01
BLOCK_ROWS = 65_536


class GenerationRefused(JobError):  # noqa: N818 - reads as the fact it states
    """A generation did not pass its gate; the current one stays."""


def require_sound_vectors(vectors: Spool) -> None:
    """Raise ``GenerationRefused`` unless every row of ``vectors`` (n, d) is finite and of unit length."""
    for start in range(0, len(vectors), BLOCK_ROWS):
        lengths = np.linalg.norm(vectors[start : start + BLOCK_ROWS].astype(np.float32), axis=1)
        wrong = ~(np.abs(lengths - 1) <= UNIT_TOLERANCE)  # also catches NaN
        if wrong.any():
            raise GenerationRefused(
                f"{int(wrong.sum())} vectors are not finite and of unit length (the first has length "
                f"{lengths[wrong][0]:.3f}): the encoder is broken; activate another model version."
            )


def require_count(counted: int, in_postgres: int) -> None:
    """Raise ``GenerationRefused`` unless searches will find exactly the vectors that Postgres has."""
    if counted != in_postgres:
        raise GenerationRefused(f"the generation holds {counted:,} vectors, Postgres {in_postgres:,}.")


def _best_scores(
    vectors: Spool, queries: NDArray[np.float32], own_rows: NDArray[np.int64], k: int
) -> NDArray[np.float32]:
    best = np.full((len(queries), 0), -np.inf, np.float32)
    for start in range(0, len(vectors), BLOCK_ROWS):
        scores = queries @ vectors[start : start + BLOCK_ROWS].astype(np.float32).T
        here = np.flatnonzero((own_rows >= start) & (own_rows < start + scores.shape[1]))
        scores[here, own_rows[here] - start] = -np.inf  # finding itself is what the probes are for
        best = np.concatenate([best, scores], axis=1)
        best = np.partition(best, -k, axis=1)[:, -k:] if best.shape[1] > k else best
    return best


def _measure(index: Any, vectors: Spool, effort: int) -> tuple[float, float]:
    """(recall@10, share of sampled vectors that find themselves or their equal), on a seeded sample."""
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), min(SAMPLE, len(vectors)), replace=False))
    queries = vectors[rows].astype(np.float32)
    k = min(NEIGHBOURS, len(vectors) - 1)
    _, found = index.search(queries, k + 1, params=search_parameters(index, effort))
    # The index's own scores are not trusted: what counts is how close the pictures it names really are.
    scores = np.einsum("qd,qkd->qk", queries, vectors[np.maximum(found, 0)].astype(np.float32))
    scores[found < 0] = -np.inf
    own_scores = np.einsum("qd,qd->q", queries, queries)
    probes = float(np.mean(scores[:, 0] >= own_scores - SAME_SCORE))
    if k == 0:
        return 1.0, probes
    worst_right = _best_scores(vectors, queries, rows, k).min(axis=1)
    scores[found == rows[:, None]] = -np.inf
    right = np.minimum((scores >= worst_right[:, None] - SAME_SCORE).sum(axis=1), k)
    return float(right.mean() / k), probes


def require_recall(index: Any, kind: IndexType, vectors: Spool) -> tuple[int, float]:
    """The lowest search effort at which the index is good enough, and its recall@10 against exact search.

    Args:
        index: FAISS index whose row ``i`` is ``vectors[i]``.
        vectors: fp16, shape (n, d).

    Raises:
        GenerationRefused: no effort is enough, or sampled vectors do not find themselves.
    """
    if len(vectors) == 0:
        return efforts(kind)[0], 1.0
    for effort in efforts(kind):
        recall, probes = _measure(index, vectors, effort)
        if recall >= MIN_RECALL and probes >= MIN_PROBES_FOUND:
            return effort, recall
    if recall < MIN_RECALL:
        raise GenerationRefused(f"recall@{NEIGHBOURS} is {recall:.3f} against exact search, {MIN_RECALL} is needed.")
    raise GenerationRefused(f"only {probes:.1%} of the sampled vectors find themselves, {MIN_PROBES_FOUND:.0%} must.")
