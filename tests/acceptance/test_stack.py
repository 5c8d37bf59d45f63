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
        self.environment = {**os.environ, "SHOPVISION_HOME": str(home)}

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
def stacks(tmp_path: Path) -> Iterator[tuple[Stack, Stack]]:
    pair = Stack(tmp_path / "one"), Stack(tmp_path / "two")
    yield pair
    for stack in pair:
        stop(stack.home)


def gone(processes: list[psutil.Process]) -> bool:
    """Ended; where process 1 reaps nobody, zombies stay and count as ended."""
    return all(not process.is_running() or process.status() == psutil.STATUS_ZOMBIE for process in processes)


def wait_for_end(processes: list[psutil.Process]) -> None:
    eventually(lambda: gone(processes), f"an end of {processes}")


def test_life_of_a_stack(stacks: tuple[Stack, Stack]) -> None:
    one, two = stacks

    # Two side by side, in folders of their own.
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(Stack.up, stacks)
    assert (first["phase"], second["phase"]) == ("ready", "ready")
    assert set(first["processes"]) == {"postgres", "redis", "gpu", "cpu", "beat", "flower"}
    assert not set(one.settings().values()) & set(two.settings().values())
    flower = first["flower"]
    assert httpx.get(flower["url"]).status_code == 401
    assert httpx.get(f"{flower['url']}/workers", auth=(flower["user"], flower["password"])).status_code == 200
    secrets = [value.split(":")[2].split("@")[0] for name, value in one.settings().items() if name.endswith("_url")]
    assert len(secrets) == 2
    lines = [" ".join(process.cmdline()) for process in one.processes()]
    assert not [line for line in lines for secret in (*secrets, flower["password"]) if secret in line]
    again = one.run("up", "--detach")
    assert (again.returncode, "already runs" in again.stderr) == (1, True)
    with psycopg.connect(one.settings()["database_url"], autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    # One process dies: it comes back, the others stay.
    os.kill(first["processes"]["beat"]["pid"], signal.SIGKILL)
    eventually(one.beat_restarted, "beat comes back")
    result = one.run("status")
    assert result.returncode == 0
    now = json.loads(result.stdout)["processes"]
    assert now["beat"]["restarts"] == 1
    assert now["postgres"]["pid"] == first["processes"]["postgres"]["pid"]

    # Everything of the first dies at once; the second does not notice, and the first starts again without repair.
    killed = one.processes()
    for process in killed:
        with suppress(psutil.NoSuchProcess):  # some end by themselves as soon as the first are gone
            process.kill()
    wait_for_end(killed)
    assert read_status(one.home) is None
    assert two.pids() == {name: process["pid"] for name, process in second["processes"].items()}
    with ThreadPoolExecutor() as threads:
        revival = threads.submit(one.up)

        # Meanwhile the supervisor of the second dies alone: nothing is left behind.
        orphans = two.processes()
        orphans[0].kill()
        wait_for_end(orphans)
        assert stop(two.home) is False  # the kernel ended its processes already
        revived = revival.result()
    assert revived["phase"] == "ready"
    with psycopg.connect(one.settings()["database_url"]) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)

    # Down in good order.
    ordered = one.processes()
    assert json.loads(one.run("down").stdout)["stopped"] is True
    wait_for_end(ordered)
    for stack in stacks:
        assert not (stack.home / "environment.json").exists()
        assert stack.run("status").returncode == 1
    assert "database system is shut down" in (one.home / "logs" / "postgres.log").read_text().splitlines()[-1]


def test_what_does_not_start_is_said(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.environment["SHOPVISION_DATABASE_URL"] = "postgresql://nobody:x@127.0.0.1:1/none"
    result = stack.run("up", "--detach")
    assert result.returncode == 1
    assert "could not be prepared" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "environment.json").exists()
    assert not (tmp_path / "postgres").exists()  # it was named, so none was embedded
