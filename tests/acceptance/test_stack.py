"""A real local stack: started, killed without mercy, started again, two side by side, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from tests.acceptance.shop import COMMAND, eventually
from worker.stack.detached import read_status, stop

pytestmark = pytest.mark.acceptance


class Stack:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "SHOPVISION_HOME": str(home), "SHOPVISION_WORKER_PROCESSES": "1"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [COMMAND, "stack", *arguments, "--json"]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=250, check=False)

    def up(self) -> dict[str, Any]:
        result = self.run("up", "--detach")
        assert result.returncode == 0, result.stderr
        return dict(json.loads(result.stdout))

    def pids(self) -> dict[str, int]:
        state = read_status(self.home)
        assert state is not None
        return {name: process.mark.pid for name, process in state.processes.items() if process.running}

    def beat_restarted(self) -> bool:
        state = read_status(self.home)
        return state is not None and state.processes["beat"].running and state.processes["beat"].restarts > 0

    def settings(self) -> dict[str, str]:
        return dict(json.loads((self.home / "environment.json").read_text()))

    def processes(self) -> list[psutil.Process]:
        """The supervisor and everything under it."""
        state = json.loads((self.home / "run" / "stack.json").read_text())
        supervisor = psutil.Process(state["supervisor"]["pid"])
        return [supervisor, *supervisor.children(recursive=True)]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    one = Stack(tmp_path / "one")
    yield one
    stop(one.home)


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[Stack]:
    two = Stack(tmp_path / "two")
    yield two
    stop(two.home)


def gone(processes: list[psutil.Process]) -> bool:
    """Ended; where process 1 reaps nobody, zombies stay and count as ended."""
    return all(not process.is_running() or process.status() == psutil.STATUS_ZOMBIE for process in processes)


def wait_for_end(processes: list[psutil.Process]) -> None:
    eventually(lambda: gone(processes), f"an end of {processes}")


def test_life_of_a_stack(stack: Stack) -> None:
    first = stack.up()
    assert first["phase"] == "ready"
    assert set(first["processes"]) == {"postgres", "redis", "gpu", "cpu", "beat", "flower"}
    flower = first["flower"]
    assert httpx.get(flower["url"]).status_code == 401
    assert httpx.get(f"{flower['url']}/workers", auth=(flower["user"], flower["password"])).status_code == 200
    secrets = [value.split(":")[2].split("@")[0] for name, value in stack.settings().items() if name.endswith("_url")]
    assert len(secrets) == 2
    lines = [" ".join(process.cmdline()) for process in stack.processes()]
    assert not [line for line in lines for secret in (*secrets, flower["password"]) if secret in line]
    again = stack.run("up", "--detach")
    assert (again.returncode, "already runs" in again.stderr) == (1, True)
    with psycopg.connect(stack.settings()["database_url"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    # One process dies: it comes back, the others stay.
    os.kill(first["processes"]["beat"]["pid"], signal.SIGKILL)
    eventually(stack.beat_restarted, "beat comes back")
    result = stack.run("status")
    assert result.returncode == 0
    now = json.loads(result.stdout)["processes"]
    assert now["beat"]["restarts"] == 1
    assert now["postgres"]["pid"] == first["processes"]["postgres"]["pid"]

    # The supervisor dies alone: nothing is left behind, and it starts again without repair.
    orphans = stack.processes()
    orphans[0].kill()
    wait_for_end(orphans)
    assert read_status(stack.home) is None
    assert stack.up()["phase"] == "ready"
    with psycopg.connect(stack.settings()["database_url"]) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)

    # Down in good order.
    ordered = stack.processes()
    assert json.loads(stack.run("down").stdout)["stopped"] is True
    wait_for_end(ordered)
    assert not (stack.home / "environment.json").exists()
    assert stack.run("status").returncode == 1
    assert "database system is shut down" in (stack.home / "logs" / "postgres.log").read_text().splitlines()[-1]


@pytest.mark.slow
def test_one_of_two_stacks_side_by_side_is_killed(stack: Stack, neighbour: Stack) -> None:
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(Stack.up, (stack, neighbour))
    assert (first["phase"], second["phase"]) == ("ready", "ready")
    assert not set(stack.settings().values()) & set(neighbour.settings().values())
    killed = stack.processes()
    for process in killed:
        with suppress(psutil.NoSuchProcess):  # some end by themselves as soon as the first are gone
            process.kill()
    wait_for_end(killed)
    assert read_status(stack.home) is None
    assert neighbour.pids() == {name: process["pid"] for name, process in second["processes"].items()}
    assert stack.up()["phase"] == "ready"


def test_what_does_not_start_is_said(stack: Stack) -> None:
    stack.environment["SHOPVISION_DATABASE_URL"] = "postgresql://nobody:x@127.0.0.1:1/none"
    result = stack.run("up", "--detach")
    assert result.returncode == 1
    assert "could not be prepared" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (stack.home / "environment.json").exists()
    assert not (stack.home / "postgres").exists()  # it was named, so none was embedded
