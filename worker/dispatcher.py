"""Relay and reaper, run by a thread in the main process of every worker that serves the control queue.

Depending on no message and no schedule, they keep working after Redis was emptied and while beat is down. Several of
them share the work through row locks.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import structlog
from celery import bootsteps

from shopvision.database import dispose_engine, explain, fault_of, get_engine
from shopvision.settings import get_settings
from worker.app import app
from worker.broker import CeleryBroker, broker_errors
from worker.ledger.outbox import relay
from worker.ledger.reaper import reap

log = structlog.get_logger(__name__)

CHANNEL = "shopvision_outbox"
BUSY_SECONDS = 0.05  # while queues are full or messages keep coming
ERROR_PAUSE_SECONDS = 1.0


class Dispatcher(threading.Thread):
    """Wakes at each commit that filled the outbox, and at least every ``dispatch_interval_seconds``."""

    def __init__(self) -> None:
        super().__init__(name="dispatcher", daemon=True)
        self._stopping = threading.Event()
        self._ear, self._bell = socket.socketpair()  # readable as soon as it shall stop
        self._trouble = ""  # already told

    def run(self) -> None:
        """Go on until stopped, whatever is down meanwhile."""
        broker_away = broker_errors()
        while not self._stopping.is_set():
            try:
                self._serve()
            except Exception as error:
                if isinstance(error, broker_away) or fault_of(error) is not None:
                    self._tell(explain(error))
                else:
                    log.exception("dispatcher_failed")
                self._stopping.wait(ERROR_PAUSE_SECONDS)
        self._ear.close()

    def _serve(self) -> None:
        settings = get_settings()
        broker = CeleryBroker()
        try:
            with self._commits() as wait_for_commit:
                next_reaping = 0.0
                while not self._stopping.is_set():
                    if time.monotonic() >= next_reaping:
                        reap()
                        next_reaping = time.monotonic() + settings.dispatch_interval_seconds
                    kept_back = relay(broker, settings.queue_depth_limit)
                    self._tell("")
                    wait_for_commit(BUSY_SECONDS if kept_back else settings.dispatch_interval_seconds)
        finally:
            broker.close()

    @contextmanager
    def _commits(self) -> Iterator[Callable[[float], object]]:
        """Gives what waits for the next commit that fills the outbox, at most for so many seconds."""
        if get_settings().database_transaction_pooling:  # whoever LISTENs there gets another connection each time
            yield self._stopping.wait
            return
        address = get_engine().url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(address, autocommit=True, connect_timeout=5) as listener:
            listener.execute(f"LISTEN {CHANNEL}")
            with selectors.DefaultSelector() as selector:
                selector.register(listener, selectors.EVENT_READ)
                selector.register(self._ear, selectors.EVENT_READ)

                def wait(seconds: float) -> None:
                    selector.select(seconds)
                    list(listener.notifies(timeout=0))

                yield wait

    def _tell(self, trouble: str) -> None:
        """One line when trouble begins or becomes another, not one at each try."""
        if trouble and trouble != self._trouble:
            log.warning("dispatcher_waits", error=trouble)
        self._trouble = trouble

    def stop(self) -> None:
        """End the thread, after what it is doing at this moment."""
        self._stopping.set()
        self._bell.close()


class DispatcherStep(bootsteps.StartStopStep):
    """Starts a dispatcher in workers that serve the control queue."""

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._dispatcher: Dispatcher | None = None

    def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Called when the worker starts."""
        if "control" in app.amqp.queues.consume_from:
            self._dispatcher = Dispatcher()
            self._dispatcher.start()

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Called when the worker shuts down."""
        if self._dispatcher is not None:
            self._dispatcher.stop()
            self._dispatcher.join(timeout=get_settings().dispatch_interval_seconds + 1)
            dispose_engine()
