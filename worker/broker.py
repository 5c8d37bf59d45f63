"""What we ask of the broker besides consuming: how long its queues are, and to take a message."""

from __future__ import annotations

from typing import Any

from kombu.exceptions import ChannelError, KombuError

from shopvision.settings import get_settings
from worker.app import app
from worker.celery_config import ORDINARY_PRIORITY, URGENT_PRIORITY
from worker.kinds import Phase

CONNECT_SECONDS = 5


def broker_errors() -> tuple[type[Exception], ...]:
    """What talking to the broker may raise."""
    connection = app.connection_for_read()
    found = {*connection.connection_errors, *connection.channel_errors, KombuError, OSError}
    return tuple(found - {KeyError})  # Kombu takes a mistake in the code for a lost connection


def queue_depth(queue: str) -> int:
    """Messages waiting in ``queue``; one that does not exist yet is empty. Gives up after one try."""
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
        return _depth(connection.default_channel, queue)


def _depth(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    except ChannelError:
        return 0


class CeleryBroker:
    """The relay's view of the broker, connected at first need."""

    def __init__(self) -> None:
        self._connection: Any = app.connection_for_write()
        self._channel: Any = None

    def depth(self, queue: str) -> int:
        """Messages of every priority waiting in ``queue``; a queue that does not exist yet is empty."""
        if self._channel is None:
            self._channel = self._connection.channel()  # one try: the relay comes again
        return _depth(self._channel, queue)

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
        """Let go of the connection."""
        self._connection.close()
