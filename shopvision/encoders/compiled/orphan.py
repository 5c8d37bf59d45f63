"""A process that ends with the one that it works for, whatever way that ends."""

from __future__ import annotations

import os
import signal
import time

LOOK_SECONDS = 1.0


def end_with(parent: int) -> None:
    """Kill this process and all of its group, such as a compiler that it runs, when ``parent`` is gone. Never returns.

    Args:
        parent: number of the process that started this one, which leads its group.
    """
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.killpg(os.getpgid(0), signal.SIGKILL)
