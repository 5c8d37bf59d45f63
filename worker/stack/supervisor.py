"""Starts everything a local stack needs, in order, keeps it running, and stops it in order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import SecretStr

from shopvision.errors import UserError
from shopvision.settings import get_settings
from worker.stack import processes
from worker.stack.children import TICK_SECONDS, Children, StoppedEarlyError
from worker.stack.lifetime import ProcessMark
from worker.stack.processes import ProcessPlan
from worker.stack.state import StackFolder, StackState

log = structlog.get_logger(__name__)

LOG_CHECK_SECONDS = 10.0
LEFTOVER_STOP_SECONDS = 5.0


def end_leftovers(folder: StackFolder) -> None:
    """End what a killed supervisor left running, whatever it was doing."""
    state = folder.read_state()
    left = [process.mark for process in state.processes.values()] if state else []
    for mark in left:
        mark.send(signal.SIGTERM)
    deadline = time.monotonic() + LEFTOVER_STOP_SECONDS
    while any(mark.alive() for mark in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    for mark in left:
        mark.kill_group()


class Supervisor:
    """Runs until it is told to stop (SIGTERM, SIGINT, SIGHUP).

    Args:
        home: folder of the stack.
        announce: called once with the state when everything is ready.
    """

    def __init__(self, home: Path, announce: Callable[[StackState], None] = lambda _: None) -> None:
        self._folder = StackFolder(home)
        self._announce = announce
        self._state = StackState(supervisor=ProcessMark.of(os.getpid()))
        self._stopping = False
        self._announced = False
        self._unwritten = False  # the state that was last said
        self._children = Children(
            self._folder, lambda: self._stopping, lambda: self._say(self._state.phase, self._state.message)
        )

    def run(self) -> None:
        """Start, supervise, stop.

        Raises:
            UserError: another supervisor runs here, the disk is full, or something did not start.
        """
        self._folder.create()
        with self._folder.locked():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, self._ask_to_stop)
            try:
                self._start()
                self._supervise()
            except StoppedEarlyError:
                pass
            except BaseException as error:
                self._state.message = str(error)
                self._stop()
                self._say("failed", str(error))
                raise
            self._stop()
            self._say("stopped")

    def _ask_to_stop(self, *_: object) -> None:
        self._stopping = True

    def _start(self) -> None:
        self._folder.withdraw()
        end_leftovers(self._folder)
        os.environ["SHOPVISION_HOME"] = str(self._folder.home)
        os.environ["SHOPVISION_HEALTH_PORT"] = "0"  # several workers share this machine
        get_settings.cache_clear()
        self._say("starting", "servers")
        self._folder.publish(self._children.start_servers())
        get_settings.cache_clear()
        self._say("starting", "database schema and default model")
        self._children.prepare()
        self._say("starting", "workers, beat and Flower")
        self._children.start_others(*self._flower())
        self._say("ready")
        self._announced = True
        self._announce(self._state)

    def _flower(self) -> tuple[ProcessPlan, str]:
        """How it is started, and its address."""
        settings = get_settings()
        password = settings.flower_password or SecretStr(self._folder.identity().flower_password)
        given_port = "flower_port" in settings.model_fields_set
        port = settings.flower_port if given_port else self._folder.port("flower_port")
        settings = settings.model_copy(update={"flower_password": password, "flower_port": port})
        self._state.flower_url = url = f"http://{settings.flower_host}:{port}"
        self._state.flower_user = settings.flower_user
        self._state.flower_password = password.get_secret_value()
        return processes.flower(settings), url

    def _supervise(self) -> None:
        next_log_check = 0.0
        while not self._stopping:
            now = time.monotonic()
            for child in self._children.all:
                event = child.tend(now)
                if event is not None:
                    log.warning("process_event", event_text=event)
                    self._say("ready")
            if now >= next_log_check:
                self._children.bound_logs()
                if self._unwritten:
                    self._say("ready")
                next_log_check = now + LOG_CHECK_SECONDS
            time.sleep(TICK_SECONDS)

    def _stop(self) -> None:
        self._say("stopping")
        self._folder.withdraw()
        self._children.stop()

    def _say(self, phase: str, message: str = "") -> None:
        children = {child.name: child.state() for child in self._children.all}
        self._state = self._state.model_copy(
            update={
                "phase": phase,
                "message": message,
                "processes": {name: state for name, state in children.items() if state is not None},
            }
        )
        try:
            self._folder.write_state(self._state)
            self._unwritten = False
        except OSError as error:
            if not self._announced and phase in {"starting", "ready"}:
                raise UserError(f"Cannot write to {self._folder.home} ({error.strerror}): free space there.") from None
            # What runs goes on; `stack status` shows the state of before, and says that the disk is full.
            if not self._unwritten:
                log.warning("state_not_written", folder=str(self._folder.home), error=error.strerror)
            self._unwritten = True
