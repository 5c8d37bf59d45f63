"""What a compiled network depends on; where anything of it differs, another package is needed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shopvision.encoders.compiled.inputs import InputSpec

# What compiles and what calls the result: another text of these makes other packages.
_MAKING = ("compile_process.py", "library.py")
# What the variables forbid of a processor, the code compiled under them does not use, nor the weights it has packed.
_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.Size)


@dataclass(frozen=True)
class PackageKey:
    """One package.

    Attributes:
        part: what was compiled, for people: ``image encoder``.
        network: digest of its weights, its plain attributes and the code of its modules.
        device: ``cpu`` or ``cuda``.
        features: of the processor or GPU, and how many threads it was compiled for.
        dtype: what it computes in: ``float32``.
        inputs: which tensors it takes.
        torch: its version, with that of CUDA.
        making: digest of the code that makes and calls packages.
    """

    part: str
    network: str
    device: str
    features: str
    dtype: str
    inputs: tuple[InputSpec, ...]
    torch: str
    making: str

    def as_dict(self) -> dict[str, Any]:
        """As it stands in a note: plain JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @property
    def name(self) -> str:
        """A digest that serves as a file's name."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:40]


def key_of(
    module: nn.Module, inputs: Sequence[InputSpec], *, part: str, device: torch.device, dtype: torch.dtype
) -> PackageKey:
    """The key of a module as it is now. It reads every weight: about a second for a gigabyte."""
    return PackageKey(
        part=part,
        network=fingerprint(module),
        device=device.type,
        features=features_of(device),
        dtype=str(dtype).removeprefix("torch."),
        inputs=tuple(inputs),
        torch=f"{torch.__version__} {torch.version.cuda or ''}".strip(),
        making=_digest_of_files(tuple(str(Path(__file__).with_name(name)) for name in _MAKING)),
    )


def features_of(device: torch.device) -> str:
    """What compiled code relies on of a processor or GPU."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"{torch.cuda.get_device_name(device)} {major}.{minor}"
    flags = sorted(name for name, there in torch.cpu.get_capabilities().items() if there)
    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if os.environ.get(name)]
    # The number of threads stands in the loops of the compiled code.
    threads = f"{torch.get_num_threads()} threads"
    return ", ".join([_processor(), torch.backends.cpu.get_cpu_capability(), *map(str, flags), *limits, threads])


@cache
def _processor() -> str:
    """Its name: the libraries below torch choose layouts of weights by its caches, too."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join([platform.machine(), *names[:1]])


def fingerprint(module: nn.Module) -> str:
    """Digest of everything in a network that its output may depend on.

    That is, of each module in it, its class, the file that the class stands in and the version of its library, its
    attributes that are plain values, and its parameters and buffers.
    """
    found = hashlib.sha256()
    files: set[str] = set()
    libraries: set[str] = set()
    for name, part in module.named_modules():
        kind = type(part)
        files.add(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")
        libraries.add(_version(kind.__module__.partition(".")[0]))
        plain = {key: repr(value) for key, value in sorted(vars(part).items()) if _is_plain(value)}
        plain.pop("training", None)
        found.update(json.dumps([name, kind.__module__, kind.__qualname__, plain]).encode())
    found.update(_digest_of_files(tuple(sorted(files - {""}))).encode())
    found.update(json.dumps(sorted(libraries)).encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        found.update(values.numpy().data)
    return found.hexdigest()


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return isinstance(value, _PLAIN)


@cache
def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # ours when it is not installed, or a module of the user's: its file is what counts
        return package


@cache
def _digest_of_files(paths: tuple[str, ...]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(Path(path).read_bytes())
    return found.hexdigest()
