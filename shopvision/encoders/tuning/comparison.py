"""Which of several ways to do the same work is clearly faster than the usual one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from shopvision.encoders.fitting_batches import is_out_of_memory
from shopvision.encoders.tuning.record import Rate, Setting

# A candidate must do the work in so much less time than the default, in the median of the rounds.
MARGIN = 1.03
ROUNDS, LEAST_ROUNDS = 5, 3
# Repetitions of one way that lie further apart than this, as a share, say more about the machine's other work.
MOST_SCATTER = 0.2

Measure = Callable[[Callable[[], None]], float]
"""Seconds that a piece of work takes."""


@dataclass(frozen=True)
class Trial:
    """One way to do the work.

    Attributes:
        setting: that the work is done with.
        run: does it.
        inputs: how many of the part's units that are.
    """

    setting: Setting
    run: Callable[[], None]
    inputs: int


@dataclass
class Comparison:
    """What came of measuring.

    Attributes:
        best: the setting that is clearly faster than the default, or the default.
        steady: whether the ways took the same time again and again; false where nothing could be measured.
        rates: of every trial that was measured.
    """

    best: Setting
    steady: bool = True
    rates: list[Rate] = field(default_factory=list)


def timed(run: Callable[[], None]) -> float:
    """Seconds that ``run`` takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(
    trials: Sequence[Trial],
    seconds: float,
    *,
    measure: Measure = timed,
    should_stop: Callable[[], bool] = lambda: False,
) -> Comparison:
    """Do the work in every way, again and again in turns, so that what slows the machine down slows all of them.

    A way that needs more memory than there is is left out.

    Args:
        trials: the first is the default; the later ones are left out where time is short.
        seconds: that all this may take, about.
        measure: the clock.
        should_stop: asked before every measurement; what came before it counts.
    """
    warm: list[float] = []
    chosen: list[Trial] = []
    for trial in trials:
        # All ways do the same work: the first tells what any of them will cost.
        if warm and (should_stop() or sum(warm) + warm[0] * (1 + LEAST_ROUNDS * (len(warm) + 1)) > seconds):
            break
        try:
            warm.append(measure(trial.run))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if not chosen:
                return Comparison(trial.setting, steady=False)
        else:
            chosen.append(trial)
    rounds = min(ROUNDS, int((seconds - sum(warm)) / sum(warm)) if sum(warm) else ROUNDS)
    times: list[list[float]] = []
    while len(times) < rounds and not should_stop():
        times.append([measure(trial.run) for trial in chosen])
    if not times:
        return Comparison(trials[0].setting, steady=False)
    rates = [_rate(trial, [one[place] for one in times]) for place, trial in enumerate(chosen)]
    steady = len(times) >= LEAST_ROUNDS and median(rate.scatter for rate in rates) <= MOST_SCATTER
    best, best_gain = trials[0].setting, 1.0
    for place, trial in enumerate(chosen[1:], 1):
        gains = [one[0] / max(one[place], 1e-9) for one in times]
        if steady and median(gains) >= MARGIN and min(_middle_half(gains)) > 1 and median(gains) > best_gain:
            best, best_gain = trial.setting, median(gains)
    return Comparison(best, steady, rates)


def _rate(trial: Trial, times: Sequence[float]) -> Rate:
    usual = max(median(times), 1e-9)
    low, high = _middle_half(times)
    return Rate(setting=trial.setting, per_second=trial.inputs / usual, scatter=(high - low) / usual)


def _middle_half(values: Sequence[float]) -> tuple[float, float]:
    """Lower and upper quartile."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high
