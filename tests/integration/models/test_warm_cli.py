"""``shopvision models warm``: what it makes, says and refuses. The compiler has its tests elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from shopvision import models
from shopvision.encoders.compiled.inputs import Free, InputSpec
from shopvision.encoders.compiled.maker import CompiledPackages
from shopvision.encoders.compiled.module import CompiledModule
from shopvision.models.card import Architecture
from shopvision.models.kinds import ModelKind
from shopvision.models.version_folder import write_version
from tests.conftest import Run

pytestmark = pytest.mark.usefixtures("database")


class WarmableKind(ModelKind):
    """A model with two networks that may run compiled; ``plain`` has none."""

    name = "warmable"
    roles = ("warmable", "plain")

    def load(self, folder: Path, *, device: str | None = None, precision: str = "auto") -> Any:
        if "plain" in (folder / "data").read_text():
            return SimpleNamespace()
        torch.manual_seed(0)
        inputs = [InputSpec("float32", (Free("batch", 2, 8), 3))]
        parts = [(part, nn.Linear(3, 2).eval()) for part in ("eyes", "ears")]
        return SimpleNamespace(
            compiled_modules=[
                CompiledModule(network, inputs, part=part, device=torch.device("cpu"), dtype=torch.float32)
                for part, network in parts
            ]
        )


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]) -> Callable[[str], str]:
    """Brings in a model version of that name; no compiler: networks with ears cannot be compiled."""
    module = ModuleType("warmable_kinds")
    module.KINDS = (WarmableKind(),)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "warmable_kinds", module)
    set_environment(
        SHOPVISION_MODEL_KIND_MODULES="warmable_kinds", SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri()
    )
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)

    def make(self: CompiledPackages, key: Any, *_: object) -> str | None:
        if key.part == "ears":
            return "no compiler"
        self.place(key).parent.mkdir(parents=True, exist_ok=True)
        self.place(key).write_bytes(bytes(250_000))
        return None

    monkeypatch.setattr(CompiledPackages, "make", make)
    monkeypatch.setattr(CompiledPackages, "load", lambda *_: nn.Linear(3, 2))

    def bring_in(name: str) -> str:
        folder = tmp_path / name
        write_version(
            folder, [lambda new: (new / "data").write_text(name)], name=name, tag="1", kind="warmable",
            architecture=Architecture(library="shopvision", name="warmable"), source="made",
        )  # fmt: skip
        return models.import_model(f"local-dir:{folder}").spec

    return bring_in


def test_models_that_serve_are_warmed(made: Callable[[str], str], command_line: Run) -> None:
    models.activate("warmable", made("one"))
    models.activate("plain", made("plain"))
    made("idle")
    status, out, _ = command_line("models", "warm", "--json")
    assert status == 0
    eyes, ears = json.loads(out)
    assert (eyes["spec"], eyes["part"], eyes["compiled"], eyes["made"], eyes["megabytes"]) == (
        "one:1", "eyes", True, True, 0.2,
    )  # fmt: skip
    assert min(eyes["eager_per_second"], eyes["compiled_per_second"], ears["eager_per_second"]) > 0
    assert Path(eyes["path"]).is_file()
    assert (ears["compiled"], ears["reason"], ears["compiled_per_second"]) == (False, "no compiler", None)
    status, out, _ = command_line("models", "warm", "one:1", "idle:1")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["one:1", "one:1", "idle:1", "idle:1"]
    assert "was there" in out
    assert "stays eager: no compiler" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No model serves a role: name one"),
        (["one:1", "two:1"], "two:1"),
        (["plain:1"], "plain:1 is of the kind warmable, of which nothing is compiled: leave it out."),
    ],
)
def test_what_cannot_be_warmed(
    made: Callable[[str], str], command_line: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    made("one")
    made("plain")
    monkeypatch.setattr(CompiledPackages, "make", lambda *_: pytest.fail("begun"))
    status, out, told = command_line("models", "warm", *arguments)
    assert status != 0
    assert out == ""
    assert message in told
    assert len(told.strip().splitlines()) == 1


def test_a_home_that_is_full(made: Callable[[str], str], command_line: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made("one")

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CompiledPackages, "make", full)
    status, _, told = command_line("models", "warm", "one:1", "--json")
    assert status != 0
    assert "cannot be written to (No space left on device): free space" in told


def test_switched_off(made: Callable[[str], str], command_line: Run, set_environment: Callable[..., None]) -> None:
    made("one")
    set_environment(SHOPVISION_FAST_PATHS="false")
    status, _, told = command_line("models", "warm", "one:1")
    assert status != 0
    assert "SHOPVISION_FAST_PATHS is false" in told
