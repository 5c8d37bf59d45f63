"""A stack in the background: started, asked about, stopped, from another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shopvision.errors import UserError
from worker.stack.child import last_lines
from worker.stack.children import SERVER_STOP_SECONDS, WORKER_STOP_SECONDS
from worker.stack.state import StackFolder, StackState
from worker.stack.supervisor import end_leftovers

STOP_TIMEOUT_SECONDS = WORKER_STOP_SECONDS + 2 * SERVER_STOP_SECONDS + 10
LOOK_SECONDS = 0.1


def start_detached(home: Path, progress: Callable[[str], None] = lambda _: None) -> StackState:
    """Start a supervisor in a session of its own and wait until the stack is ready.

    Raises:
        UserError: a stack already runs here, the disk is full, or it did not start; with what its log says.
    """
    folder = StackFolder(home)
    folder.create()
    with folder.locked():
        pass  # says so now, in this terminal, if another stack runs here
    log = folder.logs / "supervisor.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.stack"],
            env={**os.environ, "SHOPVISION_HOME": str(home)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    told = ""
    try:
        while True:
            ended = process.poll() is not None
            state = folder.read_state()
            ours = state is not None and state.supervisor.pid == process.pid
            if state is not None and ours:
                if state.phase == "ready" and not ended:
                    return state
                if state.phase == "starting" and state.message != told:
                    told = state.message
                    progress(told)
            if ended:
                failed = state is not None and ours and state.phase == "failed"
                raise UserError(f"The stack did not start. {state.message if state and failed else last_lines(log)}")
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_SECONDS)
        raise


def stop(home: Path) -> bool:
    """Stop the stack in good order, or what a killed one left; True where there was anything to stop.

    Raises:
        UserError: it does not end.
    """
    folder = StackFolder(home)
    state = folder.read_state()
    if state is None:
        return False
    if not folder.supervised():
        left = any(process.mark.alive() for process in state.processes.values())
        end_leftovers(folder)
        folder.withdraw()
        return left
    state.supervisor.send(signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while folder.supervised():
        if time.monotonic() > deadline:
            raise UserError(
                f"The stack in {home} (process {state.supervisor.pid}) does not stop: "
                f"see {folder.logs / 'supervisor.log'}."
            )
        time.sleep(LOOK_SECONDS)
    return True


def read_status(home: Path) -> StackState | None:
    """What runs in ``home`` now; None where nothing does, whatever a killed supervisor left written."""
    folder = StackFolder(home)
    state = folder.read_state()
    if state is None or not folder.supervised():
        return None
    for process in state.processes.values():
        process.running = process.mark.alive()
    state.warning = folder.full_disk()
    return state
