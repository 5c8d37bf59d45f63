"""Prometheus metrics: what the pool processes count, and what Redis and Postgres say when asked.

The work happens in pool processes and /metrics is served by the worker's main process, so counters live in files
(``PROMETHEUS_MULTIPROC_DIR``). A file belongs to a place in the pool, not to a process id: a process that takes over
the place of another goes on counting there, and the number of files stays bounded however often processes are recycled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from billiard.process import current_process
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.counter_files import CounterFile, CounterFiles

MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CHUNK_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
MODEL_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STATEMENT_TIMEOUT_MS = 5000


def _place_in_pool() -> str:
    return str(getattr(current_process(), "index", "main"))


if MULTIPROCESS_VARIABLE in os.environ:
    _library: Any = values
    _library.MmapedDict = CounterFile  # it names its own class and takes no other
    _library.ValueClass = _library.MultiProcessValue(_place_in_pool)

# In multiprocess mode the registry that counts is the one made at each scrape, so this one stays empty there.
_registry = None if MULTIPROCESS_VARIABLE in os.environ else CollectorRegistry()

_chunk_seconds = Histogram(
    "shopvision_chunk_seconds",
    "Time from claiming a chunk to its commit",
    ("kind", "phase"),
    buckets=CHUNK_BUCKETS,
    registry=_registry,
)
_items = Counter(
    "shopvision_items",
    "Items worked on: done (something was computed), skipped (nothing had changed), failed",
    ("kind", "outcome"),
    registry=_registry,
)
_model_seconds = Counter("shopvision_model_seconds", "Time that items spent in a model", ("kind",), registry=_registry)
_model_items = Counter("shopvision_model_items", "Items that went through a model", ("kind",), registry=_registry)
_reading_seconds = Counter(
    "shopvision_reading_seconds",
    "Time for pictures: the model's thread waited for them (wait), threads fetched them (fetch), processors decoded "
    "and prepared them (decode)",
    ("kind", "part"),
    registry=_registry,
)


def observe_chunk(kind: str, phase: str, seconds: float, *, done: int, failed: int, skipped: int) -> None:
    """Count one finished step of a job.

    Args:
        done: items processed, the ``skipped`` ones (nothing had changed) included and the ``failed`` ones not.
    """
    _chunk_seconds.labels(kind, str(phase)).observe(seconds)
    for outcome, count in (("done", done - skipped), ("skipped", skipped), ("failed", failed)):
        if count:
            _items.labels(kind, outcome).inc(count)


def observe_reading_seconds(kind: str, seconds: Mapping[str, float]) -> None:
    """Add what pictures of one chunk took, by part: see ``ChunkResult.reading_seconds``."""
    for part, value in seconds.items():
        _reading_seconds.labels(kind, part).inc(value)


def observe_model_seconds(kind: str, seconds: float, items: int) -> None:
    """Add the time that ``items`` items of one chunk spent in a model."""
    _model_seconds.labels(kind).inc(seconds)
    _model_items.labels(kind).inc(items)


def expose(*collectors: Collector) -> bytes:
    """The text that Prometheus reads: counters of this worker's processes, and what ``collectors`` find out now."""
    registry = _registry
    if registry is None:
        registry = CollectorRegistry()
        CounterFiles(registry)  # type: ignore[no-untyped-call] # not typed there
    text = generate_latest(registry)
    for collector in collectors:
        once = CollectorRegistry()
        once.register(collector)
        text += generate_latest(once)
    return text


class BrokerCollector(Collector):
    """Depth of each queue, read at scrape time; nothing but ``up 0`` while the broker is away."""

    def __init__(
        self, queues: tuple[str, ...], depth: Callable[[str], int], errors: tuple[type[Exception], ...]
    ) -> None:
        self._queues = queues
        self._depth = depth
        self._errors = errors

    def describe(self) -> list[Any]:
        """Nothing, so that registering asks no broker."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One sample per queue."""
        up = GaugeMetricFamily("shopvision_broker_up", "1 while the broker answers")
        depth = GaugeMetricFamily("shopvision_queue_depth", "Messages waiting", labels=["queue"])
        try:
            for queue in self._queues:
                depth.add_metric([queue], self._depth(queue))
        except self._errors:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield depth


# name, help, label names, SQL whose columns are the labels and then the value
_GAUGES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (
        "shopvision_jobs",
        "Jobs by kind and state",
        ("kind", "state"),
        "SELECT kind, state, count(*) FROM jobs GROUP BY kind, state",
    ),
    (
        "shopvision_outbox_unsent",
        "Messages not yet handed to the broker",
        (),
        "SELECT count(*) FROM outbox WHERE sent_at IS NULL",
    ),
    (
        "shopvision_oldest_ready_chunk_seconds",
        "How long the longest-waiting chunk has been due",
        (),
        "SELECT greatest(0, extract(epoch FROM max(now() - not_before))) FROM chunks WHERE state = 'ready'",
    ),
    (
        "shopvision_index_age_seconds",
        "Time since the current generation was published",
        ("index",),
        "SELECT name, extract(epoch FROM now() - published_at) FROM index_generations WHERE is_current",
    ),
)


class LedgerCollector(Collector):
    """State of jobs, outbox and indexes, read at scrape time; nothing but ``up 0`` while Postgres is away."""

    def describe(self) -> list[Any]:
        """Nothing, so that registering asks no database."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """A few cheap queries in one transaction."""
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        from shopvision.database import Fault, connect, fault_of

        up = GaugeMetricFamily("shopvision_database_up", "1 while Postgres answers")
        families = []
        try:
            with connect() as connection:
                connection.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}"))
                for name, documentation, labels, query in _GAUGES:
                    family = GaugeMetricFamily(name, documentation, labels=list(labels))
                    for *label_values, value in connection.execute(text(query)):
                        family.add_metric([str(label) for label in label_values], float(value))
                    families.append(family)
        except SQLAlchemyError as error:
            # A server that cancels a slow query is up.
            up.add_metric([], int(fault_of(error) in {Fault.SERVER, Fault.REQUEST}))
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from families
