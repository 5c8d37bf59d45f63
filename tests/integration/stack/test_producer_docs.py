"""A producer that has only what docs/producers.md names: the exported variables, `celery[redis]`, and no checkout."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kombu import Consumer, Queue
from kombu.message import Message
from sqlalchemy import select

from shopvision.database import connect
from shopvision.settings import get_settings
from tests.conftest import Run
from worker.app import app
from worker.ledger.tables import Job
from worker.stack.embedded import RedisServer
from worker.stack.lifetime import ProcessMark
from worker.stack.state import StackFolder, StackState

PAGE = (Path(__file__).parents[3] / "docs" / "producers.md").read_text(encoding="utf-8")


def first_block(language: str) -> str:
    """What the page shows first."""
    return str(re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0])


@pytest.fixture
def running_stack(broker: None, redis_server: RedisServer) -> None:
    """What a supervisor leaves for others to read."""
    folder = StackFolder(get_settings().home)
    folder.create()
    folder.write_state(StackState(supervisor=ProcessMark.of(os.getpid()), phase="ready"))
    folder.publish({"broker_url": redis_server.url})


def test_what_is_exported_is_all_a_producer_needs(
    database: None, running_stack: None, redis_server: RedisServer, command_line: Run, tmp_path: Path
) -> None:
    with StackFolder(get_settings().home).locked():
        status, exports, _ = command_line("stack", "env")
    assert status == 0
    assert first_block("console") == '$ eval "$(shopvision stack env)"\n'
    program = f"{exports}\nexec {shlex.quote(sys.executable)} -I -c {shlex.quote(first_block('python'))}"
    subprocess.run(["bash", "-c", program], env={"PATH": os.defpath}, cwd=tmp_path, check=True, timeout=120)

    sent: list[tuple[str, dict[str, Any]]] = []

    def take(body: Any, message: Message) -> None:
        sent.append((message.headers["task"], body[1]))
        message.ack()

    with (
        app.connection_for_read(redis_server.url) as connection,
        Consumer(connection, [Queue("control")], callbacks=[take], accept=["json"]),
    ):
        connection.drain_events(timeout=60)
    [(task, parameters)] = sent
    app.loader.import_default_modules()
    app.tasks[task].apply(kwargs=parameters, throw=True)
    with connect() as connection:
        job = connection.execute(select(Job.kind, Job.idempotency_key, Job.state)).one()
    assert tuple(job) == ("refresh_embeddings", "import-2026-11-21", "running")
