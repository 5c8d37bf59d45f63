"""From which cosine on a picture shows what a text says: chosen on validation, kept in the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shopvision.evaluation.calibration import fit_temperature

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ScoreThreshold:
    """A cosine, and what it does on validation.

    Attributes:
        value: a text and a picture with this cosine are as often right as wrong, among as many right as wrong pairs.
        kept: share of the right pairs that reach it.
        passed: share of the wrong pairs that reach it.
    """

    value: float
    kept: float
    passed: float

    def metrics(self) -> dict[str, float]:
        """For a card."""
        return {"right_above_score": self.kept, "wrong_above_score": self.passed}

    def facts(self) -> dict[str, Any]:
        """For a report."""
        return {"right pairs above the score": self.kept, "wrong pairs above the score": self.passed}


def choose_threshold(
    texts: NDArray[np.float32], pictures: NDArray[np.float32], right: Sequence[Sequence[int]], *, seed: int
) -> ScoreThreshold:
    """Where the probability that a picture shows the text is one half, by Platt's fit on as many wrong as right pairs.

    Args:
        texts: (n, h) of unit length.
        pictures: (m, h) of unit length.
        right: for each text the rows of its pictures.
        seed: of the draw of wrong pairs.
    """
    scores = texts @ pictures.T
    truth = np.zeros(scores.shape, np.bool_)
    for row, rows in enumerate(right):
        truth[row, list(rows)] = True
    positive, negative = scores[truth], scores[~truth]
    if not len(negative):  # every picture shows every text
        return ScoreThreshold(float(positive.min()), 1.0, 0.0)
    wrong = np.random.default_rng(seed).choice(negative, len(positive), replace=len(negative) < len(positive))
    labels = np.repeat([1, 0], [len(positive), len(wrong)])
    fitted = fit_temperature(np.concatenate([positive, wrong]), labels)
    value = float(np.clip(-fitted["shift"] / fitted["scale"], -1.0, 1.0))
    return ScoreThreshold(value, float((positive >= value).mean()), float((negative >= value).mean()))
