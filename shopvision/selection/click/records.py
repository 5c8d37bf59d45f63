"""The published file of picture pairs: one record a line, ten fields joined by ``$record$``, no header.

The larger rate is the better one; the published files keep no more of the rates than their order (1 and 2). A file that
was read is written again byte for byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from shopvision.errors import ItemError, UserError

SEPARATOR = "$record$"
BETWEEN_NAMES = ","


@dataclass(frozen=True, slots=True)
class PairRecord:
    """One line, every field as it is written.

    Attributes:
        item_id: numbers the record; the published ids tell no items apart.
        url_a: address of the first picture.
        url_b: of the second.
        ctr_a: click rate of the first, or its place in the order of both.
        ctr_b: of the second.
        title: of the item.
        cate_name: its category.
        oss_url: where a copy of the first picture lies.
        oss_url2: of the second.
        poi_names: of the sights that the item visits, separated by commas; may be empty.
    """

    item_id: str
    url_a: str
    url_b: str
    ctr_a: str
    ctr_b: str
    title: str
    cate_name: str
    oss_url: str
    oss_url2: str
    poi_names: str

    @property
    def rates(self) -> tuple[float, float]:
        """Both click rates.

        Raises:
            ItemError: one is no number, or negative.
        """
        return rate(self.ctr_a, "ctr_a"), rate(self.ctr_b, "ctr_b")

    @property
    def names(self) -> tuple[str, ...]:
        """The sights, in their order; without those that are blank."""
        return tuple(name.strip() for name in self.poi_names.split(BETWEEN_NAMES) if name.strip())

    def line(self) -> str:
        """The record as the file has it, without a line end."""
        return SEPARATOR.join(astuple(self))


FIELDS = tuple(field.name for field in fields(PairRecord))


def rate(text: str, name: str) -> float:
    """A click rate, or a number of clicks or views.

    Raises:
        ItemError: ``broken_record``, it is no number, or negative.
    """
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not (0 <= value < math.inf):
        raise ItemError("broken_record", f"{name} is {str(text)[:40]!r}; write a number that is not negative")
    return value


def parse_record(line: str) -> PairRecord:
    """One line, without its end.

    Raises:
        ItemError: ``broken_record``, it has more or fewer than ten fields.
    """
    cells = line.split(SEPARATOR)
    if len(cells) != len(FIELDS):
        raise ItemError(
            "broken_record", f"{len(cells)} fields between {SEPARATOR}, not {len(FIELDS)}: {', '.join(FIELDS)}"
        )
    return PairRecord(*cells)


def read_records(path: Path) -> Iterator[tuple[int, PairRecord | ItemError]]:
    """Line numbers, from 1 on, with the records of a file or what is wrong with them.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):  # ends at "\n" only: a title may hold other line separators
                try:
                    yield number, parse_record(raw.removesuffix(b"\n").decode())
                except UnicodeDecodeError:
                    yield number, ItemError("broken_record", "not valid UTF-8; save the file as UTF-8")
                except ItemError as error:
                    yield number, error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a file of records.") from None


def write_records(path: Path, records: Iterable[PairRecord]) -> None:
    """Write a file as it was published: no header, no line end after the last record."""
    path.write_bytes("\n".join(record.line() for record in records).encode())
