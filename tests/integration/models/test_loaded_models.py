"""Models are loaded once per process and kept within a budget of memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from shopvision import models
from shopvision.errors import JobError, UserError
from shopvision.models.card import Architecture
from shopvision.models.kinds import ModelKind
from shopvision.models.version_folder import read_card, write_version

pytestmark = pytest.mark.usefixtures("database")
SIZE = 1000


class Blob:
    """Stands for a model of ``SIZE`` bytes."""

    def __init__(self, name: str, device: str | None, precision: str) -> None:
        self.name, self.device, self.precision = name, device, precision


class BlobKind(ModelKind):
    name = "blob"
    roles = ("blob",)

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.wait = threading.Event()
        self.wait.set()
        self.broken = False

    def validate(self, folder: Path) -> None:
        """Not counted as loading."""

    def load(self, folder: Path, *, device: str | None = None, precision: str = "auto") -> Any:
        name = read_card(folder, "blob").name
        self.loaded.append(name)
        assert self.wait.wait(20)
        if self.broken:
            raise JobError(f"{name} is broken.")
        return Blob(name, device, precision)


@pytest.fixture
def kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]) -> BlobKind:
    module = ModuleType("blob_kinds")
    module.KINDS = (BlobKind(),)
    monkeypatch.setitem(sys.modules, "blob_kinds", module)
    set_environment(
        SHOPVISION_MODEL_KIND_MODULES="blob_kinds",
        SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri(),
        SHOPVISION_LOADED_MODELS_BYTES=str(2 * SIZE),
    )
    for name in "abc":
        write_version(
            tmp_path / name, [lambda place: (place / "data").write_bytes(bytes(SIZE))],
            name=name, tag="1", kind="blob", source="test", architecture=Architecture(name="blob"),
        )  # fmt: skip
        models.import_model(f"local-dir:{tmp_path / name}")
    (found,) = module.KINDS
    return found


def test_a_model_is_loaded_once_for_each_device_and_precision(kind: BlobKind) -> None:
    first = models.load("a:1")
    assert models.load("a:1") is first
    assert (first.device, first.precision) == (None, "auto")
    on_cpu = models.load("a:1", device="cpu", precision="float32")
    assert (on_cpu.device, on_cpu.precision) == ("cpu", "float32")
    assert kind.loaded == ["a", "a"]


def test_however_many_ask_at_once_it_is_loaded_once(kind: BlobKind) -> None:
    kind.wait.clear()
    start = threading.Barrier(8)

    def ask(_: int) -> Any:
        start.wait()
        return models.load("a:1")

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, number) for number in range(8)]
        kind.wait.set()
        assert len({id(future.result()) for future in asked}) == 1
    assert kind.loaded == ["a"]


def test_what_was_not_used_for_longest_goes_first(kind: BlobKind) -> None:
    a, b = models.load("a:1"), models.load("b:1")
    assert models.load("a:1") is a
    models.load("c:1")
    assert models.load("a:1") is a
    assert models.load("b:1") is not b
    assert kind.loaded == ["a", "b", "c", "b"]


def test_one_model_is_kept_whatever_its_size(kind: BlobKind, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_LOADED_MODELS_BYTES="1")
    assert models.load("a:1") is models.load("a:1")
    models.load("b:1")
    assert kind.loaded == ["a", "b"]
    models.load("a:1")
    assert kind.loaded == ["a", "b", "a"]


def test_who_fails_is_tried_again(kind: BlobKind) -> None:
    kind.broken = True
    for _ in range(2):
        with pytest.raises(JobError, match="a is broken"):
            models.load("a:1")
    kind.broken = False
    assert models.load("a:1").name == "a"
    assert kind.loaded == ["a"] * 3
    with pytest.raises(UserError, match="There is no model version d:1"):
        models.load("d:1")


def test_all_who_wait_for_one_that_fails_are_told_and_nothing_of_it_is_kept(kind: BlobKind) -> None:
    kept = models.load("b:1")
    kind.broken = True
    kind.wait.clear()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(models.load, "a:1") for _ in range(4)]
        kind.wait.set()
        for future in asked:
            with pytest.raises(JobError, match="a is broken"):
                future.result()
    kind.broken = False
    models.load("c:1")
    assert models.load("b:1") is kept  # the budget holds two: the one that failed takes no room


def test_a_model_in_use_outlives_its_place_in_memory(kind: BlobKind, set_environment: Callable[..., None]) -> None:
    """Two threads with two models and room for one: each keeps what it holds."""
    set_environment(SHOPVISION_LOADED_MODELS_BYTES=str(SIZE))
    held = {name: models.load(f"{name}:1") for name in "ab"}
    start = threading.Barrier(2)

    def use(name: str) -> set[str]:
        start.wait()
        return {models.load(f"{name}:1").name for _ in range(20)} | {held[name].name}

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(use, "ab")) == [{"a"}, {"b"}]
