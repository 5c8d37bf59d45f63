"""The command line and environment of each of our processes: GPU worker, CPU worker, beat, Flower.

One place, so that a container, a shell and the local stack start exactly the same thing. Nothing here imports torch,
and no secret stands on a command line: the processes read them from their environment or ``<home>/environment.json``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from shopvision.errors import UserError
from shopvision.settings import Settings, get_settings
from worker.stack.run_directory import RUN_DIRECTORY_VARIABLE, RunDirectory

GPU_QUEUES = ("gpu.embed", "gpu.score", "gpu.rank")
CPU_QUEUES = ("io", "index", "control")
CPU_WORKER_PROCESSES = 2
MAX_CPU_REPLICAS = 8  # each holds its own copy of the model
FLOWER_MAX_TASKS = 20_000
FLOWER_FORGETS_WORKERS_SECONDS = 3600

# By default glibc gives big activations back to the kernel after each layer and faults them in again.
MALLOC_TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=2147483648:glibc.malloc.trim_threshold=8589934592"


@dataclass(frozen=True)
class ProcessPlan:
    """What to execute: arguments, and variables to set on top of the inherited environment."""

    arguments: list[str]
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The whole environment of the process."""
        return {**os.environ, **self.variables}


def available_cores() -> int:
    """Cores this process may use: affinity mask and container quota considered."""
    from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined] # the stubs lag behind 5.7

    return int(cpu_budget(use_cgroup_quota=True).count)


def visible_gpus() -> list[str]:
    """Names of the GPUs we may use, as CUDA_VISIBLE_DEVICES takes them. Asks the driver, never torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return [name for name in names if name not in {"", "-1", "NoDevFiles"}]
    program = shutil.which("nvidia-smi")
    if program is not None:
        listing = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False, timeout=30)
        count = sum(line.startswith("GPU ") for line in listing.stdout.splitlines()) if listing.returncode == 0 else 0
    else:
        count = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return [str(number) for number in range(count)]


def cpu_replicas(cores: int) -> tuple[int, int]:
    """(processes, threads each) of a GPU-role worker that has no GPU.

    Two processes of one thread beat one of two on small convolutional models; beyond that, half as many processes as
    cores keeps the copies of the model few.
    """
    replicas = cores if cores <= 2 else min(MAX_CPU_REPLICAS, max(2, cores // 2))
    return replicas, cores // replicas


def cpu_layout(measured: tuple[int, int] | None) -> tuple[int, int]:
    """(threads, processes) of a worker that runs models on the CPU.

    Args:
        measured: the same, where it was measured; ``SHOPVISION_WORKER_PROCESSES`` comes before it.
    """
    cores, wanted = available_cores(), get_settings().worker_processes
    if wanted is not None:
        return max(1, cores // wanted), wanted
    if measured is not None:
        return measured
    processes, threads = cpu_replicas(cores)
    return threads, processes


def model_threads(measured: tuple[int, int] | None) -> int:
    """How many threads a process has that runs models in a worker of this machine; see ``cpu_layout``."""
    gpus, cores = visible_gpus(), available_cores()
    threads = max(1, cores // len(gpus)) if gpus else cpu_layout(measured)[0]
    return int(_threads(threads)["OMP_NUM_THREADS"])


def malloc_variables() -> dict[str, str]:
    """How memory is given out in processes that run models, unless the environment says otherwise."""
    return {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", MALLOC_TUNABLES)}


def _threads(count: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {name: os.environ.get(name, str(count)) for name in names}


def _celery(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", "worker.app", *arguments]


def _worker(directory: RunDirectory, queues: tuple[str, ...], processes: int, variables: dict[str, str]) -> ProcessPlan:
    settings = get_settings()
    # Two homes on one host may share a broker, where names must differ.
    mark = sha256(str(settings.home).encode()).hexdigest()[:4]
    return ProcessPlan(
        _celery(
            "worker",
            f"--queues={','.join(queues)}",
            "--pool=prefork",
            f"--concurrency={processes}",
            f"--hostname={directory.name}-{mark}@{socket.gethostname()}",
            f"--loglevel={settings.log_level}",
            "--without-mingle",
            "--without-gossip",
        ),
        {
            "SHOPVISION_HOME": str(settings.home),
            RUN_DIRECTORY_VARIABLE: str(directory.path),
            "SHOPVISION_STOP_FILE": str(directory.stop_file),
            "PROMETHEUS_MULTIPROC_DIR": str(directory.metrics),
            **variables,
        },
    )


def gpu_worker_name(device: int | None) -> str:
    """Short name of the worker on one GPU, or of the one that does its work without a GPU."""
    return "gpu" if device is None else f"gpu{device}"


def gpu_worker(directory: RunDirectory, device: int | None, *, layout: tuple[int, int] | None = None) -> ProcessPlan:
    """The worker of the ``gpu.*`` queues: one process on GPU ``device``, or as many as pay on the CPU where it is None.

    Args:
        directory: where it runs.
        device: which GPU.
        layout: (threads, processes) that were measured to be best on the CPU; ``SHOPVISION_WORKER_PROCESSES`` comes
            before them.

    Raises:
        UserError: there is no such GPU.
    """
    gpus = visible_gpus()
    cores = available_cores()
    malloc = malloc_variables()
    if device is None:
        threads, processes = cpu_layout(layout)
        return _worker(directory, GPU_QUEUES, processes, {"CUDA_VISIBLE_DEVICES": "", **malloc, **_threads(threads)})
    if device not in range(len(gpus)):
        available = f"0 to {len(gpus) - 1}" if gpus else "none was found"
        raise UserError(f"No GPU {device} on this machine (available: {available}). Choose another with --device.")
    variables = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": gpus[device]}
    return _worker(directory, GPU_QUEUES, 1, {**variables, **malloc, **_threads(max(1, cores // len(gpus)))})


def cpu_worker(directory: RunDirectory) -> ProcessPlan:
    """The worker of the queues that need no GPU."""
    threads = max(1, available_cores() // CPU_WORKER_PROCESSES)
    return _worker(directory, CPU_QUEUES, CPU_WORKER_PROCESSES, {"CUDA_VISIBLE_DEVICES": "", **_threads(threads)})


def beat() -> ProcessPlan:
    """The clock. It keeps no state, so a second one or a lost one does no harm."""
    settings = get_settings()
    return ProcessPlan(
        _celery("beat", f"--loglevel={settings.log_level}", "--pidfile="), {"SHOPVISION_HOME": str(settings.home)}
    )


def flower(settings: Settings | None = None) -> ProcessPlan:
    """The monitoring page, behind a password and read-only unless the settings say otherwise.

    Raises:
        UserError: no password is set, or Flower could not tell user and password apart.
    """
    settings = settings or get_settings()
    password = settings.flower_password.get_secret_value() if settings.flower_password else ""
    if not password:
        raise UserError("Flower needs a password: set SHOPVISION_FLOWER_PASSWORD.")
    if "," in settings.flower_user + password or ":" in settings.flower_user:
        raise UserError(
            "Flower separates names by ',' and ':': take these out of SHOPVISION_FLOWER_USER, and ',' out of "
            "SHOPVISION_FLOWER_PASSWORD."
        )
    return ProcessPlan(
        _celery("flower"),
        {
            "SHOPVISION_HOME": str(settings.home),
            "FLOWER_BASIC_AUTH": f"{settings.flower_user}:{password}",
            "FLOWER_ADDRESS": settings.flower_host,
            "FLOWER_PORT": str(settings.flower_port),
            "FLOWER_READ_ONLY": str(settings.flower_read_only).lower(),
            "FLOWER_MAX_TASKS": str(FLOWER_MAX_TASKS),
            "FLOWER_PURGE_OFFLINE_WORKERS": str(FLOWER_FORGETS_WORKERS_SECONDS),
            "FLOWER_UNAUTHENTICATED_API": "false",
        },
    )
