"""Reading and checking a source in batches; a large file in a process of its own, beside the one that writes.

Checking takes more of a core than writing does, so an import of a large file with one process would be half as fast as
the machine. The other process is a fresh interpreter that talks through its pipes: it needs nothing of the program that
imports (which may be a script without a main guard, or itself a worker's child), and a Ctrl-C at the terminal does not
reach it. It waits while the pipe is full, so it is never more than a batch ahead, and it ends when nobody reads any
more.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, Any, cast

from shopvision.catalogue.column_mapping import Mapping
from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.row_conversion import ItemRow, PlanRow
from shopvision.catalogue.source_files import Source, SourceFile
from shopvision.errors import ShopvisionError, TransientError

BATCH_ROWS = 5_000
LARGE_FILE_BYTES = 8 * 2**20  # half a second of checking, which is what another process takes to start

Row = ItemRow | PlanRow


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that was refused, why, and its key where that can be read."""

    line: int
    message: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """At most :data:`BATCH_ROWS` rows of a source, in order, and how much of it has been read by then (0 to 1)."""

    good: list[tuple[int, Row]]
    refused: list[Refusal]
    fraction_read: float

    def __reduce__(self) -> tuple[Any, ...]:
        """By columns, which takes half the time that pickling row by row takes."""
        lines = [line for line, _ in self.good]
        columns = list(zip(*(row for _, row in self.good), strict=True))
        return _batch, (lines, [type(row) for _, row in self.good[:1]], columns, self.refused, self.fraction_read)


def _batch(
    lines: list[int], types: list[type[Row]], columns: list[Any], refused: list[Refusal], fraction_read: float
) -> Batch:
    rows = (row_type._make(values) for row_type in types for values in zip(*columns, strict=True))
    return Batch(list(zip(lines, rows, strict=True)), refused, fraction_read)


@dataclass(frozen=True)
class Checker:
    """What turns records into rows; it can be pickled when ``to_row`` can.

    Attributes:
        to_row: raises :class:`RecordError` where a record is wrong.
        key: the field that names a record.
        mapping: foreign column names.
    """

    to_row: Callable[[dict[str, Any]], Row]
    key: str
    mapping: Mapping | None = None

    @contextmanager
    def batches(self, source: Source) -> Iterator[Iterator[Batch]]:
        """The checked batches of ``source``, read by another process where it is a large file.

        The iterator raises :class:`UserError` where the file cannot be read to its end, and :class:`TransientError`
        where the other process was ended.
        """
        if source.file is not None and source.file.size >= LARGE_FILE_BYTES:
            with _apart(self, source.file) as batches:
                yield batches
        else:
            yield self.check(source)

    def check(self, source: Source) -> Iterator[Batch]:
        """The checked batches of ``source``, read here."""
        good: list[tuple[int, Row]] = []
        refused: list[Refusal] = []
        line = 0
        for line, record in source.records:
            if len(good) + len(refused) == BATCH_ROWS:
                yield Batch(good, refused, source.fraction_read())
                good, refused = [], []
            if isinstance(record, RecordError):
                refused.append(Refusal(line, str(record), None))
            else:
                mapped = self.mapping.apply(record) if self.mapping else record
                try:
                    good.append((line, self.to_row(mapped)))
                except RecordError as error:
                    refused.append(Refusal(line, str(error), _readable(mapped.get(self.key))))
        if refused and refused[-1].line == line and source.is_cut():
            refused[-1] = replace(refused[-1], key=None)  # cut short, it may be another record's
        yield Batch(good, refused, source.fraction_read())


def _readable(key: Any) -> str | None:
    if isinstance(key, str | int) and (name := str(key).strip()):
        return unicodedata.normalize("NFC", name)
    return None


@contextmanager
def _apart(checker: Checker, file: SourceFile) -> Iterator[Iterator[Batch]]:
    """Batches from another process, which ends with the ``with`` block whatever happens in it."""
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", "from shopvision.catalogue.batch_checking import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},  # it unpickles what this process can import
        process_group=0,
    )
    with child:
        try:
            with suppress(BrokenPipeError), closing(cast("IO[bytes]", child.stdin)) as request:
                pickle.dump((checker, file), request)  # where nobody takes it, receiving tells why
            yield _received(child, cast("IO[bytes]", child.stdout), file.name)
        finally:
            child.kill()


def _received(child: subprocess.Popen[bytes], pipe: IO[bytes], name: str) -> Iterator[Batch]:
    while True:
        try:
            message = pickle.load(pipe)  # noqa: S301 - from our own child
        except (EOFError, pickle.UnpicklingError):
            status = child.wait()
            reason = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            raise TransientError(
                f"{name}: the process that reads the file was ended ({reason}). The rows before may be in; "
                "run the import again."
            ) from None
        if message is None:
            return
        if isinstance(message, BaseException):
            raise message
        yield message


def serve() -> None:
    """The other process: takes a :class:`Checker` and a file from stdin, writes its batches to stdout.

    The last message is None or the exception that ended it.
    """
    with os.fdopen(os.dup(1), "wb") as pipe, suppress(BrokenPipeError):
        os.dup2(2, 1)  # what a library prints must not get among the batches
        gc.disable()  # see shopvision.cycle_search; this process does nothing else
        checker, file = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
        last: Exception | None = None
        try:
            with file.opened() as source:
                for batch in checker.check(source):
                    pickle.dump(batch, pipe, pickle.HIGHEST_PROTOCOL)
                    pipe.flush()
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - raised again by the parent
            if not isinstance(error, ShopvisionError):
                error.add_note(f"In the process that reads the file:\n{traceback.format_exc()}")
            last = error
        pickle.dump(last, pipe)
