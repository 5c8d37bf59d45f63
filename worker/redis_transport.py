"""Kombu's Redis transport, made to outlive a broker in trouble and messages that nobody can read.

As it comes, one refusal (a full Redis, a replica after a failover, a disk without room) and one message that is not
what Celery writes end a worker's main process, and then that of the next worker. Here a refusal is a broker that is
away for a while, and an unreadable message is thrown away with one line in the log.
"""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

import structlog
from kombu.exceptions import KombuError
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.exceptions import RedisError, ResponseError

# The type stubs know a part of these only.
_QoS: Any = kombu_redis.QoS
_Channel: Any = kombu_redis.Channel
_Transport: Any = kombu_redis.Transport
_NotedHereOnly: Any = virtual.QoS

log = structlog.get_logger(__name__)

REFUSED_PAUSE_SECONDS = 2.0
SHOWN_OF_MESSAGE = 200  # characters
# What reading a message raises where the message is at fault. An error of the process itself must not cost a message.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, KombuError)


def one_line(error: BaseException) -> str:
    """An error as one short line."""
    return (f"{type(error).__name__}: {error}".splitlines() or [""])[0][:SHOWN_OF_MESSAGE]


class QoS(_QoS):  # type: ignore[misc] # the base is Any
    """Which messages this worker holds; Redis holds a copy of each in ``unacked``, as far as it has room."""

    _refused = False

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that has just been taken. Without its copy in Redis it is worked on all the same.

        It has left its list already: giving it up would lose it, and working it off is what makes room.
        """
        try:
            super().append(message, delivery_tag)
            self._refused = False
        except (RedisError, OSError) as error:
            if not self._refused:
                log.warning("broker_keeps_no_copies", error=one_line(error))
            self._refused = True
            _NotedHereOnly.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Let go of a message. What Redis cannot be told now comes back after the visibility timeout, once more."""
        try:
            super().ack(delivery_tag)
        except (RedisError, OSError) as error:
            log.warning("message_not_acknowledged", error=one_line(error))
            _NotedHereOnly.ack(self, delivery_tag)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Put back what other workers have held for too long; left to the next turn where Redis refuses."""
        try:
            super().restore_visible(*args, **kwargs)
        except ResponseError as error:
            log.warning("broker_refuses", error=one_line(error))

    def restore_unacked(self, client: Any = None) -> None:
        """Put back what this worker holds, at its end; left to the others where Redis refuses."""
        try:
            super().restore_unacked(client)
        except ResponseError as error:
            log.warning("messages_not_restored", error=one_line(error))

    def _remove_from_indices(self, delivery_tag: str, pipe: Any = None) -> Any:
        if pipe is not None:
            return super()._remove_from_indices(delivery_tag, pipe)
        # Not as a transaction: a full Redis refuses all that stands in one, even what makes room.
        with self.channel.conn_or_acquire() as client:
            removal = client.pipeline(transaction=False)
            return removal.hdel(self.unacked_key, delivery_tag).zrem(self.unacked_index_key, delivery_tag)


class Channel(_Channel):  # type: ignore[misc] # likewise
    """A channel whose reads wait out refusals and throw away what is no message."""

    QoS = QoS

    def _queue_bind(self, *args: Any) -> None:
        # Bindings are for those who publish through an exchange; Celery names the queue itself.
        try:
            super()._queue_bind(*args)
        except ResponseError as error:
            log.warning("broker_refuses", error=one_line(error))

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (Empty, OSError):
            raise
        except ResponseError as error:
            log.warning("broker_refuses", error=one_line(error), pause_seconds=REFUSED_PAUSE_SECONDS)
            time.sleep(REFUSED_PAUSE_SECONDS)  # before the consumer connects anew, perhaps to another server
            raise
        except RedisError:
            raise
        except UNREADABLE as error:
            log.warning("message_discarded", error=one_line(error))
            return True


class Transport(_Transport):  # type: ignore[misc] # likewise
    """Takes the place of Kombu's own for ``redis://`` and ``rediss://``."""

    Channel = Channel
    # What Redis refuses now it may grant later: that ends no worker, the consumer connects anew.
    connection_errors = (*_Transport.connection_errors, ResponseError)

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            _check_time_limits(message)
            super()._deliver(message, queue)
        except (RedisError, OSError):
            raise
        except UNREADABLE as error:
            log.warning("message_discarded", queue=queue, error=one_line(error), text=repr(message)[:SHOWN_OF_MESSAGE])
            self._forget(message, queue)

    def _forget(self, message: Any, queue: str) -> None:
        """No other worker shall find the message again."""
        properties = message.get("properties") if isinstance(message, dict) else None
        tag = properties.get("delivery_tag") if isinstance(properties, dict) else None
        if isinstance(tag, str):
            for channel in [channel for channel in self.channels if queue in channel.active_queues]:
                channel.qos.ack(tag)


def _check_time_limits(message: Any) -> None:
    """Celery finds wrong ones only when it holds a place in its pool for the message, and never gives that back."""
    limits = (message["headers"] or {}).get("timelimit") or (None, None)
    if len(limits) != 2 or not all(limit is None or isinstance(limit, int | float) for limit in limits):
        raise ValueError(f"time limits {limits!r}")
