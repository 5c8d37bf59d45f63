"""Starts everything a local stack needs, in order, keeps it running, and stops it in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import structlog
from pydantic import SecretStr

from shopvision.errors import UserError
from shopvision.settings import get_settings
from worker.stack import processes
from worker.stack.child import Child, last_lines
from worker.stack.embedded import PostgresServer, RedisServer
from worker.stack.lifetime import ProcessMark, tied_to_this_process
from worker.stack.processes import ProcessPlan
from worker.stack.run_directory import RunDirectory, claim_run_directory
from worker.stack.state import StackFolder, StackState

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25
LOG_CHECK_SECONDS = 10.0
READY_TIMEOUT_SECONDS = 180.0
WORKER_STOP_SECONDS = 30.0  # a chunk stops at its next batch border and hands the rest back
SERVER_STOP_SECONDS = 20.0
LEFTOVER_STOP_SECONDS = 5.0
PORT_ATTEMPTS = 3


class StoppedEarlyError(Exception):
    """Asked to stop before everything was up."""


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
        self._servers: list[Child] = []
        self._others: list[Child] = []
        self._run_directories: dict[str, RunDirectory] = {}
        self._stopping = False
        self._announced = False
        self._unwritten = False  # the state that was last said

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
        self._folder.publish(self._start_servers())
        get_settings.cache_clear()
        self._say("starting", "database schema and default model")
        self._prepare()
        self._say("starting", "workers, beat and Flower")
        self._start_others()
        self._say("ready")
        self._announced = True
        self._announce(self._state)

    def _start_servers(self) -> dict[str, str]:
        """Start the servers that the environment does not name; returns the settings that lead to all of them."""
        settings = get_settings()
        environment = {"object_store": settings.object_store or (self._folder.home / "objects").as_uri()}
        if settings.s3_endpoint_url:
            environment["s3_endpoint_url"] = settings.s3_endpoint_url
        if settings.database_url:
            environment["database_url"] = settings.database_url.get_secret_value()
        else:
            environment["database_url"] = self._start_server(
                "postgres",
                lambda: PostgresServer(
                    self._folder.home / "postgres",
                    self._folder.port("postgres_port"),
                    self._folder.identity().postgres_password,
                ),
                signal.SIGINT,  # disconnects clients; SIGTERM would wait for them
            )
        if settings.broker_url:
            environment["broker_url"] = settings.broker_url.get_secret_value()
        else:
            environment["broker_url"] = self._start_server(
                "redis",
                lambda: RedisServer(
                    self._folder.home / "redis", self._folder.port("redis_port"), self._folder.identity().redis_password
                ),
                signal.SIGTERM,
            )
        return environment

    def _start_server(
        self, name: str, make: Callable[[], PostgresServer | RedisServer], stop_signal: signal.Signals
    ) -> str:
        for attempt in range(1, PORT_ATTEMPTS + 1):
            server = make()
            server.initialise()
            plan = ProcessPlan(server.command())
            child = Child(
                name,
                partial(_constant, plan),
                self._folder.logs / f"{name}.log",
                stop_signal=stop_signal,
                orphan_signal=stop_signal,
                directory="/",
            )
            self._servers.append(child)
            child.start()
            self._say("starting", "servers")
            try:
                server.wait_until_ready(partial(self._still, child))
            except UserError as error:
                # Somebody may have taken the port between our looking and the server's binding.
                if child.running() or attempt == PORT_ATTEMPTS or make().port == server.port:
                    raise UserError(self._with_log(str(error), child)) from None
                self._servers.remove(child)
            else:
                return server.url
        raise AssertionError("the last attempt returns or raises")

    def _prepare(self) -> None:
        """In a process of its own, so that the supervisor stays small."""
        path = self._folder.logs / "prepare.log"
        with path.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker.stack.prepare"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=tied_to_this_process(signal.SIGKILL),  # noqa: PLW1509 - we have one thread
            )
        while process.poll() is None:
            if self._stopping:
                process.kill()
                process.wait()
                raise StoppedEarlyError
            time.sleep(TICK_SECONDS)
        if process.returncode != 0:
            raise UserError(f"The database schema or the default model could not be prepared:\n{last_lines(path)}")

    def _start_others(self) -> None:
        gpus: list[int | None] = list(range(len(processes.visible_gpus()))) or [None]
        waits: list[tuple[Child, Callable[[], bool]]] = []
        for device in gpus:
            name = processes.gpu_worker_name(device)
            worker = self._worker(name, partial(processes.gpu_worker, device=device))
            waits.append((worker, partial(self._worker_ready, name)))
        waits.append((self._worker("cpu", processes.cpu_worker), partial(self._worker_ready, "cpu")))
        waits.append((self._other("beat", partial(_constant, processes.beat())), lambda: True))
        flower = self._flower()
        url = self._state.flower_url
        waits.append((self._other("flower", partial(_constant, flower)), lambda: _answers(f"{url}/healthcheck")))
        for child, _ in waits:
            child.start()
        self._say("starting", "workers, beat and Flower")
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        for child, ready in waits:
            while not (self._still(child) and ready()):
                if not child.running():
                    raise UserError(self._with_log(f"{child.name} ended with status {child.exit_status()}.", child))
                if time.monotonic() > deadline:
                    raise UserError(self._with_log(f"{child.name} was not ready in time.", child))
                time.sleep(TICK_SECONDS)

    def _other(self, name: str, plan: Callable[[], tuple[ProcessPlan, list[int]]]) -> Child:
        child = Child(name, plan, self._folder.logs / f"{name}.log")
        self._others.append(child)
        return child

    def _worker(self, name: str, plan: Callable[[RunDirectory], ProcessPlan]) -> Child:
        def claimed() -> tuple[ProcessPlan, list[int]]:
            directory = claim_run_directory(self._folder.home, name)
            self._run_directories[name] = directory
            return plan(directory), [directory.lock] if directory.lock is not None else []

        return self._other(name, claimed)

    def _worker_ready(self, name: str) -> bool:
        try:
            address = json.loads(self._run_directories[name].address_file.read_text())
        except (FileNotFoundError, ValueError):
            return False
        return _answers(f"http://{address['host']}:{address['port']}/readyz")

    def _flower(self) -> ProcessPlan:
        settings = get_settings()
        password = settings.flower_password or SecretStr(self._folder.identity().flower_password)
        given_port = "flower_port" in settings.model_fields_set
        port = settings.flower_port if given_port else self._folder.port("flower_port")
        settings = settings.model_copy(update={"flower_password": password, "flower_port": port})
        self._state.flower_url = f"http://{settings.flower_host}:{port}"
        self._state.flower_user = settings.flower_user
        self._state.flower_password = password.get_secret_value()
        return processes.flower(settings)

    def _supervise(self) -> None:
        next_log_check = 0.0
        while not self._stopping:
            now = time.monotonic()
            for child in (*self._servers, *self._others):
                event = child.tend(now)
                if event is not None:
                    log.warning("process_event", event_text=event)
                    self._say("ready")
            if now >= next_log_check:
                self._bound_logs()
                if self._unwritten:
                    self._say("ready")
                next_log_check = now + LOG_CHECK_SECONDS
            time.sleep(TICK_SECONDS)

    def _bound_logs(self) -> None:
        for child in (*self._servers, *self._others):
            try:
                child.bound_log()
            except OSError as error:
                log.warning("log_not_bounded", name=child.name, error=str(error))

    def _stop(self) -> None:
        """Those who use the servers first, then the servers, Postgres last."""
        self._say("stopping")
        self._folder.withdraw()
        for children, seconds in (
            (self._others, WORKER_STOP_SECONDS),
            ([child for child in self._servers if child.name == "redis"], SERVER_STOP_SECONDS),
            ([child for child in self._servers if child.name == "postgres"], SERVER_STOP_SECONDS),
        ):
            for child in children:
                child.ask_to_stop()
            deadline = time.monotonic() + seconds
            for child in children:
                if not child.wait(deadline):
                    log.warning("process_killed", name=child.name, after_seconds=seconds)

    def _still(self, child: Child) -> bool:
        if self._stopping:
            raise StoppedEarlyError
        return child.running()

    def _with_log(self, message: str, child: Child) -> str:
        return f"{message} Its log ({child.log}) ends with:\n{last_lines(child.log)}"

    def _say(self, phase: str, message: str = "") -> None:
        children = {child.name: child.state() for child in (*self._servers, *self._others)}
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


def _constant(plan: ProcessPlan) -> tuple[ProcessPlan, list[int]]:
    return plan, []


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as response:  # noqa: S310 - addresses of our own processes
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
