"""Making packages: once, by one process, tried before they are kept; the compiler itself runs in one test."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor, nn

from shopvision.encoders.compiled import compile_process, maker
from shopvision.encoders.compiled.compile_process import CannotCompileError, compile_network, make
from shopvision.encoders.compiled.inputs import Free, InputSpec
from shopvision.encoders.compiled.key import PackageKey, key_of
from shopvision.encoders.compiled.library import BrokenLibraryError, CompiledLibrary
from shopvision.encoders.compiled.maker import CompiledPackages
from shopvision.encoders.compiled.packages import PackageFolder

CPU = torch.device("cpu")
INPUTS = [InputSpec("float32", (Free("batch", 2, 64), 16))]


class Network(nn.Module):
    """Two results, in a dict; enough arithmetic that compiling it pays."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(16, 8)

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        hidden = self.layer(rows)
        for _ in range(20):
            hidden = (hidden * 1.01 + 0.1).sin()
        return {"sines": hidden, "sums": hidden.sum(dim=1)}


def request() -> tuple[PackageKey, BytesIO]:
    network = Network().eval()
    key = key_of(network, INPUTS, part="test", device=CPU, dtype=torch.float32)
    file = BytesIO()
    torch.save((key, network, CPU, 1), file)
    file.seek(0)
    return key, file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackageFolder:
    monkeypatch.setattr(compile_process.tempfile, "tempdir", None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    return PackageFolder(tmp_path / "compiled")


@pytest.mark.slow
def test_a_package_gives_what_the_network_gives(folder: PackageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real compiler. Free sizes, threads that go on, torn files: on the one library that this suite makes."""
    folder.prepare()
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(folder.folder / "cache"))
    key, file = request()
    monkeypatch.setattr(compile_process, "TOO_SLOW", 1e9)  # no test depends on speed
    make(folder, key.name, 10**9, file)
    packages = CompiledPackages(folder.folder.parent)
    assert packages.refusal(key) is None
    library, network = packages.load(key, CPU), Network().eval()
    assert library is not None
    assert not folder.workplace(key.name).exists()
    for count in (2, 7, 64):
        rows = torch.randn(count, 16)
        with torch.inference_mode():
            torch.testing.assert_close(library(rows), network(rows))
    runs: list[Any] = []
    threads = [threading.Thread(target=lambda: runs.append(library(rows))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 4
    place = packages.place(key)
    torn = place.read_bytes()[:-1]
    place.unlink()  # it is in use: writing into it would change the code that runs
    place.write_bytes(torn)
    assert packages.load(key, CPU) is None
    assert not place.exists()


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.so").write_bytes(b"no library")
    with pytest.raises(BrokenLibraryError, match="OSError"):
        CompiledLibrary(tmp_path / "one.so", CPU)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The compiler's place: notes each call, and takes a moment."""
    calls: list[str] = []

    def compile_slowly(_module: nn.Module, key: PackageKey, _device: torch.device, workplace: Path) -> Path:
        calls.append(key.name)
        time.sleep(0.2)
        (workplace / "library.so").write_bytes(b"library")
        return workplace / "library.so"

    monkeypatch.setattr(compile_process, "compile_network", compile_slowly)
    return calls


def test_two_that_want_the_same_make_it_once(folder: PackageFolder, compiled: list[str]) -> None:
    key, _ = request()
    wanted = [threading.Thread(target=make, args=[folder, key.name, 10**9, request()[1]]) for _ in range(3)]
    for one in wanted:
        one.start()
    for one in wanted:
        one.join()
    assert compiled == [key.name]
    assert folder.find(key.name, key.as_dict()) is not None


def test_a_compiler_that_fails_is_remembered(folder: PackageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Path:
        raise RuntimeError("no C++ compiler\nlong story")

    monkeypatch.setattr(compile_process, "compile_network", fail)
    key, file = request()
    make(folder, key.name, 10**9, file)
    assert folder.refusal(key.name, key.as_dict()) == "RuntimeError: no C++ compiler"
    assert folder.find(key.name, key.as_dict()) is None
    assert not folder.workplace(key.name).exists()


@pytest.mark.parametrize(
    ("differs", "slower", "reason"),
    [(0.1, 0.0, "its results differ from the network's: tensor 0: a row by 0.1"), (0.0, 1.0, "it is no faster")],
)
def test_a_package_is_tried_before_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, differs: float, slower: float, reason: str
) -> None:
    network = Network().eval()

    class Library:
        def __init__(self, *_: object) -> None:
            pass

        def __call__(self, rows: Tensor) -> dict[str, Tensor]:
            return {name: tensor * (1 + differs) for name, tensor in network(rows).items()}

    monkeypatch.setattr(compile_process, "_compile", lambda *_: tmp_path / "library.so")
    monkeypatch.setattr(compile_process, "CompiledLibrary", Library)
    monkeypatch.setattr(compile_process, "_seconds", lambda run, _: 1.0 + slower * isinstance(run, Library))
    with pytest.raises(CannotCompileError, match=reason):
        compile_network(network, request()[0], CPU, tmp_path)


def processes(monkeypatch: pytest.MonkeyPatch, script: str) -> list[subprocess.Popen[bytes]]:
    """Let ``script`` run in the place of the process that compiles."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*_: object) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sh", "-c", script], stderr=subprocess.PIPE))
        return started[-1]

    monkeypatch.setattr(maker, "_start_process", start)
    return started


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo loading >&2; echo OSError: disk full >&2; exit 1", "status 1: OSError: disk full"),
        ("kill -9 $$", "status -9"),
        ("true", "status 0"),
    ],
)
def test_a_process_that_dies_is_remembered(
    folder: PackageFolder, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    started = processes(monkeypatch, script)
    packages, (key, _) = CompiledPackages(folder.folder.parent), request()
    told = f"the compiler ended with {reason}"
    with capture_logs() as logs:
        assert packages.make(key, Network(), CPU) == told
    assert packages.refusal(key) == told
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("model not compiled", told)]
    assert packages.make(key, Network(), CPU) == told  # whoever insists may try again
    assert len(started) == 2


def test_asking_does_not_wait(folder: PackageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    started = processes(monkeypatch, "read line")
    packages, (key, _) = CompiledPackages(folder.folder.parent), request()
    with folder.lock(key.name, wait=True):
        packages.request(key, Network(), CPU)
    assert started == []  # somebody is at it
    packages.request(key, Network(), CPU)
    (process,) = started
    process.wait(30)


def test_a_network_that_cannot_be_handed_over_is_refused(folder: PackageFolder) -> None:
    network: Any = Network()
    network.hook = lambda: None
    packages, (key, _) = CompiledPackages(folder.folder.parent), request()
    assert "cannot be handed over" in str(packages.make(key, network, CPU))
    assert packages.refusal(key) is not None


def test_a_home_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "compiled").write_text("a file")
    packages, (key, _) = CompiledPackages(tmp_path), request()
    with capture_logs() as logs:
        packages.request(key, Network(), CPU)
    assert [entry["event"] for entry in logs] == ["compiled models cannot be kept"]
    with pytest.raises(OSError, match="compiled"):
        packages.make(key, Network(), CPU)
    assert packages.load(key, CPU) is None


def test_it_ends_with_the_process_that_wants_it(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    script = (
        "import os, sys\n"
        "from shopvision.encoders.compiled import orphan\n"
        "orphan.LOOK_SECONDS = 0.05\n"
        f"open({str(alive)!r}, 'w').write(str(os.getpid()))\n"
        "orphan.end_with(int(sys.argv[1]))\n"
    )
    command = f'setsid {sys.executable} -c "$0" $$ & read line'
    between = subprocess.Popen(["sh", "-c", command, script], stdin=subprocess.PIPE)
    while not alive.exists() or not alive.read_text():
        assert between.poll() is None
        time.sleep(0.05)
    told = Path("/proc", alive.read_text(), "cmdline")
    assert told.exists()
    between.kill()
    between.communicate()
    while told.exists() and told.read_bytes():  # empty once it is dead and nobody has asked for its status
        time.sleep(0.05)
