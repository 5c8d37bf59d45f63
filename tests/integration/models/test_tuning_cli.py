"""``shopvision models tuning``: measured in processes like a worker's, kept, shown, and used by the next worker."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from shopvision import models
from shopvision.encoders.tuning import Setting, Tuning, TuningChoice, TuningStore, layouts, this_machine
from shopvision.encoders.tuning import __main__ as child
from shopvision.encoders.tuning.record import Rate
from shopvision.errors import JobError, UserError
from shopvision.index.precisions import agreements
from shopvision.models.loaded import LoadedModels
from shopvision.models.part import part_of
from tests.unit.fashion.tiny_members import save_tiny_encoder
from worker import warm_up
from worker.cli.models import app
from worker.stack import layout, processes
from worker.stack.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("database")


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["tuning", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def encoder(tmp_path: Path, set_environment: Callable[..., None]) -> models.ModelVersionRef:
    set_environment(SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri(), SHOPVISION_TUNING_SECONDS="0.5")
    return models.import_model(f"local-dir:{save_tiny_encoder(tmp_path / 'eye')}", name="eye", tag="1")


@pytest.mark.slow  # it starts a process that loads torch
def test_measuring_in_processes_and_what_is_shown_of_it(
    encoder: models.ModelVersionRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One real measurement, with one process of one thread; what it finds is this machine's."""
    assert "Nothing was measured here" in call("eye:1")
    assert json.loads(call("--json")) == []
    monkeypatch.setattr(processes, "available_cores", lambda: 1)
    [found] = json.loads(call("eye:1", "--again", "--json"))
    part = part_of(encoder.card, "images")
    assert (found["spec"], found["digest"], found["part"]) == ("eye:1", part.digest, "images")
    assert found["machine"]["threads"] == 1
    assert any("GLIBC_TUNABLES" in feature for feature in found["machine"]["features"])
    assert "eye:1" in call()
    assert "scatter" in call("eye:1")
    assert json.loads(call("--json")) == [found]


def test_one_of_these_processes(
    encoder: models.ModelVersionRef, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``run_processes`` talks to it."""
    assert "Nothing was measured here" in call("eye:1")
    monkeypatch.setattr(child.sys, "stdin", io.StringIO("go\n"))
    monkeypatch.setattr(child.sys, "__stdout__", child.sys.stdout)
    assert child.main("eye:1", "2", "0.2") == 0
    ready, answer = capsys.readouterr().out.strip().split("\n")[-2:]
    assert ready == layouts.READY
    [found] = map(Tuning.model_validate, json.loads(answer))
    assert (found.spec, found.digest, found.part) == ("eye:1", part_of(encoder.card, "images").digest, "images")
    assert all(rate.setting.replicas == 2 for rate in found.rates)


def test_what_cannot_be_asked_for_is_named(
    encoder: models.ModelVersionRef,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    set_environment: Callable[..., None],
) -> None:
    with pytest.raises(UserError, match=r"no model version eye:2"):
        call("eye:2")
    with pytest.raises(UserError, match=r"name it as NAME:TAG"):
        call("--again")
    monkeypatch.setattr("shopvision.models.load", lambda spec: object())
    assert child.main("eye:1", "1", "0.2") == 0
    assert "eye:1 is of the kind image_encoder, which cannot be tuned" in json.loads(capsys.readouterr().out)["error"]
    set_environment(SHOPVISION_FAST_PATHS="false")
    with pytest.raises(UserError, match="SHOPVISION_FAST_PATHS is false"):
        call("eye:1", "--again")


def measured(spec: str, digest: str, threads: int, speed: float, **more: Any) -> Tuning:
    machine = this_machine(threads, environment={"GLIBC_TUNABLES": processes.MALLOC_TUNABLES})
    rate = Rate(setting=Setting(batch_size=32, threads=threads, precision="bfloat16"), per_second=speed, scatter=0.0)
    return Tuning(
        spec=spec, digest=digest, part="images", machine=machine, unit="pictures", chosen=TuningChoice(batch_size=32),
        rates=(rate,), seconds=1.0, measured_at="2026-01-02T03:04:05Z", **more,
    )  # fmt: skip


def test_a_worker_takes_the_layout_of_the_models_that_serve(
    encoder: models.ModelVersionRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Any
) -> None:
    digest = part_of(encoder.card, "images").digest
    speeds = {(1, 2): 100.0, (2, 1): 300.0}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes, "visible_gpus", list)
    for module in (processes, layout):
        monkeypatch.setattr(module, "available_cores", lambda: 2)

    def run(spec: str, wanted: tuple[int, int], seconds: float, variables: dict[str, str]) -> list[list[Tuning]]:
        assert (spec, seconds) == ("eye:1", 4 * 0.5)  # as somebody waits for it
        assert variables == {"CUDA_VISIBLE_DEVICES": "", "GLIBC_TUNABLES": processes.MALLOC_TUNABLES}
        return [[measured(spec, digest, wanted[0], speeds[wanted], agreement=0.9991)]] * wanted[1]

    monkeypatch.setattr(layouts, "run_processes", run)
    call("eye:1", "--again")
    assert agreements(encoder.model_version_id) == pytest.approx({"bfloat16": 0.9991})
    assert layout.measured_layout() is None  # it serves nothing
    models.activate("catalogue_encoder", "eye:1", force=True)
    assert layout.measured_layout() == (2, 1)
    directory = RunDirectory(tmp_path / "run" / "gpu")
    plan = processes.gpu_worker(directory, None, layout=layout.measured_layout())
    assert "--concurrency=1" in plan.arguments
    assert plan.variables["OMP_NUM_THREADS"] == "2"
    set_environment(SHOPVISION_WORKER_PROCESSES="3")
    assert "--concurrency=3" in processes.gpu_worker(directory, None, layout=(2, 1)).arguments
    monkeypatch.setattr(layout, "available_cores", lambda: 1)  # fewer than were measured
    assert layout.measured_layout() is None


def test_what_cannot_be_measured_is_one_line(
    encoder: models.ModelVersionRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TuningStore(tmp_path / "home").measuring(), pytest.raises(UserError, match="Another process measures"):
        call("eye:1", "--again")

    answers = iter(['{"error": "eye:1 is a blob, which cannot be tuned."}\n', "", "ready\n"])

    class Process:
        stdin = SimpleNamespace(write=lambda text: None, flush=lambda: None)

        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.stdout = SimpleNamespace(readline=lambda: next(answers))

        def communicate(self, timeout: float | None = None) -> tuple[str, None]:
            return "", None

        def kill(self) -> None: ...

    monkeypatch.setattr(layouts.subprocess, "Popen", Process)
    for error, match in ((UserError, "which cannot be tuned"), (JobError, "died"), (JobError, "died")):
        with pytest.raises(error, match=match):
            layouts.run_processes("eye:1", (1, 1), 1.0, {})
    (tmp_path / "home").mkdir(exist_ok=True)
    folder = tmp_path / "home" / "tuning"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("no folder")
    with pytest.raises(UserError, match="cannot be written"):
        call("eye:1", "--again")


def test_a_worker_measures_what_is_new_once_it_has_computed_for_a_while(
    encoder: models.ModelVersionRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shopvision.models.loaded._models", LoadedModels())  # without those of other tests
    monkeypatch.setattr(warm_up, "_computed", 0.0)
    monkeypatch.setattr(warm_up, "_ended", False)
    store = TuningStore(tmp_path / "home")
    loaded = models.load("eye:1")
    warm_up.after_chunk(warm_up.MEASURE_AFTER_SECONDS / 2)
    assert store.all() == []
    stop = tmp_path / "stop"
    stop.touch()
    monkeypatch.setenv("SHOPVISION_STOP_FILE", str(stop))
    warm_up.after_chunk(warm_up.MEASURE_AFTER_SECONDS)
    assert store.all() == []
    stop.unlink()
    warm_up.after_chunk(0.0)
    [found] = store.all()
    assert (found.spec, found.layout) == ("eye:1", None)
    assert loaded.batch_size == found.chosen.batch_size or loaded.batch_sizes[0]
    warm_up.after_chunk(0.0)
    assert store.all() == [found]
