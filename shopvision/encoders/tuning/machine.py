"""What of a machine decides how fast a network runs on it. Loads no torch, unless a GPU is asked for."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

# Instruction sets that the kernels of networks are chosen by; other features of a processor do not matter here.
_FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8",
             "asimd", "asimdhp", "bf16", "sve", "i8mm")  # fmt: skip
# What a process's environment says about speed: another value is another machine.
_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "GLIBC_TUNABLES")


class Machine(BaseModel):
    """Where a model was measured; equal ones run it equally fast.

    Attributes:
        processor: of the CPU, or the name of the GPU.
        features: instruction sets of the CPU, and the variables of the environment that limit it; or the compute
            capability of the GPU.
        cores: CPUs that the process may use, and the share of them that its container gets.
        torch: version.
        threads: that a process computes with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    features: tuple[str, ...]
    cores: str
    torch: str
    threads: int

    def __str__(self) -> str:
        return f"{self.processor}, {self.cores} cores, {self.threads} threads a process"


def this_machine(threads: int, device: str = "cpu", environment: Mapping[str, str] = os.environ) -> Machine:
    """The machine that this process runs on.

    Args:
        threads: that a process computes with.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...
        environment: of the process that computes, where that is another one.
    """
    processor, features = _gpu(device) if device.startswith("cuda") else _cpu()
    told = tuple(f"{name}={environment[name]}" for name in _VARIABLES if environment.get(name))
    return Machine(
        processor=processor, features=(*features, *told), cores=_cores(), torch=version("torch"), threads=threads
    )


@lru_cache(maxsize=1)
def _cpu() -> tuple[str, tuple[str, ...]]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), ()
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    fields = dict(reversed(pairs))  # the first processor counts
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    name = fields.get("model name") or f"{platform.machine()} {fields.get('CPU implementer', '')}".strip()
    return name, tuple(feature for feature in _FEATURES if feature in flags)


def _gpu(device: str) -> tuple[str, tuple[str, ...]]:
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    return torch.cuda.get_device_name(device), (f"sm_{major}{minor}",)


def _cores() -> str:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return str(count)
    return str(count) if quota == "max" else f"{count}, of which {int(quota) / int(period):g} at a time"
