"""Relay and reaper, run by a thread in the main process of every worker that serves the control queue.

Depending on no message and no schedule, they keep working after Redis was emptied and while beat is down. Several of
them share the work through row locks.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import structlog
from celery import bootsteps
from kombu import Connection as BrokerConnection
from kombu.exceptions import ChannelError, OperationalError
from sqlalchemy.exc import SQLAlchemyError

from shopvision.database import dispose_engine, get_engine
from shopvision.settings import get_settings
from worker.app import app
from worker.celery_config import ORDINARY_PRIORITY, URGENT_PRIORITY
from worker.kinds import Phase
from worker.ledger.outbox import relay
from worker.ledger.reaper import reap

log = structlog.get_logger(__name__)

CHANNEL = "shopvision_outbox"
BUSY_SECONDS = 0.05  # while queues are full or messages keep coming
ERROR_PAUSE_SECONDS = 1.0


class CeleryBroker:
    """The relay's view of the broker."""

    def __init__(self) -> None:
        self._connection: BrokerConnection = app.connection_for_write()
        self._channel: Any = self._connection.channel()

    def depth(self, queue: str) -> int:
        """Messages of every priority waiting in ``queue``; a queue that does not exist yet is empty."""
        try:
            _, waiting, _ = self._channel.queue_declare(queue=queue, passive=True)
        except ChannelError:
            return 0
        return int(waiting)

    def send(self, task: str, chunk_id: int, queue: str, *, urgent: bool) -> None:
        """Publish one message; workers take urgent ones first."""
        priority = URGENT_PRIORITY if urgent else ORDINARY_PRIORITY
        # Splitting and finishing look at all of a job: finding candidates in millions of items takes a while.
        time_limit = None if task.endswith(f".{Phase.CHUNK}") else get_settings().whole_time_limit_seconds
        app.send_task(
            task, args=[chunk_id], queue=queue, priority=priority, time_limit=time_limit,
            connection=self._connection, retry=False,
        )  # fmt: skip

    def close(self) -> None:
        """Let go of the broker connection."""
        self._connection.close()


class Dispatcher(threading.Thread):
    """Wakes at each commit that filled the outbox, and at least every ``dispatch_interval_seconds``."""

    def __init__(self) -> None:
        super().__init__(name="dispatcher", daemon=True)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Go on until stopped, whatever is down meanwhile."""
        while not self._stopping.is_set():
            try:
                self._serve()
            except (psycopg.Error, SQLAlchemyError, OperationalError, OSError) as error:
                log.warning("dispatcher_waits", error=repr(error).splitlines()[0])
                self._stopping.wait(ERROR_PAUSE_SECONDS)
            except Exception:
                log.exception("dispatcher_failed")
                self._stopping.wait(ERROR_PAUSE_SECONDS)

    def _serve(self) -> None:
        settings = get_settings()
        broker = CeleryBroker()
        address = get_engine().url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            with psycopg.connect(address, autocommit=True, connect_timeout=5) as listener:
                listener.execute(f"LISTEN {CHANNEL}")
                next_reaping = 0.0
                while not self._stopping.is_set():
                    if time.monotonic() >= next_reaping:
                        reap()
                        next_reaping = time.monotonic() + settings.dispatch_interval_seconds
                    kept_back = relay(broker, settings.queue_depth_limit)
                    pause = BUSY_SECONDS if kept_back else settings.dispatch_interval_seconds
                    for _ in listener.notifies(timeout=pause, stop_after=1):
                        pass
        finally:
            broker.close()

    def stop(self) -> None:
        """End the thread within one interval."""
        self._stopping.set()


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
