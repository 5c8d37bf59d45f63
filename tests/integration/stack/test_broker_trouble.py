"""A real worker on a Redis that refuses, and in front of messages that nobody can read."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import running
from worker.app import app
from worker.stack.embedded import RedisServer, free_port

MODULE = "tests.integration.stack.echo_tasks"


class BareWorker:
    """A worker of the queue ``io`` with a Redis of its own."""

    def __init__(self, folder: Path, server: RedisServer, module: str = MODULE) -> None:
        self._log = folder / "worker.log"
        self.client = redis.Redis.from_url(server.url)
        environment = {
            **os.environ,
            "SHOPVISION_BROKER_URL": server.url,
            "SHOPVISION_KIND_MODULES": module,
            "SHOPVISION_HOME": str(folder / "home"),
            "SHOPVISION_LOG_FORMAT": "json",
        }
        command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--queues=io", "--concurrency=1"]
        command += ["--without-gossip", "--without-mingle"]
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        self.until(lambda: " ready." in self.log(), "the worker is ready")

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None, f"the worker ended: {self.log()[-3000:]}"
            assert time.monotonic() < deadline, f"not in time: {what}: {self.log()[-3000:]}"
            time.sleep(0.05)

    def says(self, words: str) -> None:
        self.until(lambda: words in self.log(), words)

    def push(self, item: object) -> None:
        """Put text, or an envelope, at the end of the queue by hand."""
        self.client.lpush("io", item if isinstance(item, str | bytes) else json.dumps(item))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines() if f'"{name}"' in line]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareWorker]:
    folder = tmp_path_factory.mktemp("broker")
    server = RedisServer(folder / "redis", free_port(), "test")
    with running(server, folder / "redis.log", signal.SIGTERM):
        bare = BareWorker(folder, server)
        yield bare
        bare.process.terminate()
        assert bare.process.wait(30) == 0


@pytest.fixture(scope="module")
def envelope(worker: BareWorker) -> Callable[[str], dict[str, Any]]:
    """What Celery itself would send for a word."""

    def make(word: str) -> dict[str, Any]:
        with app.connection_for_write("memory://") as connection:
            app.send_task("echo", args=[word], queue="io", connection=connection)
            channel = connection.default_channel
            return dict(channel._get("io"))

    return make


def with_body(text: bytes) -> dict[str, str]:
    return {"body": base64.b64encode(text).decode()}


@pytest.mark.parametrize(
    "damage",
    [
        {"body": "%%%"},
        {"body": 5},
        with_body(b"\xff\xfe not json"),
        with_body(b'{"a": 1}'),
        with_body(b"[1]"),
        {"content-type": "application/x-python-serialize"},
        {"content-encoding": "klingon"},
        {"properties": None},
        {"properties": {"body_encoding": "rot13", "delivery_tag": "1", "delivery_info": {}}},
        {"properties": {"body_encoding": "base64", "delivery_tag": None, "delivery_info": {}}},
        {"headers": None},
        {"headers": {"task": "echo"}},
        {"headers": {"task": ["echo"], "id": "1"}},
        {"headers": {"task": "echo", "id": {"a": 1}}},
        {"headers": {"task": "echo", "id": "1", "timelimit": "soon"}},
        {"headers": {"task": "echo", "id": "1", "timelimit": ["a", "b"]}},
        {"headers": {"task": "echo", "id": "1", "eta": "soon"}},
        {"headers": {"task": "echo", "id": "1", "expires": "soon"}},
        {"headers": {"task": "echo", "id": "1", "retries": "many"}},
        {"headers": {"task": "echo", "id": "1", "compression": "zlib"}},
        {"headers": {"task": "echo", "id": "1", "compression": "klingon"}},
        {"headers": {"task": "nobody.knows", "id": "1"}},
    ],
    ids=lambda damage: json.dumps(damage)[:60],
)
def test_an_envelope_that_cannot_be_read(
    worker: BareWorker, envelope: Callable[[str], dict[str, Any]], damage: dict[str, Any]
) -> None:
    word = f"after {time.monotonic_ns()}"
    worker.push(envelope("poison") | damage)
    worker.push(envelope(word))
    worker.says(f"ECHO {word}")
    worker.until(lambda: not worker.client.exists("unacked", "unacked_index", "io"), "nothing is left of it")


@pytest.mark.parametrize(
    "text", [b"\xff{no json", b"[" * 100_000, b"[1]", b"5", b'{"__type__": "uuid", "__value__": 5}']
)
def test_what_is_no_envelope(worker: BareWorker, envelope: Callable[[str], dict[str, Any]], text: bytes) -> None:
    word = f"after {time.monotonic_ns()}"
    discarded = len(worker.events("message_discarded"))
    worker.push(text)
    worker.push(envelope(word))
    worker.says(f"ECHO {word}")
    assert len(worker.events("message_discarded")) == discarded + 1


def test_a_redis_without_room(worker: BareWorker, envelope: Callable[[str], dict[str, Any]]) -> None:
    """Messages that wait are worked off, which is what makes room; the worker stays, and goes on when there is room."""
    worker.process.send_signal(signal.SIGSTOP)
    for word in ("full 1", "full 2"):
        worker.push(envelope(word))
    worker.client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        worker.push("more")
    worker.process.send_signal(signal.SIGCONT)
    worker.says("ECHO full 2")
    assert len(worker.events("broker_keeps_no_copies")) == 1
    worker.client.config_set("maxmemory", 0)
    worker.push(envelope("roomy"))
    worker.says("ECHO roomy")
    worker.until(lambda: not worker.client.exists("unacked", "unacked_index", "io"), "nothing is held any more")


def test_a_redis_that_became_a_replica(worker: BareWorker, envelope: Callable[[str], dict[str, Any]]) -> None:
    worker.push(envelope("before"))
    worker.says("ECHO before")
    worker.client.replicaof("127.0.0.1", free_port())  # a master that is not there: reads go on, writes are refused
    worker.says("ReadOnlyError")
    worker.client.replicaof("NO", "ONE")
    worker.push(envelope("master again"))
    worker.says("ECHO master again")


def test_a_connection_that_breaks_is_one_line(worker: BareWorker, envelope: Callable[[str], dict[str, Any]]) -> None:
    before = len(worker.log())
    worker.client.client_kill_filter(_type="normal", skipme=True)
    worker.push(envelope("connected again"))
    worker.says("ECHO connected again")
    said = worker.log()[before:]
    assert "onnection" in said
    assert [word for word in ("Traceback", "DeprecationWarning") if word in said] == []
