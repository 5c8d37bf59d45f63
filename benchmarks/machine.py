"""Where and with what a result is measured: which kind of processor, which of its instructions, which libraries."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import CORES, REPOSITORY

LIBRARIES = (
    "torch",
    "timm",
    "transformers",
    "pillow",
    "numpy",
    "faiss-cpu",
    "celery",
    "redis",
    "sqlalchemy",
    "psycopg",
)
# What matters to matrices and vectors, of the names that Linux gives.
FEATURES = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "asimd", "bf16",
    "sve", "i8mm",
)  # fmt: skip
INSTRUCTIONS = "ONEDNN_MAX_CPU_ISA"
ATEN = "ATEN_CPU_CAPABILITY"
ONEDNN_SETS = (
    "SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_FP16",
    "AVX512_CORE_AMX",
)  # fmt: skip


def only(instructions: str) -> dict[str, str]:
    """Environment variables by which oneDNN and ATen use no instructions beyond a set of ``ONEDNN_SETS``."""
    aten = "avx512" if instructions.startswith("AVX512") else "avx2" if instructions.startswith("AVX2") else "default"
    return {INSTRUCTIONS: instructions, ATEN: aten}


def features() -> list[str]:
    """Those of ``FEATURES`` that the processor has, whatever the libraries were told to use."""
    flags = set(_cpu_information("flags", "Features").split())
    return [name for name in FEATURES if name in flags]


def has_bfloat16() -> bool:
    """Whether the processor multiplies matrices in bfloat16, by the instructions that are to be used."""
    told = os.environ.get(INSTRUCTIONS)
    may = told is None or told.endswith(("_BF16", "_FP16", "_AMX"))
    return may and bool({"avx512_bf16", "amx_bf16"} & set(features()))


def _cpu_information(*names: str) -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""


def kind() -> dict[str, Any]:
    """What tells one kind of machine from another; results of each are kept side by side."""
    return {
        "processor": _cpu_information("model name") or platform.processor() or platform.machine(),
        "cores": CORES,
        "features": features(),
        "instructions": os.environ.get(INSTRUCTIONS),
        "accelerator": _accelerator(),
    }


def _accelerator() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def software() -> dict[str, Any]:
    """Everything else that a result depends on."""
    return {
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def commit() -> str:
    """Which state of the code is measured; ``+`` marks changes that were not committed. Empty outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
        ).stdout.strip()

    name = git("rev-parse", "--short=10", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!docs")
    return f"{name}+" if name and changed else name


def kept() -> Path:
    """A folder for what takes minutes to make and says nothing of our speed."""
    folder = REPOSITORY / ".benchmarks"
    folder.mkdir(exist_ok=True)
    return folder
