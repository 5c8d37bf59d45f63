"""Processes under supervision."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.stack import child as child_module
from worker.stack.child import Child, last_lines, pause_before_restart
from worker.stack.lifetime import ProcessMark
from worker.stack.processes import ProcessPlan

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def make(code: str, tmp_path: Path) -> Child:
    return Child("it", lambda: (ProcessPlan([sys.executable, "-c", code]), []), tmp_path / "it.log")


def wait_for(condition: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator] # a function without arguments
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_pauses_grow_to_a_limit() -> None:
    assert [pause_before_restart(count) for count in (1, 2, 3, 4, 7, 50)] == [0.5, 1.0, 2.0, 4.0, 30.0, 30.0]


def test_restarts_what_ends_later_and_later(tmp_path: Path) -> None:
    child = make("print('ran')", tmp_path)
    child.start()
    wait_for(lambda: not child.running())
    now = time.monotonic()
    assert child.tend(now) == "it ended with status 0; restarting in 0.5 s"
    assert child.tend(now + 0.4) is None
    assert child.tend(now + 0.6) == "it restarted"
    wait_for(lambda: not child.running())
    assert "restarting in 1 s" in str(child.tend(time.monotonic()))
    assert child.restarts == 1
    assert last_lines(tmp_path / "it.log") == "ran\nran"


def test_a_long_run_starts_the_pauses_anew(tmp_path: Path) -> None:
    child = make("pass", tmp_path)
    for expected in ("0.5 s", "1 s"):
        child.start()
        wait_for(lambda: not child.running())
        assert expected in str(child.tend(time.monotonic()))
    child.start()
    wait_for(lambda: not child.running())
    assert "0.5 s" in str(child.tend(time.monotonic() + child_module.STABLE_SECONDS + 1))


def test_what_cannot_be_restarted_is_tried_again(tmp_path: Path) -> None:
    child = make("pass", tmp_path)
    child.start()
    wait_for(lambda: not child.running())
    now = time.monotonic()
    child.tend(now)
    child.log = tmp_path / "full" / "it.log"  # cannot be opened, as on a disk without room
    assert "cannot be restarted" in str(child.tend(now + 1))
    assert child.tend(now + 1.1) is None
    child.log.parent.mkdir()
    assert child.tend(now + 3) == "it restarted"
    child.wait(time.monotonic() + 30)


def test_kills_what_does_not_stop(tmp_path: Path) -> None:
    child = make(STUBBORN, tmp_path)
    child.start()
    wait_for(lambda: last_lines(child.log) == "up")
    child.ask_to_stop()
    assert not child.wait(time.monotonic() + 0.3)
    assert child.exit_status() == -signal.SIGKILL


def test_stops_in_good_order(tmp_path: Path) -> None:
    child = make("print('up', flush=True); import time; time.sleep(60)", tmp_path)
    child.start()
    wait_for(lambda: last_lines(child.log) == "up")
    child.ask_to_stop()
    assert child.wait(time.monotonic() + 30)
    assert child.exit_status() == -signal.SIGTERM


def test_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "LOG_LIMIT_BYTES", 10)
    child = make("import sys\nfor line in sys.stdin: pass", tmp_path)
    child.log.write_text("older than the limit allows\n")
    child.bound_log()
    assert child.log.read_text() == ""
    assert (tmp_path / "it.log.1").read_text() == "older than the limit allows\n"


def test_a_mark_names_one_process() -> None:
    mark = ProcessMark.of(os.getpid())
    assert mark.alive()
    assert not ProcessMark(mark.pid, mark.started - 100).alive()
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    mark = ProcessMark.of(ended.pid)
    wait_for(lambda: not mark.alive())  # a zombie
    ended.wait()
    assert not mark.alive()
    mark.send(signal.SIGTERM)  # harms nobody


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help exists on Linux only")
def test_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "from worker.stack.lifetime import tied_to_this_process\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " stdout=subprocess.DEVNULL, start_new_session=True, preexec_fn=tied_to_this_process(signal.SIGKILL))\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    grandchild = ProcessMark.of(int(parent.stdout.readline()))
    assert grandchild.alive()
    parent.kill()
    parent.communicate()
    wait_for(lambda: not grandchild.alive())


def test_a_parent_that_is_gone_already_counts_too() -> None:
    code = (
        "import os, signal\n"
        "from worker.stack.lifetime import tied_to_this_process\n"
        "tie = tied_to_this_process(signal.SIGKILL)\n"
        "if (middle := os.fork()) == 0:\n"
        "    if (last := os.fork()) == 0:\n"  # its parent is not the one that made ``tie``
        "        tie()\n"
        "        os._exit(0)\n"
        "    os._exit(os.waitstatus_to_exitcode(os.waitpid(last, 0)[1]))\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
