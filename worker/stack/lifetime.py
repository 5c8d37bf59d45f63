"""Processes that end with the one that started them, and processes recognised after a restart."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import psutil

PR_SET_PDEATHSIG = 1
SAME_START_SECONDS = 2.0  # how far two readings of one process's start time may lie apart


def die_with_parent(parent: int, stop_signal: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send us ``stop_signal`` when our parent ends, however it ends; end now if it did already.

    The kernel's help exists on Linux only; elsewhere a parent that ends later leaves us running.

    Args:
        parent: process id of the one that started us.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def tied_to_this_process(stop_signal: signal.Signals) -> Callable[[], None]:
    """``die_with_parent`` as a ``preexec_fn``."""
    return partial(die_with_parent, os.getpid(), stop_signal)


@dataclass(frozen=True)
class ProcessMark:
    """A process id and when that process started: together they never name another process."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> ProcessMark:
        """The mark of a process that runs now.

        Raises:
            psutil.NoSuchProcess: it does not.
        """
        return cls(pid, psutil.Process(pid).create_time())

    def alive(self) -> bool:
        """True while this very process runs (a zombie does not)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < SAME_START_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def send(self, stop_signal: signal.Signals) -> None:
        """Signal the process, if it is still the one."""
        if self.alive():
            os.kill(self.pid, stop_signal)

    def kill_group(self) -> None:
        """End the process and everything in its process group, which it leads."""
        if self.alive():
            os.killpg(self.pid, signal.SIGKILL)
