"""What a cascade saves and what it costs, on labelled pairs that neither model has seen."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import RESAMPLES, Measured
from shopvision.evaluation.calibration import check_thresholds
from shopvision.evaluation.pair_measurement import measure_pairs
from shopvision.evaluation.report import EvaluationReport, Part
from shopvision.matching.fitting.evaluate import require_labels, score_readable
from shopvision.matching.scoring.cascade import Cascade, CascadeLimits, choose_cascade_limits

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.items.pair_table import PairTable
    from shopvision.matching.scoring.predict import BaseScorer

METRICS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class CascadeReport:
    """Two models apart and together.

    Attributes:
        first: ``name:tag`` of the cheap two-tower.
        second: ``name:tag`` of the better model.
        limits: between which pairs are passed on; chosen on the validation pairs.
        data: what was measured on.
        pairs: measured; those with an item that a model cannot read are left out.
        passed_on: share of these that the second model is asked about.
        alone: ``METRICS`` of the second model alone, at the threshold of its card.
        together: of the cascade, at the same threshold.
        seconds_alone: to score the pairs by the second model alone, item vectors included.
        seconds_together: by the cascade.
    """

    first: str
    second: str
    limits: CascadeLimits
    data: str
    pairs: int
    passed_on: float
    alone: dict[str, Measured]
    together: dict[str, Measured]
    seconds_alone: float
    seconds_together: float

    @property
    def parameter(self) -> str:
        """``cascade`` of a job that scores in this way, as JSON."""
        return json.dumps({"model": self.first, "low": self.limits.low, "high": self.limits.high})

    def summary(self) -> EvaluationReport:
        """In the shape of every evaluation; the second model alone is the baseline."""
        low, high = self.limits.low, self.limits.high
        return EvaluationReport(
            name=f"{self.first}, then {self.second}",
            data=self.data,
            counts={"pairs": self.pairs},
            metrics=self.together,
            parts=[Part("baseline", f"{self.second} alone", self.alone)],
            facts={
                "limits": asdict(self.limits),
                "parameter": self.parameter,
                "passed_on": self.passed_on,
                "seconds": {"cascade": self.seconds_together, "second alone": self.seconds_alone},
            },
            notes=(
                (
                    f"{self.first} decides up to {low:.4f} and from {high:.4f}; {self.second} is asked about the other "
                    f"{self.passed_on:.1%}. With a job: cascade='{self.parameter}'"
                ),
            ),
        )


def evaluate_cascade(
    first: BaseScorer,
    second: BaseScorer,
    valid: PairTable,
    test: PairTable,
    *,
    door: PictureDoor | None = None,
    max_f1_loss: float = 0.002,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> CascadeReport:
    """Choose the limits of a cascade on some pairs and measure it on others.

    Args:
        first: a calibrated model with item vectors.
        second: the better model, whose thresholds hold.
        valid: labelled pairs that neither model was trained on.
        test: labelled pairs that nothing was chosen on.
        door: that pictures come through, for models that read them.
        max_f1_loss: how much F1 the cascade may cost on ``valid``.
        resamples: of the bootstrap; 0 leaves intervals out.
        seed: of the bootstrap.

    Raises:
        UserError: pairs without labels, a first model without item vectors, or one that was not calibrated.
        TransientError: a source of pictures is away.
    """
    require_labels(valid)
    require_labels(test)
    thresholds = check_thresholds(second.card.thresholds)
    if first.vector_dimension is None:
        raise UserError(f"{first.card.spec} reads both items at once: a cascade begins with a two-tower.")
    sides = [score_readable(scorer, valid, door) for scorer in (first, second)]
    both = sides[0][0] & sides[1][0]
    if not both.any():
        raise UserError(f"Not one of {len(valid):,} pairs can be read by both models: check texts and pictures.")
    cheap, good = (scores[both[kept]] for kept, scores in sides)
    limits = choose_cascade_limits(cheap, good, valid.labels[both], thresholds, max_f1_loss=max_f1_loss)
    cascade = Cascade(first, second, limits.low, limits.high)
    started = time.perf_counter()
    kept, together = score_readable(cascade, test, door)
    seconds_together = time.perf_counter() - started
    passed_on = cascade.passed_on / len(together)
    measured = test.select(kept)
    started = time.perf_counter()
    _, alone = score_readable(second, measured, door)
    seconds_alone = time.perf_counter() - started

    def metrics(probabilities: np.ndarray[Any, Any]) -> dict[str, Measured]:
        of = measure_pairs(probabilities, measured.labels, thresholds["decision"], resamples=resamples, seed=seed)
        return {name: of[name] for name in METRICS}

    return CascadeReport(
        first=first.card.spec,
        second=second.card.spec,
        limits=limits,
        data=f"pairs, content sha256 {measured.fingerprint()}",
        pairs=len(measured),
        passed_on=passed_on,
        alone=metrics(alone),
        together=metrics(together),
        seconds_alone=seconds_alone,
        seconds_together=seconds_together,
    )
