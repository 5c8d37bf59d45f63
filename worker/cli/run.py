"""``shopvision migrate | worker | beat | flower | health``: what a container runs.

Each replaces itself by the real Celery command, which is then process 1 of the container and gets its SIGTERM.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.output import JsonFlag, emit, table

if TYPE_CHECKING:
    from worker.stack.processes import ProcessPlan


def _become(plan: ProcessPlan) -> None:
    os.execve(plan.arguments[0], plan.arguments, plan.environment())  # noqa: S606 - the point is to have no shell


def _need_broker() -> None:
    from shopvision.errors import UserError
    from shopvision.settings import get_settings

    if get_settings().broker_url is None:
        raise UserError("No broker: set SHOPVISION_BROKER_URL, or start a local stack with `shopvision stack up`.")


def migrate(
    default_model: Annotated[
        bool, typer.Option(help="Also import the offline encoder and activate it where none is active yet.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Bring the database schema to the version this code needs."""
    from worker import schema

    schema.migrate()
    if default_model:
        from shopvision.models import ensure_default_encoder

        ensure_default_encoder()
    emit({"migrated": True}, as_json, lambda: "The database schema is current.")


worker_app = typer.Typer(no_args_is_help=True, help="Run a worker in the foreground.")


@worker_app.command("gpu")
def gpu_worker(
    device: Annotated[int | None, typer.Option(help="Which GPU, counted from 0; the first where there is one.")] = None,
) -> None:
    """Run the models: queues gpu.embed, gpu.score and gpu.rank. Without a GPU it works on the CPU."""
    from shopvision.settings import get_settings
    from worker.schema import require_current_schema
    from worker.stack import processes
    from worker.stack.layout import measured_layout
    from worker.stack.run_directory import claim_run_directory

    _need_broker()
    require_current_schema()
    if device is None and processes.visible_gpus():
        device = 0
    directory = claim_run_directory(get_settings().home, processes.gpu_worker_name(device))
    _become(processes.gpu_worker(directory, device, layout=measured_layout() if device is None else None))


@worker_app.command("cpu")
def cpu_worker() -> None:
    """Run everything else: queues io, index and control, and the dispatcher."""
    from shopvision.settings import get_settings
    from worker.schema import require_current_schema
    from worker.stack import processes
    from worker.stack.run_directory import claim_run_directory

    _need_broker()
    require_current_schema()
    _become(processes.cpu_worker(claim_run_directory(get_settings().home, "cpu")))


def beat() -> None:
    """Run the clock that asks which schedules are due."""
    from worker.stack import processes

    _need_broker()
    _become(processes.beat())


def flower() -> None:
    """Run Flower, the page that shows tasks and workers."""
    from worker.stack import processes

    _need_broker()
    _become(processes.flower())


def health(
    worker: Annotated[
        str | None, typer.Option(help="Its short name (gpu0, cpu, ...); all that run here if left out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Exit 0 while the workers on this machine are alive. Reads heartbeat files; asks no broker and no database."""
    from shopvision.settings import get_settings
    from worker.stack.run_directory import check_heartbeats

    ages = check_heartbeats(get_settings().home, worker)
    emit(
        ages,
        as_json,
        lambda: table(("worker", "heartbeat age (s)"), [(name, f"{age:.1f}") for name, age in ages.items()]),
    )


def register(app: typer.Typer) -> None:
    """Add the commands to the top level of ``app``."""
    for command in (migrate, beat, flower, health):
        app.command()(command)
    app.add_typer(worker_app, name="worker")
