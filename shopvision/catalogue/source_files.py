"""Files as a stream of records: JSONL, CSV and Parquet, local or on S3, also gzipped.

Memory is bounded by the longest line. A file on S3 is downloaded first, so that a broken connection writes no half.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile, GzipFile
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from unicodedata import is_normalized

from pydantic_core import from_json

from shopvision.catalogue.record_texts import RecordError, may_be_too_long, normalised_or_error
from shopvision.catalogue.source_csv import csv_columns, csv_records
from shopvision.catalogue.source_lines import MAX_LINE_BYTES, SourceLines
from shopvision.catalogue.source_parquet import ParquetRecords
from shopvision.errors import UserError

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}

Numbered = tuple[int, dict[str, Any] | RecordError]
"""Line number (Parquet: row number), from 1 on, and the record with normalised texts, or what is wrong with it."""


@dataclass(frozen=True)
class Source:
    """An opened file, or records from elsewhere.

    Attributes:
        name: what the user calls it.
        records: its rows, in order.
        fraction_read: how much of it has been read (0 to 1).
        file: lets another process open the same.
        is_cut: whether the row that came last had no line end, so that the file may have been cut there.
    """

    name: str
    records: Iterator[Numbered]
    fraction_read: Callable[[], float]
    file: SourceFile | None = None
    is_cut: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class SourceFile:
    """A file on this machine.

    Attributes:
        name: what the user calls it.
        path: where it, or its copy, is.
        file_format: ``jsonl``, ``csv`` or ``parquet``.
        own_exports: see :func:`open_source`.
    """

    name: str
    path: Path
    file_format: str
    gzipped: bool
    own_exports: bool = False

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size

    @contextmanager
    def opened(self) -> Iterator[Source]:
        """Its records, see :func:`open_source`."""
        with self.path.open("rb") as raw:
            if self.file_format == "parquet":
                rows = ParquetRecords(self.name, raw)
                yield Source(self.name, iter(rows), lambda: rows.fraction_read, self)
                return
            size = max(self.size, 1)
            lines = _lines(raw, gzipped=self.gzipped)
            if self.file_format == "jsonl":
                read = _jsonl(self.name, lines)
            else:
                read = csv_records(self.name, lines, own_exports=self.own_exports)
            records = _whole(self.name, read)
            yield Source(self.name, records, lambda: raw.tell() / size, self, lambda: lines.is_cut)


def columns_of_csv(path: Path) -> tuple[list[str], str]:
    """The names of the columns of a CSV file, also ``.gz``, and what separates its cells.

    Raises:
        UserError: there is no such file, it is damaged, or it has no readable header.
    """
    with _local(str(path)) as local, local.open("rb") as raw:
        try:
            return csv_columns(str(path), _lines(raw, gzipped=path.suffix == ".gz"))
        except (EOFError, BadGzipFile, zlib.error, OSError) as error:
            raise UserError(f"{path}: cannot be read ({error}). Write it again.") from None


@contextmanager
def open_source(location: str, file_format: str | None = None, *, own_exports: bool = False) -> Iterator[Source]:
    """The file at ``location``, a local path or ``s3://bucket/key``.

    Args:
        location: the suffix tells the format (``.gz`` may follow it).
        file_format: ``jsonl``, ``csv`` or ``parquet``, where the suffix does not tell.
        own_exports: the file may be one that we have written: cells of a CSV lose the apostrophe that keeps
            spreadsheets from running them.

    Raises:
        UserError: the file is missing or of unknown format; while its records are read: it is damaged, or has no
            readable header.
    """
    told, gzipped = format_of(location)
    file_format = file_format or told
    if file_format not in set(FORMATS.values()):
        raise UserError(f"{location}: unknown format. Name it .jsonl, .csv or .parquet (also .gz), or give --format.")
    with _local(location) as path, SourceFile(location, path, file_format, gzipped, own_exports).opened() as source:
        yield source


def format_of(location: str) -> tuple[str | None, bool]:
    """What the suffix tells: the format, None where it tells none, and whether the file is compressed."""
    suffixes = Path(location).suffixes
    gzipped = suffixes[-1:] == [".gz"]
    return FORMATS.get("".join((suffixes[:-1] if gzipped else suffixes)[-1:])), gzipped


def _lines(raw: BufferedReader, *, gzipped: bool) -> SourceLines:
    return SourceLines(cast("BufferedReader", GzipFile(fileobj=raw)) if gzipped else raw)  # is one in all but name


@contextmanager
def _local(location: str) -> Iterator[Path]:
    if not location.startswith("s3://"):
        path = Path(location)
        if not path.is_file():
            raise UserError(f"{location}: there is no such file. Check the path.")
        yield path
        return
    from shopvision.storage import ObjectMissing, open_store

    folder, _, key = location.rpartition("/")
    with TemporaryDirectory(prefix="shopvision-import-") as temporary:
        path = Path(temporary) / "file"
        try:
            open_store(folder).download(key, path)
        except ObjectMissing:
            raise UserError(f"{location}: there is no such object. Check bucket and key.") from None
        yield path


def _whole(location: str, records: Iterator[Numbered]) -> Iterator[Numbered]:
    """Damage in a compressed file as one line for the user."""
    number = 0
    try:
        for number, record in records:
            yield number, record
    except (EOFError, BadGzipFile, zlib.error, OSError) as error:
        raise UserError(
            f"{location}: cannot be read beyond line {number} ({error}). The rows before it may be in; "
            "repeat the import with a whole file."
        ) from None


def _jsonl(location: str, lines: SourceLines) -> Iterator[Numbered]:
    for number, line in lines:
        if line is None:
            yield number, RecordError(f"a line of more than {MAX_LINE_BYTES >> 20} MiB; one line holds one record")
        elif number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UserError(f"{location}: the file is UTF-16. Save it as UTF-8.")
        elif number == 1 and line.lstrip().startswith(b"["):
            raise UserError(f"{location}: a JSON array. Write one object a line: jq -c '.[]' {Path(location).name}.")
        elif line.strip():
            yield number, _json_object(line)


def _json_object(line: bytes) -> dict[str, Any] | RecordError:
    try:
        record = from_json(line, allow_inf_nan=False)
    except ValueError as error:
        try:
            line.decode()
        except UnicodeDecodeError:
            return RecordError("not valid UTF-8; save the file as UTF-8")
        reason = str(error).partition(" at line ")[0]
        return RecordError(f"not JSON ({reason}); correct the line")
    if not isinstance(record, dict):
        return RecordError("not a JSON object; write {...} with the record's keys")
    text = line.decode()
    if "\\u" not in text and not may_be_too_long(text) and (text.isascii() or is_normalized("NFC", text)):
        return record
    return normalised_or_error(record)
