"""The page of benchmarks keeps what was measured on each kind of machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine, page
from benchmarks.goals import at_least, at_most

EPYC: dict[str, Any] = {
    "processor": "AMD EPYC", "cores": 2, "features": ["avx2"], "instructions": None, "accelerator": None
}  # fmt: skip
XEON: dict[str, Any] = {**EPYC, "processor": "Intel Xeon", "features": ["avx2", "amx_bf16"]}


def block(kind: dict[str, Any], rate: float, date: str, **more: Any) -> page.Block:
    return {
        "kind": kind, "software": {"python": "3.11", "torch": "2.13"}, "commit": "abc", "command": "python -m it",
        "date": date, "seconds": 12, "load_before": 0.1,
        "tables": [{"title": "Rates", "note": "Per second.", "rows": [{"way": "ours", "rate": rate}]}], **more,
    }  # fmt: skip


def test_a_new_result_takes_the_place_of_that_of_its_own_kind_of_machine(tmp_path: Path) -> None:
    page.keep(tmp_path, "index", block(EPYC, 11.0, "2026-01-01", remark="A slow day."))
    page.keep(tmp_path, "index", block(XEON, 22.0, "2026-01-02"))
    page.keep(tmp_path, "index", block(dict(EPYC), 33.0, "2026-01-03"))
    first, second = page.blocks(tmp_path, "index")
    assert (first["kind"], first["tables"][0]["rows"][0]["rate"], first.get("remark")) == (EPYC, 33.0, None)
    assert (second["kind"], second["tables"][0]["rows"][0]["rate"]) == (XEON, 22.0)


@pytest.mark.parametrize("other", [{"features": ["avx2", "avx512f"]}, {"cores": 4}, {"instructions": "AVX2"},
                                   {"accelerator": "NVIDIA H200"}])  # fmt: skip
def test_what_makes_another_kind_of_machine(tmp_path: Path, other: dict[str, Any]) -> None:
    page.keep(tmp_path, "index", block(EPYC, 1.0, "2026-01-01"))
    page.keep(tmp_path, "index", block(EPYC | other, 2.0, "2026-01-02"))
    assert len(page.blocks(tmp_path, "index")) == 2
    assert page.title(EPYC) != page.title(EPYC | other)


def test_the_page_has_a_part_for_each_kind_of_machine_the_last_measured_first(tmp_path: Path) -> None:
    page.keep(tmp_path, "index", block(EPYC, 11.0, "2026-01-01"))
    page.keep(tmp_path, "fashion", block(EPYC, 12.0, "2026-01-01"))
    page.keep(tmp_path, "index", block(XEON, 22.0, "2026-01-02"))
    page.keep(tmp_path, "left_out", block(XEON, 99.0, "2026-01-02"))
    lines = page.render(tmp_path, ("fashion", "index")).splitlines()
    parts = [line for line in lines if line.startswith("## ")]
    assert parts == ["## Intel Xeon, 2 cores, avx2/amx_bf16", "## AMD EPYC, 2 cores, avx2"]
    rates = [line for line in lines if line.startswith("| ours")]
    assert rates == ["| ours | 22 |", "| ours | 12 |", "| ours | 11 |"]
    assert lines.count("python 3.11, torch 2.13.") == 2
    assert lines.count("`python -m it` at abc: 2026-01-01, 12 s, load average before it 0.1.") == 2


def test_a_remark_goes_below_what_was_measured_on_this_kind_of_machine(tmp_path: Path) -> None:
    page.keep(tmp_path, "index", block(EPYC, 11.0, "2026-01-01"))
    assert page.remark(tmp_path, "index", EPYC, "Why it misses.")
    assert not page.remark(tmp_path, "index", XEON, "Nothing.")
    assert page.render(tmp_path, ("index",)).rstrip().endswith("Why it misses.")


def test_every_result_that_is_kept_can_be_shown() -> None:
    from benchmarks.__main__ import NAMES

    folder = machine.REPOSITORY / "docs" / "benchmarks"
    assert page.render(folder, NAMES) == (folder / "results.md").read_text(encoding="utf-8")
    assert {path.stem for path in folder.glob("*.json")} <= set(NAMES)


def test_instructions_are_named_to_both_libraries() -> None:
    assert machine.only("AVX2") == {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    assert machine.only("AVX512_CORE_BF16")["ATEN_CPU_CAPABILITY"] == "avx512"
    assert machine.only("SSE41")["ATEN_CPU_CAPABILITY"] == "default"


def test_bfloat16_is_used_where_processor_and_instructions_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(machine, "_cpu_information", lambda *_: "fpu avx2 avx512f avx512_bf16")
    assert machine.features() == ["avx2", "avx512f", "avx512_bf16"]
    assert machine.has_bfloat16()
    for instructions, expected in (("AVX2", False), ("AVX512_CORE_VNNI", False), ("AVX512_CORE_BF16", True)):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", instructions)
        assert machine.has_bfloat16() is expected
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(machine, "_cpu_information", lambda *_: "fpu avx2")
    assert not machine.has_bfloat16()


def test_goals() -> None:
    assert at_least(0.75, 0.7499) == {"goal": "at least 0.75", "met": "no"}
    assert at_least(6, 6.0)["met"] == at_most(5, 4.99)["met"] == "yes"
    assert at_most(5.0, 5.01) == {"goal": "at most 5", "met": "no"}
