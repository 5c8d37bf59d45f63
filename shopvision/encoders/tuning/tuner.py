"""Measuring a loaded model on this machine, in a few seconds, and choosing how to run it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
import torch

from shopvision.encoders.tuning.chosen import with_settings
from shopvision.encoders.tuning.comparison import LEAST_ROUNDS, Comparison, Measure, Trial, compare, timed
from shopvision.encoders.tuning.machine import this_machine
from shopvision.encoders.tuning.part import Tunable, TunablePart
from shopvision.encoders.tuning.record import Setting, Tuning
from shopvision.encoders.tuning.store import TuningStore
from shopvision.settings import TuningChoice, get_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger(__name__)

TRY_AGAIN = timedelta(days=1)
DECODING_THREADS = (8, 1, 2, 4)  # the first is what readers of pictures take by default


def tune_where_new(
    model: Any,
    seconds: float | None = None,
    *,
    most: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Tuning]:
    """Measure what of a loaded model was never measured on this machine, keep it, and use it from now on.

    Nothing happens where another process measures: this one goes on as it is, and reads the result when it loads the
    model next.

    Args:
        model: as its kind loads it; one that cannot be tuned is left alone.
        seconds: for each of its networks; by default ``SHOPVISION_TUNING_SECONDS``, of which 0 means never.
        most: networks to measure now; the others are left for the next time.
        should_stop: asked before every measurement; nothing is kept then.

    Returns:
        What was measured.

    Raises:
        UserError: ``SHOPVISION_HOME`` cannot be written.
    """
    settings = get_settings()
    seconds = settings.tuning_seconds if seconds is None else seconds
    store = TuningStore(settings.home)
    new = [part for part in parts_of(model) if is_new(part, store)] if seconds and settings.fast_paths else []
    if not new:
        return []
    tunings = []
    with store.measuring() as mine:
        for part in new[:most] if mine else ():
            tuning = tune(part, seconds, should_stop=should_stop)
            if should_stop():
                break
            store.save(tuning)
            tunings.append(tuning)
    return tunings


def parts_of(model: Any) -> Sequence[TunablePart]:
    """The networks of a loaded model that can be measured; none of a model of another maker."""
    return [part for part in model.tunable_parts if part.part is not None] if isinstance(model, Tunable) else []


def is_new(part: TunablePart, store: TuningStore) -> bool:
    """Whether a network should be measured on this machine.

    It was not yet, it can run in another way by now, or a day ago the machine was too busy for it.
    """
    assert part.part is not None  # noqa: S101 - for the type checker: see ``parts_of``
    found = store.load(part.part, this_machine(torch.get_num_threads(), str(part.device)))
    if found is None or not set(found.ways) >= set(part.ways):
        return True
    return not found.steady and datetime.now(UTC) - found.measured_at > TRY_AGAIN


def tune(
    part: TunablePart,
    seconds: float,
    *,
    replicas: int = 1,
    measure: Measure = timed,
    should_stop: Callable[[], bool] = lambda: False,
) -> Tuning:
    """Measure a network and use what was chosen.

    Args:
        part: of a model version.
        seconds: that it may take, about: a slow network is measured in fewer ways, and with fewer inputs.
        replicas: processes that do the same at this moment.
        measure: the clock.
        should_stop: asked before every measurement.
    """
    assert part.part is not None  # noqa: S101 - for the type checker: see ``parts_of``
    threads, started = torch.get_num_threads(), time.monotonic()
    part.vectors(2)  # takes up a compiled package that is there
    default = Setting(batch_size=part.batch_sizes[0], threads=threads, replicas=replicas, precision=part.precision)
    decodes = part.unit == "pictures"
    found = _compare_batches(part, default, seconds * (0.6 if decodes else 1.0), measure, should_stop)
    rates, chosen, steady = list(found.rates), TuningChoice(), found.steady
    if rates and steady:
        # Of a network that was too slow for its usual batch nothing is said but the way.
        sizes_compared = rates[0].setting.batch_size == default.batch_size
        # Where time ended before every way was measured, none is preferred.
        ways_compared = len(part.ways) > 1 and {rate.setting.way for rate in rates} == set(part.ways)
        chosen = TuningChoice(
            batch_size=found.best.batch_size if sizes_compared else None,
            way=found.best.way if ways_compared else None,
        )
        if decodes:
            decoding = _compare_decoding(part, found.best, seconds * 0.4, measure, should_stop)
            rates += decoding.rates
            if decoding.rates and decoding.steady:
                chosen = chosen.model_copy(update={"decoding_threads": decoding.best.decoding_threads})
    tuning = Tuning(
        spec=part.part.spec,
        digest=part.part.digest,
        part=part.part.name,
        machine=this_machine(threads, str(part.device)),
        unit=part.unit,
        ways=tuple(part.ways),
        chosen=chosen,
        steady=steady,
        rates=tuple(rates),
        seconds=round(time.monotonic() - started, 2),
        measured_at=datetime.now(UTC),
    )
    part.use(with_settings(part.part, chosen))
    told = chosen.model_dump(exclude_none=True)
    log.info("model measured", model=tuning.spec, part=tuning.part, steady=steady, **told)
    return tuning


def _compare_batches(
    part: TunablePart, default: Setting, seconds: float, measure: Measure, should_stop: Callable[[], bool]
) -> Comparison:
    """Batch sizes and ways, as many as there is time for."""
    smallest = min(part.batch_sizes)
    at_once = part.batches_at_once
    probe = part.trial(default.model_copy(update={"batch_size": smallest}), smallest * at_once)
    cold = measure(probe)
    if cold * (2 + LEAST_ROUNDS) > seconds:
        return Comparison(default, steady=False)
    warm = measure(probe)
    seconds, each = seconds - cold - warm, warm / (smallest * at_once)
    # So many inputs can be computed again and again, in two ways at least.
    affordable = seconds / max(each * 2 * (1 + LEAST_ROUNDS), 1e-9)
    sizes = [size for size in part.batch_sizes if size * at_once <= affordable]
    if not sizes:
        return Comparison(default, steady=False)
    if default.batch_size not in sizes:
        sizes = [max(sizes)]
    work = max(sizes) * at_once
    settings = [default.model_copy(update={"batch_size": size, "way": way}) for size in sizes for way in part.ways]
    trials = [Trial(setting, part.trial(setting, work), work) for setting in settings]
    return compare(trials, seconds, measure=measure, should_stop=should_stop)


def _compare_decoding(
    part: TunablePart, best: Setting, seconds: float, measure: Measure, should_stop: Callable[[], bool]
) -> Comparison:
    """How many pictures should be decoded at the same time while the network computes."""
    work = max(best.batch_size, *DECODING_THREADS)
    settings = [best.model_copy(update={"decoding_threads": count}) for count in DECODING_THREADS]
    trials = [Trial(setting, part.trial(setting, work), work) for setting in settings]
    return compare(trials, seconds, measure=measure, should_stop=should_stop)
