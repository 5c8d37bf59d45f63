"""A Celery task that does nothing, for comparison; a module of its own because the worker imports it."""

from __future__ import annotations

from worker.app import app

# Chunks last for seconds, so their processes may be replaced now and then; tasks this small would mostly pay for that.
app.conf.worker_max_tasks_per_child = None


@app.task(name="benchmarks.nothing")
def nothing(number: int) -> None:
    """Nothing."""
