"""A worker that has nothing to do waits for nothing when it is asked to stop."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.stack.test_broker_trouble import BareWorker
from worker import dispatcher
from worker.stack.embedded import RedisServer


@pytest.mark.parametrize("pooling", ["true", "false"])
def test_a_dispatcher_that_waits_is_woken(
    pooling: str, database: None, broker: None, set_environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(
        SHOPVISION_DISPATCH_INTERVAL_SECONDS="600", SHOPVISION_DATABASE_TRANSACTION_POOLING=pooling,
    )  # fmt: skip
    looked = threading.Event()
    monkeypatch.setattr(dispatcher, "relay", lambda *_: looked.set())
    running = dispatcher.Dispatcher()
    running.start()
    assert looked.wait(60)
    running.stop()
    running.join(60)
    assert not running.is_alive()


def test_processes_that_are_not_up_yet_are_ended(tmp_path: Path, broker: None, redis_server: RedisServer) -> None:
    worker = BareWorker(tmp_path, redis_server, "tests.integration.stack.stuck_tasks")
    worker.process.send_signal(signal.SIGTERM)
    try:
        assert worker.process.wait(60) == 0
    finally:
        worker.process.kill()


def test_the_interpreter_looks_for_no_circles_at_its_end() -> None:
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count())); import worker.maintenance"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert int(ended.stdout) > 50_000  # what Celery and its libraries are made of
