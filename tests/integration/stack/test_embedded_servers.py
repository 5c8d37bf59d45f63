"""Embedded servers after accidents: stale files, a process that outlived its supervisor, ports that are taken."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import psutil
import pytest

from shopvision.errors import UserError
from worker.stack.embedded import PostgresServer, RedisServer, free_port, port_is_free
from worker.stack.state import StackFolder


def start(server: PostgresServer | RedisServer, log: Path) -> subprocess.Popen[bytes]:
    server.initialise()
    with log.open("ab") as output:
        process = subprocess.Popen(server.command(), stdout=output, stderr=output, cwd="/")
    server.wait_until_ready(lambda: process.poll() is None)
    return process


def test_postgres_starts_again_after_any_end(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "data", free_port(), "secret")
    first = start(server, tmp_path / "log")
    first.kill()
    first.wait()
    pid_file = tmp_path / "data" / "postmaster.pid"
    # After a restart of the machine the number may belong to anybody, here to this very test.
    pid_file.write_text(pid_file.read_text().replace(str(first.pid), str(os.getpid()), 1))
    second = start(server, tmp_path / "log")
    assert psutil.pid_exists(os.getpid())
    # Nobody ended the second one: initialise() does.
    third = start(server, tmp_path / "log")
    assert second.wait(10) is not None
    third.send_signal(signal.SIGINT)
    assert third.wait(20) == 0


def test_redis_that_outlived_its_supervisor_is_replaced(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, free_port(), "secret")
    first = start(server, tmp_path / "log")
    second = start(server, tmp_path / "log")
    assert first.wait(10) is not None
    assert stat.S_IMODE((tmp_path / "redis.conf").stat().st_mode) == 0o600
    second.send_signal(signal.SIGTERM)
    assert second.wait(10) == 0


def test_another_server_on_the_port_is_not_taken_for_ours(tmp_path: Path, redis_server: RedisServer) -> None:
    server = RedisServer(tmp_path / "other", redis_server.port, redis_server.password)
    server.initialise()
    process = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    process.wait(10)
    asked: list[bool] = []
    with pytest.raises(UserError, match="Redis ended while starting"):
        server.wait_until_ready(lambda: bool(asked.append(process.poll() is None)) or asked[-1])
    assert asked == [False]


def test_ports_are_kept_until_somebody_takes_one(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path / "home")
    folder.create()
    identity = folder.identity()
    assert folder.identity() == identity
    assert folder.port("redis_port") == identity.redis_port
    with socket.create_server(("127.0.0.1", identity.redis_port)):
        assert not port_is_free(identity.redis_port)
        moved = folder.port("redis_port")
    assert moved != identity.redis_port
    assert folder.identity() == identity.model_copy(update={"redis_port": moved})
    assert stat.S_IMODE((tmp_path / "home" / "stack.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_lost_passwords_are_not_made_anew(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path)
    (tmp_path / "stack.json").write_text("{")
    with pytest.raises(UserError, match=r"stack\.json cannot be read"):
        folder.identity()


def test_one_supervisor_per_folder(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path)
    assert not folder.supervised()
    with folder.locked():
        assert folder.supervised()
        with pytest.raises(UserError, match="already runs"), StackFolder(tmp_path).locked():
            pass
    assert not folder.supervised()
