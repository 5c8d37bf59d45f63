"""What a producer on the same machine is told, and a supervisor whose disk is full."""

from __future__ import annotations

import errno
import json
import os
import shlex
from pathlib import Path

import pytest

from shopvision.errors import UserError
from tests.conftest import Run
from worker.stack.lifetime import ProcessMark
from worker.stack.state import StackFolder, StackState
from worker.stack.supervisor import Supervisor


def test_a_stack_that_runs(command_line: Run, tmp_path: Path) -> None:
    folder = StackFolder(tmp_path / "home")
    folder.create()
    given = {"broker_url": "redis://:a'b$c@127.0.0.1:1/0", "object_store": "file:///a b"}
    with folder.locked():
        folder.write_state(StackState(supervisor=ProcessMark.of(os.getpid()), phase="ready"))
        folder.publish(given)
        status, printed, _ = command_line("stack", "env")
        _, as_json, _ = command_line("stack", "env", "--json")
    expected = {
        "SHOPVISION_HOME": str(tmp_path / "home"),
        "SHOPVISION_BROKER_URL": given["broker_url"],
        "SHOPVISION_OBJECT_STORE": given["object_store"],
    }
    assert status == 0
    assert json.loads(as_json) == expected
    words = shlex.split(printed)
    assert words[::2] == ["export"] * 3
    assert dict(word.split("=", 1) for word in words[1::2]) == expected


def test_no_stack_is_one_line(command_line: Run) -> None:
    status, printed, said = command_line("stack", "env")
    assert (status, printed) == (1, "")
    assert "shopvision stack up" in said


def test_a_full_disk_does_not_end_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    supervisor = Supervisor(tmp_path)
    supervisor._folder.create()
    with monkeypatch.context() as patch:
        patch.setattr("worker.stack.state.write_private", full)
        with pytest.raises(UserError, match="No space left"):
            supervisor._say("starting")
        supervisor._announced = True
        supervisor._say("ready")
        assert supervisor._unwritten
    supervisor._say("ready")
    assert not supervisor._unwritten
    assert json.loads((tmp_path / "run" / "stack.json").read_text())["phase"] == "ready"


def test_status_and_up_say_that_the_disk_is_full(
    command_line: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StackFolder(tmp_path / "home")
    folder.create()
    line = f"The disk of {tmp_path / 'home'} is full: free space there"

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with folder.locked():
        folder.write_state(StackState(supervisor=ProcessMark.of(os.getpid()), phase="ready"))
        assert command_line("stack", "status")[0] == 0
        monkeypatch.setattr("os.fsync", full)
        status, printed, _ = command_line("stack", "status")
        _, as_json, _ = command_line("stack", "status", "--json")
    assert status == 1
    assert line in " ".join(printed.split())
    assert json.loads(as_json)["warning"].startswith(line)
    for options in ([], ["--detach"]):
        status, _, said = command_line("stack", "up", *options)
        assert status == 1
        assert line in " ".join(said.split())
