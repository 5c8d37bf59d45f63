"""Processes that end with the one that started them, and processes recognised after a restart."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import psutil

PR_SET_PDEATHSIG = 1
SAME_START_SECONDS = 2.0  # how far two readings of one process's start time may lie apart


def die_with_parent(stop_signal: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send us ``stop_signal`` when our parent ends, however it ends. Linux only; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)


def tied_to_this_process(stop_signal: signal.Signals) -> Callable[[], None]:
    """A ``preexec_fn``: like ``die_with_parent``, and safe against a parent that is gone by the time it runs."""
    parent = os.getpid()

    def tie() -> None:
        die_with_parent(stop_signal)
        if os.getppid() != parent:
            os._exit(1)

    return tie


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
