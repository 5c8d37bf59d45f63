"""The allocator's settings for commands that run networks for long: those of the workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from worker.stack.processes import MALLOC_TUNABLES

VARIABLE = "GLIBC_TUNABLES"
# What begins with this command. A test runner that calls it does not, whatever its arguments.
PROGRAMS = ("shopvision", "-c")


def use_workers_malloc() -> None:
    """Start this command anew, once, with the allocator set as in the workers: it reads its settings at the start.

    Without them up to half of a training's time goes into memory that is given back and faulted in again. To be called
    before anything heavy is imported. Settings of the user stay. A ``main()`` that was called by another program, and
    not from a command line, goes on as it is.
    """
    given = os.environ.get(VARIABLE)
    if given == MALLOC_TUNABLES:
        del os.environ[VARIABLE]  # they hold already; servers that this command starts have their own
        return
    arguments = sys.argv[1:]
    if given is not None or sys.platform != "linux" or Path(sys.argv[0]).name not in PROGRAMS:
        return
    if not arguments or sys.orig_argv[-len(arguments) :] != arguments:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, VARIABLE: MALLOC_TUNABLES})  # noqa: S606 - the point is to have no shell
