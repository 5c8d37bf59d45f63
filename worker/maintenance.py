"""The tasks that beat ticks, and the worker's bootsteps."""

from __future__ import annotations

from celery.signals import worker_shutting_down

from worker.app import app
from worker.dispatcher import DispatcherStep
from worker.ledger.context import STOP_FILE_VARIABLE


@app.task(name="worker.plan_due_jobs", queue="control", expires=60)
def plan_due_jobs() -> None:
    """Submit the scheduled jobs that are due."""
    from worker.schedule import plan_due_jobs as plan

    plan()


@app.task(name="worker.prune", queue="control", expires=3600)
def prune() -> None:
    """Delete what is older than the configured ages, index generations included."""
    from shopvision.index import collect_garbage
    from shopvision.settings import get_settings
    from worker.retention import prune as prune_tables

    prune_tables()
    collect_garbage(get_settings().index_name)


@worker_shutting_down.connect
def _ask_running_chunks_to_stop(**_: object) -> None:
    """Pool processes see the file at their next batch border and hand the rest of their chunk back."""
    import os
    from pathlib import Path

    stop_file = os.environ.get(STOP_FILE_VARIABLE)
    if stop_file:
        Path(stop_file).touch()


app.steps["worker"].add(DispatcherStep)
