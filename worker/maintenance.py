"""What only workers and beat load: the tasks that beat ticks, the signals of a worker's life, its bootsteps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import structlog
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.app.task import Task
from celery.signals import celeryd_init, task_failure, worker_process_init, worker_shutting_down

from shopvision.database import dispose_engine, explain, fault_of
from shopvision.encoders.compiled.background import make_packages_here
from shopvision.storage import close_stores
from worker.app import app
from worker.dispatcher import DispatcherStep
from worker.health import HealthStep
from worker.kinds import Phase
from worker.ledger.running_step import STOP_FILE_VARIABLE
from worker.stopping import StartingProcessesStep

log = structlog.get_logger(__name__)

_this_worker: dict[str, str] = {}


@app.task(name="worker.plan_due_jobs", expires=60)
def plan_due_jobs() -> None:
    """Submit the scheduled jobs that are due."""
    from worker import schedule

    schedule.plan_due_jobs()


@app.task(name="worker.prune", expires=3600)
def prune() -> None:
    """Delete what is older than the configured ages, index generations included."""
    from shopvision.index.collecting import collect_garbage
    from shopvision.index.names import index_names
    from worker import retention

    retention.prune()
    for name in index_names().values():
        collect_garbage(name)


@celeryd_init.connect
def _remember_name(sender: str, **_: object) -> None:
    _this_worker["name"] = sender


@worker_process_init.connect
def _start_clean(**_: object) -> None:
    dispose_engine()
    close_stores()
    make_packages_here()


@worker_shutting_down.connect
def _ask_running_chunks_to_stop(**_: object) -> None:
    """Pool processes see the file at their next batch border and hand the rest of their chunk back."""
    stop_file = os.environ.get(STOP_FILE_VARIABLE)
    if stop_file:
        Path(stop_file).touch()


@task_failure.connect
def _note_lost_process(sender: Task[..., None], exception: BaseException, args: Any = (), **_: object) -> None:
    """Runs in the worker's main process when a pool process died or was killed at the hard time limit.

    Without it the chunk would wait for its lease to run out.
    """
    from worker.ledger.deaths import record_process_death

    lost = isinstance(exception, (WorkerLostError, TimeLimitExceeded))
    if not lost or not args or not sender.name.endswith(tuple(f".{phase}" for phase in Phase)):
        return
    try:
        record_process_death(int(args[0]), str(exception), worker=_this_worker["name"])
    except Exception as error:
        if fault_of(error) is None:
            raise
        log.warning("death_not_recorded", chunk_id=args[0], error=explain(error))  # the reaper finds the lease expired


app.steps["worker"].update({DispatcherStep, HealthStep, StartingProcessesStep})
