"""Is this worker alive, is it ready, and should it give up? Answered without disturbing the work.

* Alive: a heartbeat file, touched by a thread of the worker's main process. It never depends on the broker, so that a
  broker that is away does not get the whole fleet restarted.
* Ready: the worker consumes, and broker and Postgres answered lately.
* Giving up: a main process that hangs, or that stopped taking messages after a reconnect, ends itself with an error so
  that whatever supervises it starts a new one. Chunks it held come back through their leases.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import structlog
from celery import bootsteps
from celery.signals import worker_process_init, worker_ready, worker_shutting_down

from shopvision.errors import UserError
from shopvision.settings import get_settings
from worker.probe_server import ProbeServer
from worker.stack.run_directory import ALIVE_SECONDS, RUN_DIRECTORY_VARIABLE, RunDirectory

log = structlog.get_logger(__name__)

BEAT_SECONDS = 5.0
READY_SECONDS = 30.0  # the broker or Postgres not heard of for so long means not ready
HUNG_SECONDS = 180.0  # above the longest pause between reconnects, in which the event loop stands still
DEAF_SECONDS = 180.0
GIVE_UP_STATUS = 70


@dataclass
class Vitals:
    """What the threads and the event loop note about themselves. Times are ``time.monotonic()`` seconds."""

    ticked: float  # the event loop of the main process
    broker: float | None = None  # last answer
    database: float | None = None  # last answer
    broker_since: float | None = None  # answering without a break
    deaf_since: float | None = None  # messages wait and nothing is being done, without a break
    consuming: bool = False
    stopping: bool = False

    def note_broker(self, now: float, *, answered: bool, idle_with_work: bool) -> None:
        """The broker was asked: did it answer, and does it hold messages for us while we do nothing?"""
        if not answered:
            self.broker_since = self.deaf_since = None
            return
        self.broker = now
        self.broker_since = now if self.broker_since is None else self.broker_since
        if not (idle_with_work and self.consuming):
            self.deaf_since = None
        elif self.deaf_since is None:
            self.deaf_since = now

    def missing(self, now: float) -> list[str]:
        """What keeps this worker from being ready; empty where nothing does."""
        reasons = [] if self.consuming and not self.stopping else ["not consuming"]
        for name, last in (("broker", self.broker), ("database", self.database)):
            if last is None or now - last > READY_SECONDS:
                reasons.append(f"no contact with the {name}")
        return reasons

    def reason_to_give_up(self, now: float) -> str | None:
        """Why this process should be replaced, or None. While the broker is away, standing still is right."""
        if self.stopping or self.broker_since is None:
            return None  # a warm shutdown blocks the event loop until the last chunk is done
        if now - max(self.ticked, self.broker_since) > HUNG_SECONDS:
            return f"the event loop stood still for {HUNG_SECONDS:.0f} s although the broker answers"
        if self.deaf_since is not None and now - self.deaf_since > DEAF_SECONDS:
            return f"messages waited for {DEAF_SECONDS:.0f} s and none was taken although nothing is being done"
        return None


class Monitor:
    """The threads behind a worker's health: heartbeat, contact with the servers, HTTP."""

    def __init__(self, directory: RunDirectory, queues: tuple[str, ...], die: Callable[[int], None] = os._exit) -> None:
        self.vitals = Vitals(ticked=time.monotonic())
        self._directory = directory
        self._queues = queues
        self._die = die
        self._ended = threading.Event()
        self._server: ProbeServer | None = None

    def start(self) -> None:
        """Serve, and note the address in the run directory.

        Raises:
            UserError: the configured port is taken.
        """
        settings = get_settings()
        self._directory.heartbeat.touch()
        try:
            self._server = ProbeServer((settings.health_host, settings.health_port), self._handler())
        except OSError as error:
            raise UserError(
                f"Cannot serve health on {settings.health_host}:{settings.health_port} ({error.strerror}): "
                "set SHOPVISION_HEALTH_PORT to a free port, or to 0."
            ) from None
        host, port = self._server.server_address[:2]
        address = {"pid": os.getpid(), "host": str(host), "port": port}
        self._directory.address_file.write_text(json.dumps(address))
        for name, target in (("heartbeat", self._beat), ("contacts", self._ask), ("http", self._server.serve_forever)):
            threading.Thread(target=target, name=f"health-{name}", daemon=True).start()

    def stop(self) -> None:
        """End the threads. The heartbeat stops with the process."""
        self._ended.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            reason = self.vitals.reason_to_give_up(time.monotonic())
            if reason is not None:
                log.critical("worker_gives_up", reason=reason)
                self._die(GIVE_UP_STATUS)
            try:
                self._directory.heartbeat.touch()
            except OSError as error:
                log.warning("heartbeat_not_written", error=str(error))

    def _ask(self) -> None:
        while True:
            self._ask_broker()
            self._ask_database()
            if self._ended.wait(BEAT_SECONDS):
                return

    def _ask_broker(self) -> None:
        from celery.worker import state

        from worker.app import app
        from worker.broker import broker_errors, queue_depth

        try:
            waiting = sum(map(queue_depth, app.amqp.queues.consume_from))
        except broker_errors():
            self.vitals.note_broker(time.monotonic(), answered=False, idle_with_work=False)
            return
        idle = not state.reserved_requests and not state.active_requests
        self.vitals.note_broker(time.monotonic(), answered=True, idle_with_work=idle and waiting > 0)

    def _ask_database(self) -> None:
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        from shopvision.database import get_engine

        try:
            with get_engine().connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return
        self.vitals.database = time.monotonic()

    def metrics(self) -> bytes:
        """What Prometheus reads. What all workers share is told only by those that serve the control queue."""
        from worker import metrics
        from worker.broker import broker_errors, queue_depth
        from worker.celery_config import QUEUES

        if "control" not in self._queues:
            return metrics.expose()
        return metrics.expose(metrics.BrokerCollector(QUEUES, queue_depth, broker_errors()), metrics.LedgerCollector())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        vitals, directory, metrics = self.vitals, self._directory, self.metrics

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                now = time.monotonic()
                if self.path == "/livez":
                    age = directory.heartbeat_age()
                    self._reply(200 if age < ALIVE_SECONDS else 503, f"heartbeat {age:.1f} s ago\n".encode())
                elif self.path == "/readyz":
                    missing = vitals.missing(now)
                    self._reply(503 if missing else 200, ("; ".join(missing) or "ready").encode() + b"\n")
                elif self.path == "/metrics":
                    self._reply(200, metrics(), "text/plain; version=1.0.0; charset=utf-8")
                else:
                    self._reply(404, b"There are /livez, /readyz and /metrics.\n")

            def _reply(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """One line per probe would drown the log."""

        return Handler


class HealthStep(bootsteps.StartStopStep):
    """Runs a monitor in the worker's main process, where ``shopvision worker`` started it."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        folder = os.environ.get(RUN_DIRECTORY_VARIABLE)
        self.enabled = folder is not None
        self._directory = RunDirectory(Path(folder or ""))
        self._monitor: Monitor | None = None

    def start(self, parent: Any) -> None:
        """Called when the worker starts, before it consumes."""
        monitor = self._monitor = Monitor(self._directory, tuple(parent.app.amqp.queues.consume_from))
        monitor.start()

        def tick() -> None:
            monitor.vitals.ticked = time.monotonic()

        def consumes(**_: object) -> None:
            monitor.vitals.consuming = True

        def stops(**_: object) -> None:
            monitor.vitals.stopping = True

        parent.timer.call_repeatedly(BEAT_SECONDS, tick)
        worker_ready.connect(consumes, weak=False)
        worker_shutting_down.connect(stops, weak=False)

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Called when the worker shuts down."""
        if self._monitor is not None:
            self._monitor.stop()


@worker_process_init.connect
def _die_with_the_worker(**_: object) -> None:
    """A pool process whose main process was killed would work on unseen and keep its GPU memory."""
    from billiard.process import current_process

    from worker.stack.lifetime import die_with_parent

    parent = current_process()._parent_pid  # type: ignore[attr-defined]  # noqa: SLF001 - nobody else knows it
    die_with_parent(parent)
