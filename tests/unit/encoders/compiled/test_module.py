"""When a network runs compiled, and when it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shopvision.encoders.compiled import background, module
from shopvision.encoders.compiled.inputs import Free, InputSpec
from shopvision.encoders.compiled.key import PackageKey
from shopvision.encoders.compiled.library import BrokenLibraryError
from shopvision.encoders.compiled.module import CompiledModule

CPU = torch.device("cpu")
INPUTS = [InputSpec("float32", (Free("batch", 2, 8), 3))]
ROWS = torch.arange(12.0).reshape(4, 3)
TRACE = 1e-5  # what tells a compiled result from an eager one here


class Packages:
    """In the place of the real ones: a package that agrees, another, none, or none that can be made."""

    def __init__(self) -> None:
        self.network: nn.Module | None = None
        self.error: float | Exception = TRACE
        self.there, self.empty = False, False
        self.reason: str | None = None
        self.calls: list[str] = []

    def __call__(self, _home: Path) -> Packages:
        return self

    def is_empty(self) -> bool:
        return self.empty

    def load(self, _key: PackageKey, _device: torch.device) -> Callable[[torch.Tensor], Any] | None:
        self.calls.append("load")
        return self._run if self.there else None

    def _run(self, rows: torch.Tensor) -> torch.Tensor:
        if isinstance(self.error, Exception):
            raise self.error
        assert self.network is not None
        return self.network(rows) * (1 + self.error)

    def refusal(self, _key: PackageKey) -> str | None:
        return self.reason

    def refuse(self, _key: PackageKey, reason: str) -> None:
        self.calls.append("refuse")
        self.reason, self.there = reason, False

    def make(self, _key: PackageKey, _module: nn.Module, _device: torch.device) -> str | None:
        self.calls.append("make")
        self.there = self.reason is None
        return self.reason

    def request(self, _key: PackageKey, _module: nn.Module, _device: torch.device) -> None:
        self.calls.append("request")


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Packages:
    packages = Packages()
    monkeypatch.setattr(module, "CompiledPackages", packages)
    monkeypatch.setattr(module, "LOOK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(background, "_is_worker", False)
    return packages


def network(packages: Packages, mode: Any = "auto") -> CompiledModule:
    torch.manual_seed(0)
    packages.network = nn.Linear(3, 2).eval()
    return CompiledModule(packages.network, INPUTS, part="test", device=CPU, dtype=torch.float32, mode=mode)


def runs_compiled(network: CompiledModule, rows: torch.Tensor = ROWS) -> bool:
    with torch.inference_mode():
        found, eager = network(rows), network.module(rows)
    torch.testing.assert_close(found, eager, rtol=1e-3, atol=0)
    return not torch.equal(found, eager)


def test_what_is_there_is_taken_after_a_first_eager_batch(packages: Packages) -> None:
    packages.there = True
    compiled = network(packages)
    assert not runs_compiled(compiled)
    assert compiled.way == "compiled"
    assert runs_compiled(compiled)
    assert runs_compiled(compiled, ROWS[:2])
    assert packages.calls == ["load"]


@pytest.mark.parametrize(
    "rows", [ROWS[:1], torch.zeros(9, 3), torch.zeros(4, 4), ROWS.double(), ROWS.t().contiguous().t()]
)
def test_other_tensors_never_reach_a_package(packages: Packages, rows: torch.Tensor) -> None:
    packages.there = True
    compiled = network(packages)
    runs_compiled(compiled)
    assert compiled.way == "compiled"
    compiled.module = nn.Identity()  # type: ignore[assignment]
    assert compiled(rows) is rows


def test_a_process_that_only_embeds_a_picture_makes_nothing(packages: Packages) -> None:
    compiled = network(packages)
    for _ in range(3):
        assert not runs_compiled(compiled)
    assert set(packages.calls) == {"load"}
    packages.there = True  # somebody made it
    assert not runs_compiled(compiled)
    assert runs_compiled(compiled)


def test_where_there_are_no_packages_no_weights_are_read(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    packages.empty = True
    monkeypatch.setattr(module, "key_of", lambda *_, **__: pytest.fail("read"))
    assert not runs_compiled(network(packages))


def test_a_worker_goes_on_eagerly_until_it_is_made(
    packages: Packages, set_environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    packages.empty = True
    monkeypatch.setattr(background, "_is_worker", True)
    assert not runs_compiled(network(packages))
    assert packages.calls == []  # the settings of tests forbid it
    set_environment(SHOPVISION_COMPILE_IN_BACKGROUND="true")
    compiled = network(packages)
    for _ in range(2):
        assert not runs_compiled(compiled)
    assert packages.calls == ["load", "request"] * 2
    packages.there = True
    assert not runs_compiled(compiled)
    assert runs_compiled(compiled)


def test_looking_is_rare(packages: Packages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_SECONDS", 1000.0)
    compiled = network(packages)
    for _ in range(3):
        runs_compiled(compiled)
    assert packages.calls == ["load"]


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_a_package_with_other_results_is_thrown_away(packages: Packages, mode: str) -> None:
    packages.there, packages.error = True, 0.01
    compiled = network(packages, mode)
    for _ in range(2):
        assert not runs_compiled(compiled)
    assert compiled.way == "eager"
    assert packages.calls == ["load", "refuse"]
    assert packages.reason == "its results differ from the network's: a row by 0.01 of its length"


def test_a_package_that_fails_gives_way_to_the_network(packages: Packages) -> None:
    packages.there = True
    compiled = network(packages)
    runs_compiled(compiled)
    packages.error = BrokenLibraryError("illegal instruction")
    for _ in range(2):
        assert not runs_compiled(compiled)
    assert packages.calls == ["load", "refuse"]


def test_want_of_memory_is_left_to_smaller_batches(packages: Packages) -> None:
    packages.there = True
    compiled = network(packages)
    runs_compiled(compiled)
    packages.error = BrokenLibraryError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        compiled(ROWS)
    assert compiled.way == "compiled"


def test_always_waits_until_it_is_made(packages: Packages) -> None:
    compiled = network(packages, "always")
    assert not runs_compiled(compiled)
    assert runs_compiled(compiled)
    assert packages.calls == ["load", "make", "load"]


def test_what_never_runs_compiled_can_be_made_all_the_same(packages: Packages) -> None:
    compiled = network(packages, "never")
    assert compiled.make() is None
    for _ in range(2):
        assert not runs_compiled(compiled)


def test_what_cannot_be_made_is_not_asked_for_again(packages: Packages) -> None:
    packages.reason = "no C++ compiler"
    compiled = network(packages, "always")
    for _ in range(3):
        assert not runs_compiled(compiled)
    assert packages.calls == ["load"]


@pytest.mark.parametrize(("mode", "fast_paths"), [("never", "true"), ("always", "false"), ("auto", "false")])
def test_switched_off_nothing_is_taken(
    packages: Packages, set_environment: Callable[..., None], mode: str, fast_paths: str
) -> None:
    set_environment(SHOPVISION_FAST_PATHS=fast_paths)
    packages.there = True
    compiled = network(packages, mode)
    for _ in range(2):
        assert not runs_compiled(compiled)
    assert packages.calls == []
