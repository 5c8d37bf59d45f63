"""Commands that run networks for long have the workers' allocator: they start anew, once, and say so to nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker.cli import memory
from worker.stack.processes import MALLOC_TUNABLES

SCRIPT = """
import json, os, sys
from pathlib import Path
from worker.cli.memory import use_workers_malloc
use_workers_malloc()
began = dict(entry.partition("=")[::2] for entry in Path("/proc/self/environ").read_text().split("\\0"))
print(json.dumps([os.getpid(), sys.argv[1:], began.get("GLIBC_TUNABLES"), os.environ.get("GLIBC_TUNABLES")]))
"""


@pytest.mark.parametrize("given", [None, "glibc.malloc.arena_max=1"])
@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_a_command_starts_anew_once(tmp_path: Path, given: str | None) -> None:
    """The process stays the same to whoever started it; what it starts itself inherits nothing of ours."""
    environment = {name: value for name, value in os.environ.items() if name != memory.VARIABLE}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[3]), **({memory.VARIABLE: given} if given else {})}
    command = [sys.executable, "-W", "error", "-c", SCRIPT, "train", "a b"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        identity, arguments, began, inherited = json.loads(process.communicate()[0])
    assert (identity, arguments, inherited) == (process.pid, ["train", "a b"], given)
    assert began == (given or MALLOC_TUNABLES).partition(":")[0]  # reading them, glibc ends the text after the first


def test_what_another_program_calls_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started anew"))
    for arguments in (["train", "clik"], []):
        monkeypatch.setattr(sys, "argv", ["shopvision", *arguments])
        memory.use_workers_malloc()
    # A test runner would begin all its tests anew, at each such command, without end.
    monkeypatch.setattr(sys, "argv", ["/site-packages/pytest/__main__.py", "-q", "tests"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "pytest", "-q", "tests"])
    memory.use_workers_malloc()
