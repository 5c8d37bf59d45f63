"""Checking in another process: the same batches as in this one, and an end in every case."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet

from shopvision.catalogue import batch_checking
from shopvision.catalogue.batch_checking import BATCH_ROWS, Batch, Checker
from shopvision.catalogue.column_mapping import Mapping
from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.row_conversion import ItemRow, item_row
from shopvision.catalogue.source_files import open_source
from shopvision.errors import TransientError, UserError

ROWS = 2 * BATCH_ROWS + 1
CHECKER = Checker(partial(item_row, root=PictureRoot("s3://shop/")), "item_id")


@pytest.fixture(params=["here", "apart"])
def each_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking in this process, then in another."""
    monkeypatch.setattr(batch_checking, "LARGE_FILE_BYTES", 0 if request.param == "apart" else 2**40)


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_checking, "LARGE_FILE_BYTES", 0)


def record(number: int) -> dict[str, Any]:
    return {"item_id": str(number), "images": ["a.jpg", "s3://b/c.jpg"][: 1 + number % 2], "updated_at": number}


def write(path: Path, rows: int = ROWS) -> Path:
    """Rows of which every 1,000th is refused, and one can be named by nobody."""
    lines = [json.dumps(record(number) | ({"price": -1} if number % 1000 == 0 else {})) for number in range(rows)]
    lines[7] = '{"item_id": '
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path, checker: Checker = CHECKER) -> list[Batch]:
    with open_source(str(path)) as source, checker.batches(source) as batches:
        return list(batches)


def helpers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "batch_checking" in " ".join(child.cmdline())]


def test_every_row_comes_once_in_order(tmp_path: Path, each_process: None) -> None:
    batches = read(write(tmp_path / "items.jsonl"))
    assert [len(batch.good) + len(batch.refused) for batch in batches] == [BATCH_ROWS, BATCH_ROWS, 1]
    refused = [refusal for batch in batches for refusal in batch.refused]
    assert [(refusal.line, refusal.key) for refusal in refused] == [
        (1, "0"), (8, None), *((1000 * thousand + 1, str(1000 * thousand)) for thousand in range(1, 11))
    ]  # fmt: skip
    assert refused[2].message == "price: negative; give a number from 0 on"
    good = [pair for batch in batches for pair in batch.good]
    assert [line for line, _ in good] == sorted(set(range(1, ROWS + 1)) - {refusal.line for refusal in refused})
    for line, row in good[:5]:
        assert isinstance(row, ItemRow)
        assert row == item_row(record(line - 1), PictureRoot("s3://shop/"))
    fractions = [batch.fraction_read for batch in batches]
    assert 0 < fractions[0] < fractions[1] <= fractions[2] == 1.0


def test_every_format_and_a_mapping_pass_to_the_other_process(tmp_path: Path, apart: None) -> None:
    renamed = [{"sku": "é1", "images": "a.jpg", "note": "x"}, {"sku": "2", "images": "../a.jpg", "note": "y"}]
    (tmp_path / "a.csv").write_text("sku,images,note\né1,a.jpg,x\n2,../a.jpg,y\n", encoding="utf-8")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in renamed)
    parquet.write_table(pa.Table.from_pylist(renamed), tmp_path / "a.parquet")
    checker = Checker(CHECKER.to_row, "item_id", Mapping({"item_id": "sku"}, {"currency": "EUR"}, {}, ""))
    for name in ("a.csv", "a.jsonl.gz", "a.parquet"):
        (batch,) = read(tmp_path / name, checker)
        ((_, row),) = batch.good
        assert (row[0], row[-1], row.extra) == ("é1", (("s3://shop/a.jpg", None),), '{"note":"x"}')
        assert [refusal.key for refusal in batch.refused] == ["2"]


def test_a_refused_row_without_an_end_has_no_key(tmp_path: Path, each_process: None) -> None:
    """The file may have been cut there, and the row may be another one's beginning."""
    path = tmp_path / "a.jsonl"
    lines = "\n".join(json.dumps(record(number) | {"price": -1}) for number in range(2))
    for end, keys in (("\n", ["0", "1"]), ("", ["0", None])):
        path.write_text(lines + end, encoding="utf-8")
        (batch,) = read(path)
        assert [refusal.key for refusal in batch.refused] == keys


def test_a_cut_row_at_the_end_of_a_batch(tmp_path: Path, each_process: None) -> None:
    path = write(tmp_path / "a.jsonl", BATCH_ROWS)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record(BATCH_ROWS) | {"price": -1}))
    assert [batch.refused[-1].key for batch in read(path)] == ["4000", None]


def test_an_empty_file_is_one_empty_batch(tmp_path: Path, each_process: None) -> None:
    (tmp_path / "a.jsonl").touch()
    (batch,) = read(tmp_path / "a.jsonl")
    assert (batch.good, batch.refused) == ([], [])


def test_damage_is_told_in_the_same_words(tmp_path: Path, each_process: None) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"item_id": "1", "images": ["a"]}\n')[:-6])
    with pytest.raises(UserError, match=r"a.jsonl.gz: cannot be read beyond line 1 .* with a whole file"):
        read(path)
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a Parquet file"):
        read(tmp_path / "a.parquet")
    assert helpers() == []


def test_a_fault_of_ours_keeps_its_traceback(tmp_path: Path, apart: None) -> None:
    with pytest.raises(TypeError) as raised:
        read(write(tmp_path / "a.jsonl", 10), Checker(partial(item_row, unknown=1), "item_id"))
    assert "batch_checking.py" in raised.value.__notes__[0]


def noisy(record: dict[str, Any]) -> ItemRow:
    os.write(1, b"noise")
    return item_row(record, PictureRoot("s3://shop/"))


def test_what_a_library_prints_does_not_get_among_the_rows(tmp_path: Path, apart: None) -> None:
    (batch,) = read(write(tmp_path / "a.jsonl", 10), Checker(noisy, "item_id"))
    assert len(batch.good) == 8


def test_small_files_and_other_records_stay_here(tmp_path: Path) -> None:
    with open_source(str(write(tmp_path / "a.jsonl", 10))) as source, CHECKER.batches(source) as batches:
        next(batches)
        assert helpers() == []


def test_a_killed_process_is_one_clear_line(tmp_path: Path, apart: None) -> None:
    with open_source(str(write(tmp_path / "a.jsonl"))) as source, CHECKER.batches(source) as batches:
        next(batches)
        (helper,) = helpers()
        helper.kill()
        with pytest.raises(TransientError, match=r"a.jsonl: the process .* \(SIGKILL\).* run the import again"):
            list(batches)
    assert not helper.is_running()


def test_a_process_that_cannot_start_is_one_clear_line(tmp_path: Path, apart: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TransientError, match=r"\(exit status 1\)"):
        read(write(tmp_path / "a.jsonl", 10))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_leaving_early_ends_the_process_at_once(tmp_path: Path, apart: None, error: type[BaseException]) -> None:
    path = write(tmp_path / "a.jsonl")

    def interrupted() -> None:
        with open_source(str(path)) as source, CHECKER.batches(source) as batches:
            next(batches)
            started.extend(helpers())
            assert os.getpgid(started[0].pid) != os.getpgid(0)  # a Ctrl-C at the terminal goes to a whole group
            raise error

    started: list[psutil.Process] = []
    with pytest.raises(error):
        interrupted()
    assert len(started) == 1
    assert not started[0].is_running()  # waited for, too: a zombie counts as running


SCRIPT = """
import sys, time, psutil
from functools import partial
from shopvision.catalogue import batch_checking
from shopvision.catalogue.source_files import open_source
from shopvision.catalogue.row_conversion import item_row
batch_checking.LARGE_FILE_BYTES = 0
with open_source(sys.argv[1]) as source, batch_checking.Checker(item_row, "item_id").batches(source) as batches:
    next(batches)
    print(psutil.Process().children()[0].pid, flush=True)
    time.sleep(60)
"""


def test_the_process_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    """From a script without a main guard, too."""
    command = [sys.executable, "-c", SCRIPT, str(write(tmp_path / "a.jsonl"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        helper = psutil.Process(int(parent.stdout.readline()))
        assert helper.is_running()
        parent.send_signal(signal.SIGKILL)
    _soon(lambda: not helper.is_running() or helper.status() == psutil.STATUS_ZOMBIE)


def _soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
