"""Files of plain records, written row by row (JSONL, CSV, Parquet). A file is there when it is whole, or not at all."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from shopvision.errors import UserError
from shopvision.reports.spreadsheet_text import neutralised

Kind = Literal["string", "int32", "float32", "bool", "numbers"]
"""``numbers`` is a list of them; in a CSV they stand in one cell, between blanks."""
WriteRows = Callable[[Sequence[Sequence[Any]]], None]

PARQUET_ROWS = 50_000  # in memory until a row group is full


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its place at the end of the block, unless an error ends it.

    Raises:
        UserError: the folder is missing or may not be written, or the disk is full.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part")
        os.close(handle)
        try:
            yield Path(name)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. Give another --output.") from None


@contextmanager
def record_writer(path: Path, columns: Mapping[str, Kind]) -> Iterator[WriteRows]:
    """``write(rows)`` appends rows, whose values are in the order of ``columns``; None is an empty value.

    Raises:
        UserError: the name ends otherwise than in .jsonl, .csv or .parquet, or the file cannot be written.
    """
    open_format = _FORMATS.get(path.suffix)
    if open_format is None:
        raise UserError(f"{path}: unknown format. Name it .jsonl, .csv or .parquet.")
    with replacing(path) as part, open_format(part, columns) as write:
        yield write


@contextmanager
def _jsonl(part: Path, columns: Mapping[str, Kind]) -> Iterator[WriteRows]:
    with part.open("w", encoding="utf-8") as file:

        def write(rows: Sequence[Sequence[Any]]) -> None:
            file.writelines(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)

        yield write


@contextmanager
def _csv(part: Path, columns: Mapping[str, Kind]) -> Iterator[WriteRows]:
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        kinds = list(columns.values())

        def write(rows: Sequence[Sequence[Any]]) -> None:
            writer.writerows([_cell(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in rows)

        yield write


def _cell(value: Any, kind: Kind) -> Any:
    if kind == "numbers" and value is not None:
        value = " ".join(map(str, value))
    return neutralised(value) if kind in {"string", "numbers"} and value else value


@contextmanager
def _parquet(part: Path, columns: Mapping[str, Kind]) -> Iterator[WriteRows]:
    import pyarrow as pa
    from pyarrow import parquet

    types: dict[Kind, pa.DataType] = {
        "string": pa.string(),
        "int32": pa.int32(),
        "float32": pa.float32(),
        "bool": pa.bool_(),
        "numbers": pa.list_(pa.float64()),
    }
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    kept: list[Sequence[Any]] = []
    with ExitStack() as stack:
        sink: IO[bytes] = stack.enter_context(part.open("wb"))
        writer = stack.enter_context(parquet.ParquetWriter(sink, schema))

        def flush() -> None:
            if kept:
                values = zip(zip(*kept, strict=True), schema.types, strict=True)
                arrays = [pa.array(column, type=of_type) for column, of_type in values]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
                kept.clear()

        def write(rows: Sequence[Sequence[Any]]) -> None:
            kept.extend(rows)
            if len(kept) >= PARQUET_ROWS:
                flush()

        yield write
        flush()


_FORMATS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
