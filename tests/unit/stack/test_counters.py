"""Counters that pool processes keep and the main process shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

WORK = """
import sys
from billiard.process import current_process
current_process().index = int(sys.argv[1])
from worker import metrics
metrics.observe_chunk("refresh", "chunk", 3.0, done=10, failed=1, skipped=4)
metrics.observe_model_seconds("refresh", 0.2, 6)
metrics.observe_reading_seconds("refresh", {"wait": 0.5, "decode": 1.5})
"""
SHOW = "import sys; from worker import metrics; sys.stdout.write(metrics.expose().decode())"


def python(code: str, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_processes_add_up_and_their_successors_go_on(tmp_path: Path) -> None:
    for place in ("0", "1", "0"):  # the last takes over the place of the first
        python(WORK, tmp_path, place)
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(python(SHOW, tmp_path))
        for sample in family.samples
    }
    assert samples["shopvision_items_total", "done", "refresh"] == 18
    assert samples["shopvision_items_total", "refresh", "skipped"] == 12
    assert samples["shopvision_items_total", "failed", "refresh"] == 3
    assert samples["shopvision_chunk_seconds_sum", "chunk", "refresh"] == 9
    assert round(samples["shopvision_model_seconds_total", "refresh"], 3) == 0.6
    assert samples["shopvision_model_items_total", "refresh"] == 18
    assert samples["shopvision_reading_seconds_total", "decode", "refresh"] == 4.5
    assert {path.name for path in tmp_path.glob("counter_*")} <= {"counter_0.db", "counter_1.db", "counter_main.db"}


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
"""
ROOM_AGAIN = "\nresource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"


def test_without_room_counting_goes_on_and_catches_up(tmp_path: Path) -> None:
    work = WORK.split("from worker import metrics")
    script = f"{work[0]}from worker import metrics\n{FULL}{work[1]}{ROOM_AGAIN}{work[1]}"
    python(script, tmp_path, "0")
    assert 'shopvision_items_total{kind="refresh",outcome="done"} 12.0' in python(SHOW, tmp_path)


def test_no_file_is_mapped(tmp_path: Path) -> None:
    """A mapped file without room below it ends the process by SIGBUS, which no handler outlives."""
    mapped = python(WORK + "\nprint(open('/proc/self/maps').read())", tmp_path, "0")
    assert str(tmp_path) not in mapped


def test_a_damaged_file_costs_only_itself(tmp_path: Path) -> None:
    python(WORK, tmp_path, "0")
    damages = (b"", b"\x00", b"\xff" * 100, b"\x40\x00\x00\x00\x00\x00\x00\x00\x30\x00\x00\x00")
    for place, damage in enumerate(damages, start=1):
        for name in (f"counter_{place}.db", f"histogram_{place}.db", f"counter_nonsense{place}.db"):
            (tmp_path / name).write_bytes(damage)
    assert 'shopvision_items_total{kind="refresh",outcome="done"} 6.0' in python(SHOW, tmp_path)
    for place in range(1, 5):
        python(WORK, tmp_path, str(place))  # which begins its files anew
    assert 'shopvision_items_total{kind="refresh",outcome="done"} 30.0' in python(SHOW, tmp_path)
