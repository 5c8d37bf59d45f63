"""A Celery task that does nothing, for comparison; a module of its own because the worker imports it."""

from __future__ import annotations

from worker.app import app


@app.task(name="benchmarks.nothing")
def nothing(number: int) -> None:
    """Nothing."""
