"""Whether a network should compute in float32 although the machine has something shorter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shopvision.encoders.tuning.comparison import Measure, Trial, compare, timed
from shopvision.encoders.tuning.record import EXACT, LEAST_AGREEMENT, Tuning
from shopvision.encoders.tuning.tuner import parts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.encoders.tuning.part import TunablePart

WORK = 32
SAMPLE = 16


def tune_precision(
    spec: str, model: Any, tunings: Sequence[Tuning], seconds: float, *, measure: Measure = timed
) -> list[Tuning]:
    """Compare each network of ``model`` with itself in float32.

    Args:
        spec: of the model version, to load it once more.
        model: loaded in the precision that its device prefers.
        tunings: what was measured of its networks, in their order.
        seconds: that each network may take, about.
        measure: the clock.

    Returns:
        The tunings, with what was found; as they are where the model computes in float32 anyway.
    """
    parts = parts_of(model)
    if all(part.precision == EXACT for part in parts):
        return list(tunings)
    from shopvision import models

    exact = {part.part: part for part in parts_of(models.load(spec, precision=EXACT))}
    return [
        _compared(part, exact[part.part], tuning, seconds, measure) for part, tuning in zip(parts, tunings, strict=True)
    ]


def smallest_cosine(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Of two networks' outputs for the same inputs, (n, d) each; a row that is not finite counts -1."""
    first, second = ours.astype(np.float64), theirs.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = np.einsum("ij,ij->i", first, second) / np.maximum(lengths, 1e-12)
    return float(np.nan_to_num(cosines, nan=-1.0).min())


def _compared(part: TunablePart, exact: TunablePart, tuning: Tuning, seconds: float, measure: Measure) -> Tuning:
    ours, theirs = part.vectors(SAMPLE), exact.vectors(SAMPLE)
    if part.precision == EXACT or not tuning.rates or ours is None or theirs is None:
        return tuning
    usual = max(tuning.rates, key=lambda rate: rate.per_second).setting.model_copy(
        update={"decoding_threads": None, "precision": part.precision}
    )
    settings = [usual, usual.model_copy(update={"precision": EXACT, "way": "eager"})]
    work = max(usual.batch_size, WORK)
    both = zip(settings, (part, exact), strict=True)
    trials = [Trial(setting, one.trial(setting, work), work) for setting, one in both]
    found = compare(trials, seconds, measure=measure)
    agreement = smallest_cosine(ours, theirs)
    precision = found.best.precision if agreement >= LEAST_AGREEMENT else EXACT
    return tuning.model_copy(
        update={
            "agreement": agreement,
            "chosen": tuning.chosen.model_copy(update={"precision": precision}),
            "rates": (*tuning.rates, *found.rates),
        }
    )
