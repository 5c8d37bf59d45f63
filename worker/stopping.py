"""How a worker ends: nothing is waited for that has nothing to give back."""

from __future__ import annotations

import atexit
import gc
from typing import Any

from celery import bootsteps

# At its end an interpreter looks through all that it holds for circles: a second of work for nothing.
atexit.register(gc.freeze)


class StartingProcessesStep(bootsteps.StartStopStep):
    """Ends pool processes that are not up yet: no chunk was given to them, and they import for seconds."""

    requires = ("celery.worker.components:Pool",)

    def stop(self, parent: Any) -> None:
        """Called when the worker shuts down, before it waits for its pool."""
        pool = parent.pool._pool  # noqa: SLF001 - nobody else knows which are up
        for process in pool._pool:  # noqa: SLF001
            if process.inqW_fd not in pool._all_inqueues:  # noqa: SLF001
                process.terminate()
