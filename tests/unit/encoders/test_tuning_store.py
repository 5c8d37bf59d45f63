"""Tunings are kept per model version and machine, and nothing foreign or damaged is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shopvision.encoders.tuning import Machine, Tuning, TuningChoice, TuningStore, this_machine, tuning_of
from shopvision.errors import UserError
from shopvision.models.part import ModelPart
from shopvision.settings import get_settings

PART = ModelPart("tiny:1", "ab" * 32, "images")
MACHINE = Machine(processor="Abacus", features=("beads",), cores="2", torch="2.13.0", threads=1)


def tuning(part: ModelPart = PART, machine: Machine = MACHINE, **chosen: object) -> Tuning:
    return Tuning(
        spec=part.spec, digest=part.digest, part=part.name, machine=machine, unit="pictures",
        chosen=TuningChoice.model_validate(chosen), seconds=1.5, measured_at=datetime(2026, 1, 2, tzinfo=UTC),
    )  # fmt: skip


def test_what_was_saved_is_found_for_this_network_on_this_machine_only(tmp_path: Path) -> None:
    store = TuningStore(tmp_path)
    assert store.load(PART, MACHINE) is None
    assert store.all() == []
    store.save(tuning(batch_size=16))
    assert store.load(PART, MACHINE) == tuning(batch_size=16)
    for other in ({"features": ()}, {"threads": 2}, {"torch": "2.14.0"}, {"cores": "4"}, {"processor": "Difference"}):
        assert store.load(PART, MACHINE.model_copy(update=other)) is None
    assert store.load(ModelPart("tiny:1", "cd" * 32, "images"), MACHINE) is None
    assert store.load(ModelPart("tiny:1", PART.digest, "pairs"), MACHINE) is None
    store.save(tuning(batch_size=8))
    assert [found.chosen.batch_size for found in store.all()] == [8]
    assert [path.suffix for path in store.folder.iterdir()] == [".json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"format_version": 2}', b"\xff\xfe"])
def test_a_damaged_file_counts_as_none_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    store = TuningStore(tmp_path)
    store.save(tuning(batch_size=16))
    (file,) = store.folder.iterdir()
    file.write_bytes(content)
    assert store.load(PART, MACHINE) is None
    assert store.all() == []
    store.save(tuning(batch_size=8))
    assert store.load(PART, MACHINE) == tuning(batch_size=8)


def test_a_file_of_another_network_in_its_place_is_not_used(tmp_path: Path) -> None:
    store = TuningStore(tmp_path)
    store.save(tuning(batch_size=16))
    (file,) = store.folder.iterdir()
    file.write_text(tuning(ModelPart("other:1", "cd" * 32, "images"), batch_size=64).model_dump_json())
    assert store.load(PART, MACHINE) is None


def test_one_process_measures(tmp_path: Path) -> None:
    store = TuningStore(tmp_path)
    with store.measuring() as first, store.measuring() as second:
        assert (first, second) == (True, False)
    with store.measuring() as again:
        assert again


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "tuning").write_text("a file where the folder should be")
    store = TuningStore(tmp_path)
    with pytest.raises(UserError, match=r"tuning cannot be written .*SHOPVISION_HOME"):
        store.save(tuning())
    with pytest.raises(UserError, match="cannot be written"), store.measuring():
        pass


def test_settings_come_before_what_was_measured(tmp_path: Path, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_HOME=str(tmp_path))
    assert tuning_of(PART, threads=3) == TuningChoice()
    here = this_machine(3)
    TuningStore(tmp_path).save(tuning(machine=here, batch_size=16, way="compiled"))
    assert tuning_of(PART, threads=3) == TuningChoice(batch_size=16, way="compiled")
    assert tuning_of(PART, threads=4) == TuningChoice()
    assert tuning_of(None, threads=3) == TuningChoice()
    set_environment(
        SHOPVISION_HOME=str(tmp_path),
        SHOPVISION_TUNING='{"tiny:1": {"batch_size": 4}, "tiny": {"batch_size": 5, "decoding_threads": 2}}',
    )
    assert tuning_of(PART, threads=3) == TuningChoice(batch_size=4, way="compiled", decoding_threads=2)
    assert tuning_of(ModelPart("tiny:2", "00", "images"), threads=3).batch_size == 5
    set_environment(SHOPVISION_HOME=str(tmp_path), SHOPVISION_FAST_PATHS="false", SHOPVISION_TUNING="{}")
    assert tuning_of(PART, threads=3) == TuningChoice()


@pytest.mark.parametrize(
    "value", ['{"*": {"batch": 4}}', '{"*": {"batch_size": 0}}', '{"*": {"way": "fast"}}', "[]", "x"]
)
def test_a_wrong_override_is_one_line(value: str, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_TUNING=value)
    with pytest.raises(UserError, match="SHOPVISION_TUNING"):
        get_settings()


def test_the_environment_that_limits_the_processor_is_part_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = this_machine(2)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    limited = this_machine(2)
    assert plain != limited
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in limited.features
    assert limited.threads == 2
    if sys.platform == "linux":
        assert limited.cores.startswith(str(len(os.sched_getaffinity(0))))
