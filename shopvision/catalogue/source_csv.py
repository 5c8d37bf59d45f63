"""CSV as a stream of records. Quotes are taken at their word, because an open one swallows the rows after it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any

from shopvision.catalogue.record_texts import RecordError, is_storable, normalised_or_error
from shopvision.catalogue.source_lines import MAX_LINE_BYTES, SourceLines
from shopvision.errors import UserError
from shopvision.reports.spreadsheet_text import original

DELIMITERS = ",;\t"


def csv_records(
    location: str, lines: SourceLines, *, own_exports: bool = False
) -> Iterator[tuple[int, dict[str, Any] | RecordError]]:
    """(line number, record) of each row that is not blank; cells without text are left out of their record.

    Args:
        location: what the user calls the file.
        lines: of the file.
        own_exports: undo the apostrophes before what a spreadsheet would run, which our exports write.

    Raises:
        UserError: the file is UTF-16, its header cannot be read, or a line is too long.
    """
    texts = _Texts(location, lines)
    header, delimiter = _header(location, next(texts, ""))
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 2
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            extent = reader.line_num + 2 - number
            record = _again(texts.last, delimiter) if extent == 1 else None
            if record is None:
                yield number, RecordError(_explained(error, extent))
                continue
            cells = record
        if own_exports:
            cells = [original(cell.strip()) for cell in cells]
        if any(map(str.strip, cells)):
            yield number, _record(header, cells, is_cut=lines.is_cut)


def csv_columns(location: str, lines: SourceLines) -> tuple[list[str], str]:
    """The names of the columns, and what separates cells.

    Raises:
        UserError: as ``csv_records``.
    """
    return _header(location, next(_Texts(location, lines), ""))


class _Texts:
    """Lines as text. Bytes that are no UTF-8 become marks that the check of the record finds: only their row is bad."""

    def __init__(self, location: str, lines: SourceLines) -> None:
        self.last = ""
        self._location = location
        self._lines = iter(lines)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        if line is None:
            raise UserError(
                f"{self._location}: line {number} is longer than {MAX_LINE_BYTES >> 20} MiB. Is this a CSV file?"
            )
        self.last = line.decode(errors="surrogateescape")
        return self.last


def _header(location: str, line: str) -> tuple[list[str], str]:
    if line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
        raise UserError(f"{location}: the file is UTF-16. Save it as UTF-8.")
    if not is_storable(line):
        raise UserError(f"{location}: the header line is not valid UTF-8. Save the file as UTF-8.")
    delimiter = max(DELIMITERS, key=line.count)
    try:
        header = [name.strip() for name in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
    except csv.Error as error:
        raise UserError(f"{location}: the header line cannot be read ({error}). Check its quotes.") from None
    repeated = {name for name in header if name and header.count(name) > 1}
    if not any(header) or repeated:
        reason = f"the columns {', '.join(sorted(repeated))} occur twice" if repeated else "no header line"
        raise UserError(f"{location}: {reason}. The first line names each column once.")
    return header, delimiter


def _again(line: str, delimiter: str) -> list[str] | None:
    """The cells of a line with blanks behind closing quotes, as columns that are aligned for the eye have them."""
    tidy = re.sub(rf'"[ \t]+(?={delimiter}|[\r\n]*$)', '"', line)
    try:
        return next(csv.reader([tidy], delimiter=delimiter, strict=True))
    except csv.Error:
        return None


def _explained(error: csv.Error, extent: int) -> str:
    if "unexpected end of data" not in str(error):
        return f"not CSV ({error}); check the quotes"
    swallowed = f", so the {extent - 1:,} lines after it were not read" if extent > 1 else ""
    return f"a quote that opens here is never closed{swallowed}; close it, or double it where it means inches"


def _record(header: list[str], cells: list[str], *, is_cut: bool) -> dict[str, Any] | RecordError:
    if len(cells) > len(header):
        return RecordError(f"{len(cells)} cells under {len(header)} columns; quote cells that hold the separator")
    if is_cut and len(cells) < len(header):
        return RecordError(
            f"the file ends in this row, after {len(cells)} of {len(header)} cells; send the whole file, or end the "
            "row with a line break"
        )
    return normalised_or_error({name: cell for name, cell in zip(header, cells, strict=False) if name and cell.strip()})
