"""Files in which people say what is right: a page gives them out, or a list is filled in, and they come back.

A row names two things and a verdict about them. Good rows count, whatever the others are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.errors import ItemError, UserError
from shopvision.items.record_parsing import record_id

Key = tuple[str, str]


@dataclass(frozen=True)
class DecisionForm:
    """What the rows of a file look like.

    Attributes:
        keys: the columns that name what is decided.
        verdicts: that there are.
        told: further columns of our own lists, for whoever decides.
        key_of: both names -> the key of what is decided.
    """

    keys: tuple[str, str]
    verdicts: tuple[str, ...]
    told: tuple[str, ...] = ()
    key_of: Callable[[str, str], Key] = lambda first, second: (first, second)

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that a file of decisions has."""
        return (*self.keys, "verdict")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of our own lists, in order."""
        return (*self.required, "reviewer", "note", *self.told)


@dataclass
class DecisionReport:
    """What became of the rows of a file.

    Attributes:
        rows: read.
        written: decisions that are new or other ones.
        unchanged: what was decided in just this way before.
        undecided: rows without verdict.
        refused: (line, reason).
    """

    rows: int = 0
    written: int = 0
    unchanged: int = 0
    undecided: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        errors = [{"line": line, "message": message} for line, message in self.refused]
        counts = {"rows": self.rows, "written": self.written, "unchanged": self.unchanged, "undecided": self.undecided}
        return {**counts, "refused": len(errors), "errors": errors}


@dataclass(frozen=True)
class Decision:
    """A row of a file that can be read."""

    line: int
    verdict: str
    reviewer: str | None
    note: str | None


def read_decisions(
    location: str | Path, form: DecisionForm, reviewer: str | None
) -> tuple[dict[Key, Decision], DecisionReport]:
    """The decisions of a file, and a report of its rows in which nothing is written yet.

    Args:
        location: CSV, JSONL or Parquet, also ``s3://``, also ``.gz``.
        form: what its rows look like; ``reviewer`` and ``note`` may be missing, rows without verdict are left out.
        reviewer: for rows that name none.

    Raises:
        UserError: the file cannot be read, or has no column that names what is decided.
    """
    report = DecisionReport()
    decisions: dict[Key, list[Decision]] = {}
    found: set[str] = set()
    with open_source(str(location), own_exports=True) as source:
        for line, record in source.records:
            report.rows += 1
            found.update(() if isinstance(record, RecordError) else record)
            try:
                decided = _read(record, form, line, reviewer)
            except ItemError as error:
                report.refused.append((line, error.message))
                continue
            if decided is None:
                report.undecided += 1
            else:
                decisions.setdefault(decided[0], []).append(decided[1])
    # A list in which nothing is decided yet has no verdicts; one with a column of another name is a mistake.
    asked = form.required if found - set(form.columns) else form.keys
    missing = [name for name in asked if name not in found]
    if report.rows and missing:
        raise UserError(f"{location} has no {', '.join(missing)}: it needs the columns {', '.join(form.required)}.")
    return _consistent(decisions, report), report


def _read(
    record: Mapping[str, Any] | RecordError, form: DecisionForm, line: int, reviewer: str | None
) -> tuple[Key, Decision] | None:
    """What is decided and how; None where nothing is."""
    if isinstance(record, RecordError):
        raise ItemError("broken_record", str(record))
    verdict, name, note = (_text(record.get(key)) for key in form.columns[2:5])
    if not verdict:
        return None
    if verdict.lower() not in form.verdicts:
        raise ItemError("unknown_verdict", f"verdict is {verdict[:40]!r}; write {' or '.join(form.verdicts)}")
    first, second = (record_id(record, (key,)) for key in form.keys)
    if not first or not second:
        raise ItemError("broken_record", f"{form.keys[0 if not first else 1]} is empty; name both")
    if "\0" in first + second + name + note:
        raise ItemError("broken_record", "a text holds a null character; remove it")
    return form.key_of(first, second), Decision(line, verdict.lower(), name or reviewer, note or None)


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _consistent(decisions: Mapping[Key, Sequence[Decision]], report: DecisionReport) -> dict[Key, Decision]:
    """One decision for each pair; a pair that is decided both ways is refused."""
    result = {}
    for pair, several in decisions.items():
        if len({one.verdict for one in several}) > 1:
            lines = ", ".join(str(one.line) for one in several)
            message = f"the pair {pair[0]!r}, {pair[1]!r} is decided both ways in lines {lines}; keep the right one"
            report.refused += [(one.line, message) for one in several]
        else:
            result[pair] = several[-1]
    return result
