"""Which processes run, with what, and what their command lines do not tell."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shopvision.errors import UserError
from worker import celery_config
from worker.stack import processes
from worker.stack.run_directory import RunDirectory, check_heartbeats, claim_run_directory, run_directories


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run" / "gpu")


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    return lambda count: monkeypatch.setattr(processes, "available_cores", lambda: count)


@pytest.mark.parametrize(
    ("core_count", "expected"), [(1, (1, 1)), (2, (2, 1)), (3, (2, 1)), (4, (2, 2)), (8, (4, 2)), (64, (8, 8))]
)
def test_replicas_use_the_cores(core_count: int, expected: tuple[int, int]) -> None:
    assert processes.cpu_replicas(core_count) == expected


def test_every_queue_has_a_worker() -> None:
    assert sorted((*processes.GPU_QUEUES, *processes.CPU_QUEUES)) == sorted(celery_config.QUEUES)


def test_without_gpu(directory: RunDirectory, cores: Callable[[int], None]) -> None:
    cores(4)
    plan = processes.gpu_worker(directory, None)
    assert {"--queues=gpu.embed,gpu.score,gpu.rank", "--pool=prefork", "--concurrency=2"} <= set(plan.arguments)
    assert plan.variables["CUDA_VISIBLE_DEVICES"] == ""
    assert plan.variables["OMP_NUM_THREADS"] == plan.variables["MKL_NUM_THREADS"] == "2"
    assert "hugetlb=1" in plan.variables["GLIBC_TUNABLES"]
    assert plan.variables["SHOPVISION_STOP_FILE"] == str(directory.path / "stop")


def test_one_process_per_gpu(
    directory: RunDirectory, cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(16)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa,GPU-bbbb")
    plan = processes.gpu_worker(directory, 1)
    assert "--concurrency=1" in plan.arguments
    assert plan.variables["CUDA_VISIBLE_DEVICES"] == "GPU-bbbb"
    assert plan.variables["OMP_NUM_THREADS"] == "8"
    with pytest.raises(UserError, match=r"No GPU 2 .*0 to 1"):
        processes.gpu_worker(directory, 2)


def test_what_the_user_tuned_stays(
    directory: RunDirectory, cores: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cores(4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
    variables = processes.gpu_worker(directory, None).variables
    assert (variables["OMP_NUM_THREADS"], variables["GLIBC_TUNABLES"]) == ("3", "glibc.malloc.arena_max=1")


@pytest.mark.parametrize(
    ("value", "expected"), [("", []), ("-1", []), ("0", ["0"]), ("2,3", ["2", "3"]), ("GPU-1", ["GPU-1"])]
)
def test_chosen_gpus(value: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert processes.visible_gpus() == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'GPU 0: NVIDIA L4 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA L4 (UUID: GPU-2)'", ["0", "1"]),
        ("echo 'Failed to initialize NVML'; exit 9", []),
    ],
)
def test_gpus_come_from_the_driver(
    script: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert processes.visible_gpus() == expected


def test_no_secret_on_a_command_line(directory: RunDirectory, set_environment: Callable[..., None]) -> None:
    set_environment(
        SHOPVISION_BROKER_URL="redis://:s3cret@h:1/0",
        SHOPVISION_DATABASE_URL="postgresql://u:s3cret@h/d",
        SHOPVISION_FLOWER_PASSWORD="s3cret",
    )
    plans = (
        processes.gpu_worker(directory, None),
        processes.cpu_worker(directory),
        processes.beat(),
        processes.flower(),
    )
    assert not [argument for plan in plans for argument in plan.arguments if "s3cret" in argument]


def test_flower_is_closed(set_environment: Callable[..., None]) -> None:
    with pytest.raises(UserError, match="SHOPVISION_FLOWER_PASSWORD"):
        processes.flower()
    set_environment(SHOPVISION_FLOWER_PASSWORD="one,two")
    with pytest.raises(UserError, match="','"):
        processes.flower()
    set_environment(SHOPVISION_FLOWER_PASSWORD="fine", SHOPVISION_FLOWER_USER="ada")
    variables = processes.flower().variables
    assert variables["FLOWER_BASIC_AUTH"] == "ada:fine"
    assert variables["FLOWER_READ_ONLY"] == "true"
    assert variables["FLOWER_ADDRESS"] == "127.0.0.1"
    assert variables["FLOWER_UNAUTHENTICATED_API"] == "false"


@pytest.mark.parametrize("read_only", [True, False])
def test_workers_obey_the_broker_only_where_flower_may_act(
    read_only: bool, set_environment: Callable[..., None]
) -> None:
    set_environment(SHOPVISION_FLOWER_READ_ONLY=str(read_only).lower())
    settings = runpy.run_path(celery_config.__file__)
    assert settings["worker_enable_remote_control"] is not read_only


def test_flower_knows_every_option_we_set(set_environment: Callable[..., None]) -> None:
    from flower.options import default_options

    set_environment(SHOPVISION_FLOWER_PASSWORD="fine")
    names = {
        name.removeprefix("FLOWER_").lower() for name in processes.flower().variables if name.startswith("FLOWER_")
    }
    assert {name for name in names if name not in default_options} == {"unauthenticated_api"}


def test_run_directory_belongs_to_one_process(tmp_path: Path) -> None:
    first = claim_run_directory(tmp_path, "cpu")
    second = claim_run_directory(tmp_path, "cpu")
    assert (first.name, second.name) == ("cpu", "cpu-2")
    assert [found.name for found in run_directories(tmp_path)] == ["cpu", "cpu-2"]
    first.stop_file.touch()
    (first.metrics / "counter_0.db").touch()
    assert first.lock is not None
    assert second.lock is not None
    os.close(first.lock)
    again = claim_run_directory(tmp_path, "cpu")
    assert again.name == "cpu"
    assert not again.stop_file.exists()
    assert not list(again.metrics.iterdir())
    assert again.lock is not None
    os.close(again.lock)
    os.close(second.lock)
    assert run_directories(tmp_path) == []


def test_run_directory_stays_claimed_across_exec(tmp_path: Path) -> None:
    directory = claim_run_directory(tmp_path, "cpu")
    assert directory.lock is not None
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[directory.lock])
    os.close(directory.lock)
    assert directory.in_use()
    process.communicate(b"\n")
    assert not directory.in_use()


def test_heartbeats(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No worker runs"):
        check_heartbeats(tmp_path)
    directory = claim_run_directory(tmp_path, "cpu")
    with pytest.raises(UserError, match="Worker cpu is not alive"):
        check_heartbeats(tmp_path)
    directory.heartbeat.touch()
    assert check_heartbeats(tmp_path)["cpu"] < 5
    with pytest.raises(UserError, match="No worker gpu0 runs"):
        check_heartbeats(tmp_path, "gpu0")
    os.utime(directory.heartbeat, (0, 0))
    with pytest.raises(UserError, match="not alive"):
        check_heartbeats(tmp_path, "cpu")
    assert directory.lock is not None
    os.close(directory.lock)
