"""``shopvision models warm``: what workers would compile beside their work, made before."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shopvision.errors import JobError, UserError
from worker.cli.output import JsonFlag, emit, table
from worker.cli.training_bars import Bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shopvision.encoders.compiled.module import CompiledModule
    from shopvision.models import ModelVersionRef


def warm_(
    specs: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME:TAG]...", help="By default those that serve a role.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compile models for this machine ahead of time, as its workers will run them."""
    import torch

    from shopvision import models
    from shopvision.encoders.compiled.warming import warm
    from shopvision.settings import get_settings
    from worker.stack.layout import measured_layout
    from worker.stack.processes import model_threads

    if not get_settings().fast_paths:
        raise UserError("SHOPVISION_FAST_PATHS is false, so nothing runs compiled: set it to true.")
    refs = [models.find(spec) for spec in specs or sorted({state.active for state in models.roles().values()})]
    if not refs:
        raise JobError("No model serves a role: name one, or activate one with `shopvision models activate`.")
    torch.set_num_threads(model_threads(measured_layout()))
    rows = []
    with Bars(shown=not as_json) as bars:
        networks = [(ref.spec, network) for ref in refs for network in _networks(ref, required=bool(specs))]
        for done, (spec, network) in enumerate(networks):
            bars.stage("networks", done, len(networks))
            rows.append({"spec": spec, **asdict(warm(network))})
        bars.stage("networks", len(networks), len(networks))
    emit(rows, as_json, lambda: table(
        ("model", "what", "state", "eager /s", "compiled /s", "MB", "place"), [_row(row) for row in rows]
    ))  # fmt: skip


def _networks(ref: ModelVersionRef, *, required: bool) -> Sequence[CompiledModule]:
    from shopvision import models

    networks: Sequence[CompiledModule] = getattr(models.load(ref.spec), "compiled_modules", ())
    if required and not networks:
        raise UserError(f"{ref.spec} is of the kind {ref.card.kind}, of which nothing is compiled: leave it out.")
    return networks


def _row(row: dict[str, Any]) -> list[Any]:
    state = ("made" if row["made"] else "was there") if row["compiled"] else f"stays eager: {row['reason']}"
    rates = row["eager_per_second"], row["compiled_per_second"]
    return [row["spec"], row["part"], state, *rates, row["megabytes"], row["path"]]
