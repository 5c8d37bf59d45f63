"""How well vectors of two kinds find each other, and what a linear model can read from them.

Ties in similarity are fair as in ``ranking_metrics``: a value is the expectation over the orders of tied items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]
_ROWS = 1024
TOLERANCE, ITERATIONS = 1e-6, 10_000  # of the gradient; most vectors take hundreds, some of CLIK's over a thousand


def recall_at(queries: Vectors, gallery: Vectors, targets: NDArray[np.int64], ks: tuple[int, ...]) -> Floats:
    """Whether each query's one right item is among its k nearest by inner product.

    Args:
        queries: (n, h).
        gallery: (m, h); its size decides how hard the task is, so name it beside the number.
        targets: (n,) row of the gallery that is right for each query.
        ks: the cut-offs.

    Returns:
        (n, len(ks)) in [0, 1]. The random expectation is min(k, m) / m.
    """
    hits = np.empty((len(queries), len(ks)))
    cutoffs = np.array(ks)[None, :]
    for start in range(0, len(queries), _ROWS):
        rows = slice(start, start + _ROWS)
        similarity = queries[rows] @ gallery.T
        # Taken from the matrix itself: the same product computed elsewhere may differ in its last bit.
        right = np.take_along_axis(similarity, targets[rows, None], axis=1)
        better = (similarity > right).sum(axis=1, keepdims=True)
        tied = (similarity == right).sum(axis=1, keepdims=True)
        hits[rows] = np.clip((cutoffs - better) / tied, 0.0, 1.0)
    return hits


def matching_accuracy(topics: Vectors, images: Vectors, batch: int, *, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """In-batch accuracy both ways: is row i of the one kind nearest to row i of the other, among ``batch`` pairs?

    Rows are shuffled into batches of as equal size as possible, none larger than ``batch``, as the training sees them.

    Args:
        topics: (n, h).
        images: (n, h); row i belongs to topic i.
        batch: largest number of pairs that are compared.
        seed: of the shuffling.

    Returns:
        (n,) topic -> image, (n,) image -> topic, and (n,) the random expectation 1 / size of the row's batch.
    """
    count = len(topics)
    forward, backward, expected = np.empty(count), np.empty(count), np.empty(count)
    order = np.random.default_rng(seed).permutation(count)
    for rows in np.array_split(order, -(-count // batch)):
        own = np.arange(len(rows))
        forward[rows] = recall_at(topics[rows], images[rows], own, (1,))[:, 0]
        backward[rows] = recall_at(images[rows], topics[rows], own, (1,))[:, 0]
        expected[rows] = 1 / len(rows)
    return forward, backward, expected


@dataclass(frozen=True)
class LinearEvaluation:
    """What a linear model reads from frozen vectors.

    Attributes:
        correct: (n,) 1.0 where the class was predicted right, 0.0 where not, NaN for rows the model was fitted on.
        classes: number of classes; 1 / classes is the random expectation.
    """

    correct: Floats
    classes: int


def linear_evaluation(
    vectors: Vectors, labels: NDArray[np.str_], *, held_out: float = 0.3, regularisation: float = 1.0, seed: int = 0
) -> LinearEvaluation | None:
    """Accuracy of a logistic regression on frozen vectors, on held-out rows.

    The published protocol (10 epochs of stochastic descent, learning rate 1e-4, batches of 32) depends on how many rows
    there are; here the same model, L2-regularised multinomial logistic regression, is fitted to its optimum by L-BFGS,
    so that numbers of small and large tables compare. Columns are centred and brought to a common scale of 1 first.

    Args:
        vectors: (n, h).
        labels: (n,) class names. Classes with one row are left out, because they cannot be both fitted and measured.
        held_out: share of each class that is measured; of every class at least one row.
        regularisation: weight of half the squared weights beside the summed loss over rows.
        seed: of the choice of held-out rows.

    Returns:
        None where there are fewer than two classes of two rows or more: then there is nothing to tell apart.
    """
    from sklearn.linear_model import LogisticRegression

    names, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(sizes >= 2)
    if len(kept) < 2:
        return None
    new_class = np.full(len(names), -1)
    new_class[kept] = np.arange(len(kept))
    classes = new_class[classes]
    measured = np.zeros(len(labels), np.bool_)
    generator = np.random.default_rng(seed)
    for index in range(len(kept)):
        rows = generator.permutation(np.flatnonzero(classes == index))
        measured[rows[: max(1, round(len(rows) * held_out))]] = True
    fitted = (classes >= 0) & ~measured
    scaled = (vectors - vectors[fitted].mean(axis=0)).astype(np.float64)
    scaled /= np.sqrt((scaled[fitted] ** 2).mean()) or 1.0
    # Of two classes scikit-learn keeps the difference of the weights, whose square counts half in the sum of both.
    inverse = (2 if len(kept) == 2 else 1) / regularisation
    model = LogisticRegression(C=inverse, tol=TOLERANCE, max_iter=ITERATIONS).fit(scaled[fitted], classes[fitted])
    correct = np.full(len(labels), np.nan)
    correct[measured] = model.predict(scaled[measured]) == classes[measured]
    return LinearEvaluation(correct, len(kept))
