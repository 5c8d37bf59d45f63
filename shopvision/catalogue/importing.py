"""Importing a whole file: streaming, in small transactions, one error line per bad row while good rows go in.

Checking and writing overlap: while Postgres takes one batch, the next one is read and checked, for a large file by
another process. Stopping half way leaves whole batches behind, and the same import again does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TextIO, TypeVar

import psycopg
import sqlalchemy.exc
import stamina
from sqlalchemy import Connection

from shopvision.catalogue.batch_checking import BATCH_ROWS, Batch, Checker, Refusal, Row
from shopvision.catalogue.column_mapping import Mapping
from shopvision.catalogue.lines_by_key import LinesByKey
from shopvision.catalogue.missing_rows import find_missing, reason_to_keep_all, reason_to_keep_missing
from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.row_conversion import item_row, plan_row
from shopvision.catalogue.row_upserts import ITEMS, PLANS, Counts, Target, delete_rows, write_rows
from shopvision.catalogue.source_files import Source
from shopvision.cycle_search import without_cycle_search
from shopvision.database import connect
from shopvision.errors import TransientError

ERRORS_KEPT = 1_000
DEADLOCK_TRIES = 5

T = TypeVar("T")


@dataclass(frozen=True)
class RowError:
    """A row that was refused, and why."""

    line: int
    message: str


@dataclass
class ImportReport:
    """What an import did, or would do in a dry run.

    Attributes:
        errors: of the refused rows, the first 1,000.
        not_deleted: why rows that the file lacks were kept although deleting them was asked for.
    """

    source: str
    dry_run: bool
    rows: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    deleted: int = 0
    not_deleted: str | None = None
    seconds: float = 0.0
    errors: list[RowError] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether everything was done that the file asked for."""
        return not self.refused and self.not_deleted is None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Kind:
    """What distinguishes an import of items from one of plans; ``to_row`` must be picklable."""

    target: Target
    key: str
    to_row: Callable[[dict[str, Any]], Row]


def items_kind(root: PictureRoot | None) -> Kind:
    """Items whose ``file`` pictures start from ``root``."""
    return Kind(ITEMS, "item_id", partial(item_row, root=root))


PLANS_KIND = Kind(PLANS, "plan_id", plan_row)


class Importer:
    """One import of one file."""

    def __init__(
        self,
        kind: Kind,
        source: Source,
        *,
        mapping: Mapping | None = None,
        dry_run: bool = False,
        error_log: TextIO | None = None,
        on_progress: Callable[[ImportReport, float], None] = lambda _report, _fraction: None,
    ) -> None:
        """Prepare an import.

        Args:
            kind: :func:`items_kind` or :data:`PLANS_KIND`.
            source: the opened file.
            mapping: foreign column names.
            dry_run: check and count everything, write nothing.
            error_log: gets every refused row as one line; the report keeps the first 1,000.
            on_progress: called after each batch with the report so far and the fraction of the file that has been read.
        """
        self._kind = kind
        self._source = source
        self._checker = Checker(kind.to_row, kind.key, mapping)
        self._error_log = error_log
        self._on_progress = on_progress
        self._seen = LinesByKey()
        self._refused_keys = LinesByKey()
        self._refused: list[str] = []  # of the current batch
        self._nameless = 0
        self.report = ImportReport(source.name, dry_run)

    def run(self, *, delete_missing: bool = False, force: bool = False) -> ImportReport:
        """Import the file.

        Args:
            delete_missing: afterwards delete what the file lacks. Refused rows count as present.
            force: delete also where more than a tenth of what is stored is missing, or of the rows was refused.

        Raises:
            UserError: the file cannot be read to its end; nothing is deleted then.
            TransientError: the database or the reading process went away; run the import again.
        """
        started = time.monotonic()
        with (
            without_cycle_search(),
            ThreadPoolExecutor(1) as writer,
            self._checker.batches(self._source) as batches,
        ):
            writing: Future[list[Refusal]] | None = None
            for batch in batches:
                rows = self._to_write(batch)
                if writing is not None:
                    self._refuse_all(writing.result())
                writing = writer.submit(self._write, rows)
                self._on_progress(self.report, batch.fraction_read)
            if writing is not None:
                self._refuse_all(writing.result())
        self._note_refused()
        if delete_missing:
            self._delete_missing(force=force)
        self.report.seconds = time.monotonic() - started
        self._on_progress(self.report, 1.0)
        return self.report

    def _to_write(self, batch: Batch) -> list[tuple[int, Row]]:
        self.report.rows += len(batch.good) + len(batch.refused)
        self._refuse_all(batch.refused)
        return self._without_repeated(batch.good)

    def _without_repeated(self, rows: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
        """The first row of each key, in this batch and in the file so far."""
        earlier = self._seen.lines([row[0] for _, row in rows])
        first: dict[str, int] = {}
        good = []
        for (line, row), seen in zip(rows, earlier, strict=True):
            before = seen or first.get(row[0])
            if before:
                message = (
                    f"{self._kind.key}: {row[0]!r} stands on line {before} already; that one counts, remove one of them"
                )
                self._refuse(Refusal(line, message, row[0]))
            else:
                first[row[0]] = line
                good.append((line, row))
        self._seen.add(list(first), list(first.values()))
        self._note_refused()
        return good

    def _note_refused(self) -> None:
        """Refused rows may be wrong, but they are in the file: deleting what is missing spares them."""
        names, self._refused = list(dict.fromkeys(self._refused)), []
        new = [name for name, seen in zip(names, self._refused_keys.lines(names), strict=True) if not seen]
        self._refused_keys.add(new, [1] * len(new))

    def _refuse_all(self, refusals: Sequence[Refusal]) -> None:
        for refusal in refusals:
            self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        """Only in the thread that reads: a key that got lost between two would be deleted as missing."""
        self.report.refused += 1
        if refusal.key is None:
            self._nameless += 1
        else:
            self._refused.append(refusal.key)
        if len(self.report.errors) < ERRORS_KEPT:
            self.report.errors.append(RowError(refusal.line, refusal.message))
        if self._error_log is not None:
            self._error_log.write(f"{self._source.name}:{refusal.line}: {refusal.message}\n")

    def _write(self, batch: Sequence[tuple[int, Row]]) -> list[Refusal]:
        """Write a batch, in a thread of its own; returns what the database refuses of it."""
        if not batch:
            return []
        try:
            counts = self._write_once([row for _, row in batch])
        except _IndigestibleError as error:
            if len(batch) == 1:
                line, row = batch[0]
                return [Refusal(line, f"refused by the database ({error}); correct or leave it out", row[0])]
            middle = len(batch) // 2
            return [*self._write(batch[:middle]), *self._write(batch[middle:])]
        self.report.inserted += counts.inserted
        self.report.updated += counts.updated
        self.report.unchanged += counts.unchanged
        return []

    def _write_once(self, rows: list[Row]) -> Counts:
        return _transaction(
            lambda connection: write_rows(connection, self._kind.target, rows, dry_run=self.report.dry_run)
        )

    def _delete_missing(self, *, force: bool) -> None:
        report, target = self.report, self._kind.target
        report.not_deleted = reason_to_keep_all(
            rows=report.rows, refused=report.refused, nameless=self._nameless, key=self._kind.key, force=force
        )
        if report.not_deleted is not None:
            return
        missing = find_missing(target, self._are_in_file)
        report.not_deleted = reason_to_keep_missing(missing, target.table, force=force)
        if report.not_deleted is not None:
            return
        for start in range(0, len(missing.keys), BATCH_ROWS):
            keys = missing.keys[start : start + BATCH_ROWS]
            if report.dry_run:
                report.deleted += len(keys)
            else:
                report.deleted += _transaction(partial(delete_rows, target=target, keys=keys))

    def _are_in_file(self, keys: Sequence[str]) -> list[bool]:
        lines = zip(self._seen.lines(keys), self._refused_keys.lines(keys), strict=True)
        return [bool(seen or refused) for seen, refused in lines]


class _IndigestibleError(Exception):
    """What our checks let through and Postgres refuses."""


def _transaction(work: Callable[[Connection], T]) -> T:
    """``work`` in a transaction of its own, again where Postgres chose it as the victim of a deadlock.

    Embedding jobs lock the same pictures in another order; the import has the smaller loss.
    """
    try:
        for attempt in stamina.retry_context(on=_is_deadlock, attempts=DEADLOCK_TRIES, timeout=None, wait_max=1.0):
            with attempt, connect() as connection:
                return work(connection)
    except (psycopg.Error, sqlalchemy.exc.DBAPIError) as error:
        cause = _cause(error)
        reason = str(cause).strip().partition("\n")[0]
        if isinstance(cause, psycopg.DataError | psycopg.errors.ProgramLimitExceeded):
            raise _IndigestibleError(reason) from error
        if isinstance(cause, psycopg.OperationalError):
            raise TransientError(
                f"The database stopped the import ({reason}). What it wrote so far is in; run the import again."
            ) from error
        raise
    raise AssertionError("the last attempt raises")


def _is_deadlock(error: Exception) -> bool:
    return isinstance(_cause(error), psycopg.errors.DeadlockDetected)


def _cause(error: Exception) -> BaseException | None:
    return error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
