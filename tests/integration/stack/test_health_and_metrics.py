"""What a worker says about itself over HTTP, with real Postgres and Redis behind it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from shopvision.database import connect
from shopvision.errors import UserError
from worker.app import app
from worker.broker import broker_errors, queue_depth
from worker.celery_config import QUEUES
from worker.health import BEAT_SECONDS, Monitor
from worker.metrics import BrokerCollector, LedgerCollector, expose
from worker.probe_server import MOST_CONNECTIONS
from worker.stack.run_directory import RunDirectory, claim_run_directory


@pytest.fixture
def celery(broker: None) -> Iterator[None]:
    """The application, pointed at this test's broker."""
    from shopvision.settings import get_settings

    address = get_settings().broker_url
    assert address is not None
    before = app.conf.broker_url
    app.conf.broker_url = address.get_secret_value()
    yield
    app.conf.broker_url = before


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    claimed = claim_run_directory(tmp_path, "cpu")
    yield claimed
    assert claimed.lock is not None
    os.close(claimed.lock)


def values(exposed: bytes) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(exposed.decode())
        for sample in family.samples
    }


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_probes(database: None, celery: None, directory: RunDirectory) -> None:
    monitor = Monitor(directory, ("control",))
    monitor.start()
    address = json.loads(directory.address_file.read_text())
    with httpx.Client(base_url=f"http://{address['host']}:{address['port']}") as client:
        assert client.get("/livez").status_code == 200
        wait_for(lambda: monitor.vitals.database is not None)
        not_yet = client.get("/readyz")
        assert (not_yet.status_code, not_yet.text) == (503, "not consuming\n")
        monitor.vitals.consuming = True
        assert client.get("/readyz").text == "ready\n"
        monitor.vitals.stopping = True
        assert client.get("/readyz").status_code == 503
        assert values(client.get("/metrics").content)["shopvision_database_up",] == 1
        assert client.get("/etc/passwd").status_code == 404
        os.utime(directory.heartbeat, (0, 0))
        assert client.get("/livez").status_code == 503
        wait_for(lambda: directory.heartbeat_age() < BEAT_SECONDS)  # a thread of its own keeps it beating
    monitor.stop()


def test_half_sent_requests_keep_nobody_out(database: None, celery: None, directory: RunDirectory) -> None:
    monitor = Monitor(directory, ())
    monitor.start()
    address = json.loads(directory.address_file.read_text())
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(300):
            half = stack.enter_context(socket.create_connection((address["host"], address["port"])))
            half.sendall(b"GET /livez HTTP/1.1\r\nHost:")
        wait_for(lambda: threading.active_count() - before <= MOST_CONNECTIONS + 1)
        assert httpx.get(f"http://{address['host']}:{address['port']}/livez").status_code == 200
    monitor.stop()


def test_a_connection_that_trickles_is_ended(
    database: None, celery: None, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.probe_server.LONGEST_SECONDS", 0.3)
    monitor = Monitor(directory, ())
    monitor.start()
    address = json.loads(directory.address_file.read_text())
    with socket.create_connection((address["host"], address["port"])) as trickle:
        trickle.settimeout(30)
        trickle.sendall(b"GET /livez HTTP/1.1\r\n")
        assert trickle.recv(1) == b""
    monitor.stop()


def test_a_taken_port_is_said(
    database: None, celery: None, directory: RunDirectory, set_environment: Callable[..., None]
) -> None:
    monitor = Monitor(directory, ())
    monitor.start()
    set_environment(SHOPVISION_HEALTH_PORT=str(json.loads(directory.address_file.read_text())["port"]))
    with pytest.raises(UserError, match="SHOPVISION_HEALTH_PORT"):
        Monitor(directory, ()).start()
    monitor.stop()


def test_a_worker_that_must_give_up_ends(database: None, celery: None, directory: RunDirectory) -> None:
    statuses: list[int] = []
    monitor = Monitor(directory, (), die=statuses.append)
    monitor.start()
    wait_for(lambda: monitor.vitals.broker_since is not None)
    monitor.vitals.ticked = monitor.vitals.broker_since = time.monotonic() - 1000
    wait_for(lambda: statuses == [70])
    monitor.stop()


def test_gauges(database: None, celery: None) -> None:
    with app.connection_for_write() as connection:
        for _ in range(2):
            app.send_task("worker.plan_due_jobs", queue="io", connection=connection)
    with connect() as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (kind, params, source, state) VALUES ('a', '{}', 'cli', 'running'),"
                " ('a', '{}', 'cli', 'running'), ('b', '{}', 'cli', 'failed')"
            )
        )
        job = connection.scalar(text("SELECT job_id FROM jobs LIMIT 1"))
        chunk = connection.scalar(
            text(
                "INSERT INTO chunks (job_id, phase, queue, not_before)"
                " VALUES (:job, 'split', 'control', now() - interval '90 s') RETURNING chunk_id"
            ),
            {"job": job},
        )
        connection.execute(
            text("INSERT INTO outbox (chunk_id, task, queue) VALUES (:chunk, 't', 'control')"), {"chunk": chunk}
        )
        version = connection.scalar(
            text("INSERT INTO model_versions (name, tag, card) VALUES ('m', '1', '{}') RETURNING model_version_id")
        )
        connection.execute(
            text(
                "INSERT INTO index_generations (name, path, model_version_id, state, is_current, manifest,"
                " bytes_uploaded, published_at)"
                " VALUES ('catalogue', 'p', :version, 'published', true, '{}', 0, now() - interval '1 hour')"
            ),
            {"version": version},
        )
    found = values(expose(BrokerCollector(QUEUES, queue_depth, broker_errors()), LedgerCollector()))
    assert found["shopvision_queue_depth", "io"] == 2
    assert found["shopvision_queue_depth", "gpu.embed"] == 0
    assert found["shopvision_jobs", "a", "running"] == 2
    assert found["shopvision_jobs", "b", "failed"] == 1
    assert found["shopvision_outbox_unsent",] == 1
    assert 90 <= found["shopvision_oldest_ready_chunk_seconds",] < 120
    assert 3600 <= found["shopvision_index_age_seconds", "catalogue"] < 3630


def test_servers_that_are_away(set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_DATABASE_URL="postgresql://nobody:x@127.0.0.1:1/none")

    def unreachable(queue: str) -> int:
        raise ConnectionRefusedError(queue)

    found = values(expose(BrokerCollector(QUEUES, unreachable, (OSError,)), LedgerCollector()))
    assert found["shopvision_broker_up",] == found["shopvision_database_up",] == 0
    assert not [name for name in found if name[0] in {"shopvision_queue_depth", "shopvision_jobs"}]
