"""Catalogue files as a stream of records: JSONL, CSV and Parquet, local or on S3, also gzipped.

Memory is bounded by the longest line. A file on S3 is downloaded first, so that a broken connection writes no half.
"""

from __future__ import annotations

import csv
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO
from unicodedata import is_normalized

from pydantic_core import from_json

from shopvision.catalogue.record_texts import RecordError, normalised
from shopvision.errors import UserError

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
MAX_LINE_BYTES = 4 * 2**20
PARQUET_BATCH_ROWS = 2_000

Numbered = tuple[int, dict[str, Any] | RecordError]
"""Line number (Parquet: row number), from 1 on, and the record with normalised texts, or what is wrong with it."""


@dataclass(frozen=True)
class Source:
    """An opened catalogue file, or records from elsewhere; ``file`` lets another process open the same."""

    name: str
    records: Iterator[Numbered]
    fraction_read: Callable[[], float]
    file: CatalogueFile | None = None


@dataclass(frozen=True)
class CatalogueFile:
    """A file on this machine.

    Attributes:
        name: what the user calls it.
        path: where it, or its copy, is.
        file_format: ``jsonl``, ``csv`` or ``parquet``.
    """

    name: str
    path: Path
    file_format: str
    gzipped: bool

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size

    @contextmanager
    def opened(self) -> Iterator[Source]:
        """Its records, see :func:`open_source`."""
        with self.path.open("rb") as raw:
            if self.file_format == "parquet":
                yield _parquet(self, raw)
                return
            size = max(self.size, 1)
            stream: BinaryIO = GzipFile(fileobj=raw) if self.gzipped else raw  # type: ignore[assignment]  # is one in all but name
            read = _jsonl if self.file_format == "jsonl" else _csv
            yield Source(self.name, _whole(self.name, read(self.name, stream)), lambda: raw.tell() / size, self)


@contextmanager
def open_source(location: str, file_format: str | None = None) -> Iterator[Source]:
    """The file at ``location``, a local path or ``s3://bucket/key``.

    Args:
        location: the suffix tells the format (``.gz`` may follow it).
        file_format: ``jsonl``, ``csv`` or ``parquet``, where the suffix does not tell.

    Raises:
        UserError: the file is missing or of unknown format; while its records are read: it is damaged, or has no
            readable header.
    """
    suffixes = Path(location).suffixes
    gzipped = suffixes[-1:] == [".gz"]
    file_format = file_format or FORMATS.get((suffixes[:-1] if gzipped else suffixes)[-1:][0] if suffixes else "")
    if file_format not in set(FORMATS.values()):
        raise UserError(f"{location}: unknown format. Name it .jsonl, .csv or .parquet (also .gz), or give --format.")
    with _local(location) as path, CatalogueFile(location, path, file_format, gzipped).opened() as source:
        yield source


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


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines without a byte order mark; None for a line that is too long to be one."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        too_long = len(line) == MAX_LINE_BYTES
        while line and not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
            line = stream.readline(MAX_LINE_BYTES)
        yield number, None if too_long else line


def _jsonl(location: str, stream: BinaryIO) -> Iterator[Numbered]:
    for number, line in _lines(stream):
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
    if b"\\u" not in line and (line.isascii() or is_normalized("NFC", line.decode())):
        return record
    return _normalised(record)


def _normalised(record: dict[str, Any]) -> dict[str, Any] | RecordError:
    try:
        return normalised(record)
    except RecordError as error:
        return error


def _csv(location: str, stream: BinaryIO) -> Iterator[Numbered]:
    def texts() -> Iterator[str]:
        for number, line in _lines(stream):
            if line is None:
                raise UserError(
                    f"{location}: line {number} is longer than {MAX_LINE_BYTES >> 20} MiB. Is this a CSV file?"
                )
            # Bytes that are no UTF-8 become marks that the check of the record finds, so only their row is refused.
            yield line.decode(errors="surrogateescape")

    lines = texts()
    first = next(lines, "")
    if first.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        raise UserError(f"{location}: the file is UTF-16. Save it as UTF-8.")
    delimiter = max(",;\t", key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    repeated = {name for name in header if name and header.count(name) > 1}
    if not any(header) or repeated:
        reason = f"the columns {', '.join(sorted(repeated))} occur twice" if repeated else "no header line"
        raise UserError(f"{location}: {reason}. The first line names each column once.")
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        number = reader.line_num + 2
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, RecordError(f"not CSV ({error}); check the quotes")
            continue
        if any(map(str.strip, cells)):
            yield number, _cells(header, cells)


def _cells(header: list[str], cells: list[str]) -> dict[str, Any] | RecordError:
    if len(cells) > len(header):
        return RecordError(f"{len(cells)} cells under {len(header)} columns; quote cells that hold the separator")
    return _normalised({name: cell for name, cell in zip(header, cells, strict=False) if name and cell.strip()})


def _absent(value: Any) -> bool:
    """Data frames write NaN where there is no value."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _parquet(catalogue_file: CatalogueFile, raw: BinaryIO) -> Source:
    name = catalogue_file.name
    read, total = 0, 1

    def records() -> Iterator[Numbered]:
        import pyarrow as pa
        from pyarrow import parquet

        nonlocal read, total
        try:
            file = parquet.ParquetFile(raw)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{name}: not a Parquet file ({str(error).splitlines()[0]}). Write it again.") from None
        total = max(file.metadata.num_rows, 1)
        try:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
                for row in batch.to_pylist():
                    read += 1
                    yield read, _normalised({key: value for key, value in row.items() if not _absent(value)})
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(
                f"{name}: cannot be read beyond row {read} ({str(error).splitlines()[0]}). The rows before it may be "
                "in; repeat the import with a whole file."
            ) from None

    return Source(name, records(), lambda: read / total, catalogue_file)
