"""The processes of a local stack: started in order, servers first, watched, and stopped in order."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from urllib.error import URLError
from urllib.request import urlopen

import structlog

from shopvision.errors import UserError
from shopvision.settings import get_settings
from worker.stack import processes
from worker.stack.child import Child, last_lines
from worker.stack.embedded import PostgresServer, RedisServer
from worker.stack.layout import measured_layout
from worker.stack.lifetime import tied_to_this_process
from worker.stack.processes import ProcessPlan
from worker.stack.run_directory import RunDirectory, claim_run_directory
from worker.stack.state import StackFolder

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25
READY_TIMEOUT_SECONDS = 180.0
WORKER_STOP_SECONDS = 30.0  # a chunk stops at its next batch border and hands the rest back
SERVER_STOP_SECONDS = 20.0
PORT_ATTEMPTS = 3


class StoppedEarlyError(Exception):
    """Asked to stop before everything was up."""


class Children:
    """Servers, workers, beat and Flower.

    Methods that wait raise ``StoppedEarlyError`` where the stack is asked to stop meanwhile, and ``UserError`` where
    something does not start.
    """

    def __init__(self, folder: StackFolder, stopping: Callable[[], bool], on_change: Callable[[], None]) -> None:
        """Nothing is started yet.

        Args:
            folder: of the stack.
            stopping: whether it is asked to stop.
            on_change: called when a process was started, so that whoever comes after us knows of it.
        """
        self._folder = folder
        self._stopping = stopping
        self._on_change = on_change
        self._servers: list[Child] = []
        self._others: list[Child] = []
        self._run_directories: dict[str, RunDirectory] = {}

    @property
    def all(self) -> tuple[Child, ...]:
        """Every process, in the order of starting."""
        return (*self._servers, *self._others)

    def start_servers(self) -> dict[str, str]:
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
            self._on_change()
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

    def prepare(self) -> None:
        """Bring schema and default model up to date, in a process of its own, so that the supervisor stays small."""
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
            if self._stopping():
                process.kill()
                process.wait()
                raise StoppedEarlyError
            time.sleep(TICK_SECONDS)
        if process.returncode != 0:
            raise UserError(f"The database schema or the default model could not be prepared:\n{last_lines(path)}")

    def start_others(self, flower: ProcessPlan, flower_url: str) -> None:
        """Start workers, beat and Flower, and wait until they are ready."""
        gpus: list[int | None] = list(range(len(processes.visible_gpus()))) or [None]
        layout = measured_layout() if gpus == [None] else None
        waits: list[tuple[Child, Callable[[], bool]]] = []
        for device in gpus:
            name = processes.gpu_worker_name(device)
            worker = self._worker(name, partial(processes.gpu_worker, device=device, layout=layout))
            waits.append((worker, partial(self._worker_ready, name)))
        waits.append((self._worker("cpu", processes.cpu_worker), partial(self._worker_ready, "cpu")))
        waits.append((self._other("beat", partial(_constant, processes.beat())), lambda: True))
        waits.append((self._other("flower", partial(_constant, flower)), lambda: _answers(f"{flower_url}/healthcheck")))
        for child, _ in waits:
            child.start()
        self._on_change()
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

    def bound_logs(self) -> None:
        """Keep the files of output within their limits."""
        for child in self.all:
            try:
                child.bound_log()
            except OSError as error:
                log.warning("log_not_bounded", name=child.name, error=str(error))

    def stop(self) -> None:
        """Those who use the servers first, then the servers, Postgres last."""
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
        if self._stopping():
            raise StoppedEarlyError
        return child.running()

    def _with_log(self, message: str, child: Child) -> str:
        return f"{message} Its log ({child.log}) ends with:\n{last_lines(child.log)}"


def _constant(plan: ProcessPlan) -> tuple[ProcessPlan, list[int]]:
    return plan, []


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as response:  # noqa: S310 - addresses of our own processes
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
