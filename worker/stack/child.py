"""One supervised process: started, watched, restarted with growing pauses, stopped in time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from shopvision.errors import ShopvisionError
from worker.stack.lifetime import ProcessMark, tied_to_this_process
from worker.stack.processes import ProcessPlan
from worker.stack.state import ProcessState

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
STABLE_SECONDS = 60.0  # having run for so long, an exit counts as the first again
LOG_LIMIT_BYTES = 10 * 2**20


def pause_before_restart(exits_in_a_row: int) -> float:
    """Seconds: 0.5, 1, 2, ... up to half a minute."""
    return float(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(exits_in_a_row - 1, 10)))


def last_lines(path: Path, count: int = 12) -> str:
    """The end of a log file."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return ""


class Child:
    """A process in a session of its own, so that Ctrl-C in the terminal reaches only the supervisor.

    Args:
        plan: called at each start; returns what to execute and the descriptors it inherits.
        stop_signal: asks it to stop in good order.
        orphan_signal: what the kernel sends it when the supervisor dies.
    """

    def __init__(
        self,
        name: str,
        plan: Callable[[], tuple[ProcessPlan, list[int]]],
        log: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        orphan_signal: signal.Signals = signal.SIGKILL,
        directory: str | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.restarts = 0
        self._plan = plan
        self._stop_signal = stop_signal
        self._orphan_signal = orphan_signal
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._mark: ProcessMark | None = None
        self._started = 0.0
        self._exits_in_a_row = 0
        self._restart_at: float | None = None

    def start(self) -> None:
        """Start it now."""
        with self.log.open("ab") as output:
            plan, descriptors = self._plan()
            self._process = subprocess.Popen(
                plan.arguments,
                env=plan.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory,
                start_new_session=True,
                pass_fds=descriptors,
                preexec_fn=tied_to_this_process(self._orphan_signal),  # noqa: PLW1509 - we have one thread
            )
        for descriptor in descriptors:
            os.close(descriptor)
        self._mark = ProcessMark.of(self._process.pid)
        self._started = time.monotonic()
        self._restart_at = None

    def running(self) -> bool:
        """True while it has not ended."""
        return self._process is not None and self._process.poll() is None

    def exit_status(self) -> int | None:
        """How it ended; negative numbers are signals; None while it runs."""
        return self._process.poll() if self._process else None

    def tend(self, now: float) -> str | None:
        """Restart it where it is due; returns what happened, if anything did."""
        if self.running():
            return None
        if self._restart_at is None:
            self._exits_in_a_row = 1 if now - self._started > STABLE_SECONDS else self._exits_in_a_row + 1
            pause = pause_before_restart(self._exits_in_a_row)
            self._restart_at = now + pause
            return f"{self.name} ended with status {self.exit_status()}; restarting in {pause:g} s"
        if now < self._restart_at:
            return None
        try:
            self.start()
        except (OSError, ShopvisionError) as error:  # a full disk, for one: it may have room later
            self._exits_in_a_row += 1
            pause = pause_before_restart(self._exits_in_a_row)
            self._restart_at = now + pause
            return f"{self.name} cannot be restarted ({error}); trying again in {pause:g} s"
        self.restarts += 1
        return f"{self.name} restarted"

    def ask_to_stop(self) -> None:
        """Send the stop signal."""
        if self.running() and self._process is not None:
            self._process.send_signal(self._stop_signal)

    def wait(self, deadline: float) -> bool:
        """Wait until ``deadline`` (monotonic) for its end, then kill it and its group; False where that was needed."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return False
        return True

    def state(self) -> ProcessState | None:
        """For the state file; None before the first start."""
        if self._mark is None:
            return None
        return ProcessState(mark=self._mark, running=self.running(), restarts=self.restarts, log=self.log)

    def bound_log(self) -> None:
        """Keep at most one older file of the log. The process keeps its descriptor, so the file is emptied in place."""
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT_BYTES:
            shutil.copyfile(self.log, self.log.with_name(self.log.name + ".1"))
            os.truncate(self.log, 0)
