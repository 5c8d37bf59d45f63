"""The process that makes one package; started by ``maker``, which hands it the network on standard input.

It runs at low priority, is the first to go when memory is short, and ends with the process that wants the package.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch._inductor import aoti_compile_and_package

from shopvision.encoders.compiled.agreement import disagreement
from shopvision.encoders.compiled.inputs import example, export_shapes, smallest
from shopvision.encoders.compiled.key import PackageKey
from shopvision.encoders.compiled.library import CompiledLibrary
from shopvision.encoders.compiled.orphan import end_with
from shopvision.encoders.compiled.packages import Note, PackageFolder
from shopvision.storage.digests import sha256_of

NICENESS = 5
TOO_SLOW = 1.05  # seconds vary by as much


class CannotCompileError(Exception):
    """The network cannot be compiled here, or need not; the message says why."""


def compile_network(module: nn.Module, key: PackageKey, device: torch.device, workplace: Path) -> Path:
    """Compile for the tensors of ``key``, and try the result.

    Args:
        module: in evaluation mode, on ``device``.
        key: of the package.
        device: where it will run.
        workplace: a folder; what is left there is of no use to anybody.

    Returns:
        The shared library, in ``workplace``.

    Raises:
        CannotCompileError: its results differ, it is no faster, or it needs more than a library.
        Exception: whatever the compiler trips over.
    """
    tensors = [tensor.to(device) for tensor in example(key.inputs)]
    library = _compile(module, key, tensors, workplace)
    run = CompiledLibrary(library, device)
    with torch.inference_mode():
        for inputs in (tensors, [tensor.to(device) for tensor in smallest(key.inputs)]):
            if difference := disagreement(module(*inputs), run(*inputs), key.dtype):
                raise CannotCompileError(f"its results differ from the network's: {difference}")
        eager, compiled = (_seconds(function, tensors) for function in (module, run))
    if compiled > TOO_SLOW * eager:
        raise CannotCompileError(f"it is no faster than the network itself ({compiled:.3g} s against {eager:.3g} s)")
    return library


def _compile(module: nn.Module, key: PackageKey, tensors: Sequence[Tensor], workplace: Path) -> Path:
    package = workplace / "package.pt2"
    # Precompiled headers would save others time, and there are none: each package has a workplace of its own.
    options: dict[str, Any] = {"aot_inductor.precompile_headers": False, "cpp_cache_precompile_headers": False}
    if key.device == "cpu":
        options["freezing"] = True  # constant weights let the compiler lay them out for its kernels once
    else:
        options["aot_inductor.embed_kernel_binary"] = True
    with torch.no_grad():
        program = torch.export.export(module, tuple(tensors), dynamic_shapes=export_shapes(key.inputs))
        aoti_compile_and_package(program, package_path=str(package), inductor_configs=options)
    return _library_of(package, workplace)


def _library_of(package: Path, workplace: Path) -> Path:
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
        libraries = [name for name in names if name.endswith(".so")]
        # Operators without a C interface are described in a file of their own and need torch's loader.
        others = [name for name in names if name.endswith((".json", ".cubin")) and not name.endswith("_metadata.json")]
        if len(libraries) != 1 or others:
            raise CannotCompileError(f"it is more than one library: {', '.join(libraries + others) or 'none'}")
        target = workplace / "library.so"
        with archive.open(libraries[0]) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    return target


def _seconds(run: Callable[..., Any], tensors: Sequence[Tensor]) -> float:
    """The best of three runs after one that warms up; processor time where that is what computes.

    Other processes work at the same time and at a higher priority.
    """
    on_gpu = tensors[0].device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    times = []
    for _ in range(4):
        started = clock()
        run(*tensors)
        if on_gpu:
            torch.cuda.synchronize(tensors[0].device)
        times.append(clock() - started)
    return min(times[1:])


def make(folder: PackageFolder, name: str, most_bytes: int, request: IO[bytes]) -> None:
    """Make the package that ``request`` describes, unless another process has done so meanwhile.

    Args:
        folder: of packages.
        name: of the package's key.
        most_bytes: of all packages together; see ``PackageFolder.prune``.
        request: (key, module, device, threads), as torch saves them. It runs code: it is from our parent, not a disk.

    Raises:
        OSError: the folder is full, or cannot be written to.
    """
    with folder.lock(name, wait=True):
        key, module, device, threads = torch.load(request, weights_only=False)
        plain = key.as_dict()
        if folder.find(name, plain) or folder.refusal(name, plain):
            return
        started, workplace = time.perf_counter(), folder.workplace(name)
        shutil.rmtree(workplace, ignore_errors=True)
        workplace.mkdir(mode=0o700)
        tempfile.tempdir = str(workplace)
        torch.set_num_threads(threads)
        try:
            library, reason = compile_network(module, key, device, workplace), None
        except Exception as error:  # noqa: BLE001 - whatever the compiler trips over is the reason
            said = str(error).strip().splitlines()[:1]
            library, reason = None, ": ".join([type(error).__name__, *said])
        seconds = round(time.perf_counter() - started, 1)
        digest = sha256_of(library) if library else None
        folder.keep(name, Note(plain, digest, reason, seconds, time.time()), library)
        shutil.rmtree(workplace, ignore_errors=True)
        folder.prune(most_bytes, name)


def main() -> None:
    """``python -m ...compile_process FOLDER NAME MOST_BYTES PARENT < REQUEST``."""
    folder, name, most_bytes, parent = sys.argv[1:]
    threading.Thread(target=end_with, args=[int(parent)], daemon=True).start()
    os.nice(NICENESS)
    with suppress(OSError):  # Linux alone has it
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    with os.fdopen(0, "rb", closefd=False) as request:
        make(PackageFolder(Path(folder)), name, int(most_bytes), request)


if __name__ == "__main__":
    main()
