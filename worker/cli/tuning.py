"""``shopvision models tuning``: how models run on this machine, and measuring it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

from shopvision.errors import UserError
from worker.cli.output import JsonFlag, emit, table
from worker.cli.training_bars import Bars

if TYPE_CHECKING:
    from shopvision.encoders.tuning import Rate, Tuning
    from shopvision.models import ModelVersionRef

COLUMNS = (
    "model", "network", "device", "threads", "batch", "way", "decoding", "precision", "processes", "a second",
    "usual", "measured",
)  # fmt: skip
PATIENCE = 4  # times as long as a worker may take, who has a night's work to do
RATE_COLUMNS = ("network", "threads", "processes", "batch", "way", "decoding", "precision", "a second", "scatter")


def tuning_(
    spec: Annotated[
        str | None, typer.Argument(metavar="[NAME:TAG]", help="All that were measured if left out.")
    ] = None,
    *,
    again: Annotated[bool, typer.Option("--again", help="Measure it now, also in several processes at once.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show how models were measured to run best on this machine.

    Measuring takes some minutes and all cores: give it a quiet machine, before a night.
    """
    from shopvision.encoders.tuning import TuningStore
    from shopvision.models import find
    from shopvision.models.part import digests_in
    from shopvision.settings import get_settings

    if spec is None:
        if again:
            raise UserError("--again measures one model version: name it as NAME:TAG, see `shopvision models list`.")
        found = TuningStore(get_settings().home).all()
    else:
        ref = find(spec)
        if again:
            measure_version(ref, shown=not as_json)
        digests = digests_in(ref.card)
        found = [tuning for tuning in TuningStore(get_settings().home).all() if tuning.digest in digests]
    data = [tuning.model_dump(mode="json") for tuning in found]
    emit(data, as_json, lambda: _rendered(found, spec))


def _rendered(found: list[Tuning], spec: str | None) -> Any:
    if not found:
        return (
            "Nothing was measured here: models run with what is usual. A worker measures them when it has computed for "
            f"a while, and `shopvision models tuning {spec or 'NAME:TAG'} --again` now."
        )
    chosen = table(COLUMNS, [_row(tuning) for tuning in found])
    if spec is None:
        return chosen
    return Group(
        chosen, "", table(RATE_COLUMNS, [_rate_row(tuning, rate) for tuning in found for rate in tuning.rates])
    )


def _row(tuning: Tuning) -> tuple[Any, ...]:
    chosen = tuning.chosen
    plain = [rate for rate in tuning.rates if rate.setting.decoding_threads is None]
    best = max((rate.per_second for rate in plain), default=None)
    return (
        tuning.spec, tuning.part, tuning.machine.processor, tuning.machine.threads, chosen.batch_size, chosen.way,
        chosen.decoding_threads, chosen.precision, None if tuning.layout is None else _told_layout(tuning.layout),
        None if best is None else f"{best:,.0f} {tuning.unit}",
        f"{plain[0].per_second:,.0f}" if plain else None,
        f"{tuning.measured_at:%Y-%m-%d %H:%M}{'' if tuning.steady else ' (unsteady: usual settings stay)'}",
    )  # fmt: skip


def _told_layout(layout: tuple[int, int]) -> str:
    threads, processes = layout
    return f"{processes} x {threads} threads"


def _rate_row(tuning: Tuning, rate: Rate) -> tuple[Any, ...]:
    setting = rate.setting
    return (
        tuning.part, setting.threads, setting.replicas, setting.batch_size, setting.way, setting.decoding_threads,
        setting.precision, f"{rate.per_second:,.1f}", f"{rate.scatter:.0%}",
    )  # fmt: skip


def measure_version(ref: ModelVersionRef, *, shown: bool) -> None:
    """Measure a model version in processes like those of a worker, and keep what was chosen.

    Args:
        ref: the version.
        shown: whether to show how far it is.

    Raises:
        UserError: it cannot be tuned or loaded, another process measures, or ``SHOPVISION_HOME`` cannot be written.
        JobError: a process that measured died.
    """
    from shopvision.encoders.tuning import TuningStore
    from shopvision.encoders.tuning.layouts import candidates, measure_layouts, run_processes
    from shopvision.models import local_copy
    from shopvision.settings import get_settings
    from worker.stack import processes

    settings = get_settings()
    if not settings.fast_paths:
        raise UserError("SHOPVISION_FAST_PATHS is false, so nothing that is measured is used: set it to true.")
    seconds = PATIENCE * (settings.tuning_seconds or type(settings).model_fields["tuning_seconds"].default)
    gpus, cores = processes.visible_gpus(), processes.available_cores()
    if gpus:
        layouts = [(max(1, cores // len(gpus)), 1)]
    else:
        replicas, threads = processes.cpu_replicas(cores)
        layouts = candidates(cores, (threads, replicas), processes.MAX_CPU_REPLICAS)
    variables = {"CUDA_VISIBLE_DEVICES": gpus[0] if gpus else "", **processes.malloc_variables()}
    store = TuningStore(settings.home)
    with store.measuring() as mine:
        if not mine:
            raise UserError("Another process measures on this machine now: try again when it has ended.")
        local_copy(ref)
        with Bars(shown=shown) as bars:

            def run(layout: tuple[int, int]) -> list[list[Tuning]]:
                bars.stage("layouts", layouts.index(layout), len(layouts))
                return run_processes(ref.spec, layout, seconds, variables)

            tunings = measure_layouts(layouts, run)
            bars.stage("layouts", len(layouts), len(layouts))
        for tuning in tunings:
            store.save(tuning)
    _keep_agreement(ref, tunings)


def _keep_agreement(ref: ModelVersionRef, tunings: list[Tuning]) -> None:
    """Tell the gate of the index how far the vectors of a catalogue's encoder agree with those of float32."""
    from shopvision.encoders.tuning.precision import SAMPLE
    from shopvision.index.precisions import keep_agreement
    from shopvision.models.kinds import find_kind

    if "catalogue_encoder" not in find_kind(ref.card.kind).roles:
        return
    found: dict[str, float] = {}
    for tuning in tunings:
        for name in {rate.setting.precision for rate in tuning.rates} - {"float32"}:
            if tuning.agreement is not None:
                found[name] = min(tuning.agreement, found.get(name, 1.0))
    for precision, cosine in found.items():
        keep_agreement(ref.model_version_id, precision, cosine, SAMPLE)
