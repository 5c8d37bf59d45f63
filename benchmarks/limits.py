"""The limit of an embedding job: the model alone on ready tensors, in the best of many settings, by plain torch.

Batch sizes 8 to 64, eager and compiled ahead of time with constant weights, in one process on all cores and in one for
each core, all with the memory settings of a worker. What was compiled is kept in ``.benchmarks`` for the next time.

Each process is ``python -m benchmarks.limits MODEL_FOLDER THREADS``; it reads one setting a line and says how it went.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import CORES, REPOSITORY, progress
from benchmarks.machine import has_bfloat16, kept, kind

if TYPE_CHECKING:
    from torch import Tensor, nn

EAGER, COMPILED = "eager", "compiled"
BATCH_SIZES = (8, 16, 32, 64)
SECONDS, QUICK_SECONDS = 2.0, 0.2
WARM_UP = 2  # batches


@dataclass(frozen=True)
class Setting:
    """How the model is run.

    Attributes:
        way: ``EAGER`` or ``COMPILED``.
        batch_size: pictures at once.
    """

    way: str
    batch_size: int


@dataclass(frozen=True)
class Limit:
    """What a setting reaches, in ``processes`` processes: pictures per second of all together."""

    processes: int
    setting: Setting
    rate: float

    def __str__(self) -> str:
        where = "one process" if self.processes == 1 else "one process per core"
        return f"{self.setting.way}, batch {self.setting.batch_size}, {where}"


def settings(*, quick: bool, ways: Sequence[str] = (EAGER, COMPILED)) -> list[Setting]:
    """Every setting to try; quickly, one of each way."""
    return [Setting(way, size) for way in ways for size in ((8,) if quick else BATCH_SIZES)]


def limits_of(
    folder: Path, wanted: Sequence[Setting], *, quick: bool, counts: Sequence[int] = (1, CORES)
) -> list[Limit]:
    """Measure each setting.

    Args:
        folder: of a model version.
        wanted: which settings.
        quick: for a moment only.
        counts: numbers of processes, in which all of them are measured.
    """
    found = []
    for processes in dict.fromkeys(counts):
        with _processes(folder, processes) as children:
            for setting in wanted:
                rate = _rate(children, setting, QUICK_SECONDS if quick else SECONDS)
                found.append(Limit(processes, setting, rate))
                progress(f"model only, {found[-1]}: {rate:.1f}")
    return found


@contextmanager
def _processes(folder: Path, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    from worker.stack.processes import MALLOC_TUNABLES

    threads = max(1, CORES // count)
    environment = os.environ | {"GLIBC_TUNABLES": MALLOC_TUNABLES, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.limits", str(folder), str(threads)]
    with ExitStack() as stack:
        children = []
        for _ in range(count):
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd=REPOSITORY
            )
            stack.enter_context(child)  # its end closes the input, which ends the process
            children.append(child)
        yield children


def _rate(children: Sequence[subprocess.Popen[str]], setting: Setting, seconds: float) -> float:
    """All processes prepare one after the other, for compiling takes every core; then they compute together."""
    for child in children:
        _tell(child, asdict(setting))
        _hear(child)
    for child in children:
        _tell(child, {"seconds": seconds})
    return sum(_hear(child) for child in children)


def _tell(child: subprocess.Popen[str], document: dict[str, Any]) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(document) + "\n")
    child.stdin.flush()


def _hear(child: subprocess.Popen[str]) -> float:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise SystemExit("A process that measures the model alone has ended; its error is above.")
    return float(line)


def serve(folder: Path, threads: int) -> None:
    """The process: a setting, ``0`` when it is ready, for how long, the rate; and so on."""
    import torch

    torch.set_num_threads(threads)
    network, batch = ready(folder)
    with torch.inference_mode():
        while line := sys.stdin.readline():
            setting = Setting(**json.loads(line))
            some = batch.repeat(setting.batch_size, 1, 1, 1).contiguous(memory_format=torch.channels_last)
            run = network if setting.way == EAGER else compiled(network, some, folder)
            for _ in range(WARM_UP):
                run(some)
            print(0, flush=True)
            seconds = json.loads(sys.stdin.readline())["seconds"]
            print(_pictures_per_second(run, some, seconds), flush=True)


def _pictures_per_second(run: Callable[[Tensor], Any], batch: Tensor, seconds: float) -> float:
    done, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        run(batch)
        done += len(batch)
    return done / took


def ready(folder: Path) -> tuple[nn.Module, Tensor]:
    """The network in the dtype that the processor computes in, and one picture: channels_last, BatchNorm folded."""
    import torch

    from benchmarks.baselines import card_and_network
    from shopvision.encoders._fast.folding import fold_batch_norm

    card, network = card_and_network(folder)
    height, width = card.preprocessing.size
    fold_batch_norm(network, torch.rand(1, 3, height, width))
    dtype = torch.bfloat16 if has_bfloat16() else torch.float32
    network = network.eval().requires_grad_(requires_grad=False).to(dtype).to(memory_format=torch.channels_last)
    return network, torch.rand(1, 3, height, width).to(dtype)


def compiled(network: nn.Module, batch: Tensor, folder: Path) -> Callable[[Tensor], Any]:
    """The network compiled ahead of time for batches of this shape, made once for a machine."""
    import torch
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    from benchmarks.baselines import card_and_network

    card, _ = card_and_network(folder)
    described = (
        card.architecture,
        torch.__version__,
        torch.__config__.show(),
        kind(),
        str(batch.shape),
        str(batch.dtype),
        CORES,
    )
    digest = hashlib.sha256(repr(described).encode())
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    package = kept() / f"{digest.hexdigest()[:32]}.pt2"
    if not package.exists():
        progress(f"compiling for batches of {len(batch)} ...")
        part = package.with_suffix(".part.pt2")
        # The number of threads must not be part of the code: it serves with all cores, and with one.
        options = {"freezing": True, "cpp.dynamic_threads": True}
        with torch.no_grad():
            program = torch.export.export(network, (batch.clone(),))
        aoti_compile_and_package(program, package_path=str(part), inductor_configs=options)
        part.rename(package)
    return aoti_load_package(str(package))


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
