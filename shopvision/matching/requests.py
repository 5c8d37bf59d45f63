"""What a matching job is to do, row by row: pairs to score, items that need a vector, rows of files that name no pair.

A job's chunks name these rows by their numbers. Numbers are never given twice: whoever splits a job a second time, or
too late, stages rows of its own and disturbs nobody. A job that has come to its end needs none of them.

Failures are known by names that say what failed: the item's id, ``["left","right"]`` for a pair, ``row 17`` for a row.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from shopvision.database import connect, copy_rows
from shopvision.errors import JobError
from shopvision.matching.store import ROWS_AT_ONCE, PairIds

_COLUMNS = (("file_row", "int8"), ("left_id", "text"), ("right_id", "text"), ("code", "text"), ("message", "text"))
_STAGING = """
    CREATE TEMPORARY TABLE staging (file_row int8, left_id text, right_id text, code text, message text) ON COMMIT DROP
    """
# Pairs in the order of their ids: a chunk then reads few items. Each once, in however many rows it is.
_NUMBERED = """
    CREATE TEMPORARY TABLE numbered ON COMMIT DROP AS
    SELECT nextval('matching_request_ids') AS request_id, file_row, left_id, right_id, code, message FROM (
        SELECT NULL::int8 AS file_row, left_id COLLATE "C" AS left_id, right_id COLLATE "C" AS right_id,
               NULL AS code, NULL AS message FROM staging WHERE code IS NULL GROUP BY 2, 3
        UNION ALL SELECT file_row, NULL, NULL, code, message FROM staging WHERE code IS NOT NULL
        ORDER BY file_row NULLS FIRST, left_id, right_id) AS rows
    """
_INSERT = """
    INSERT INTO matching_requests (request_id, job_id, left_item_id, right_item_id, file_row, code, message)
    SELECT request_id, :job_id, left_id, right_id, file_row, code, message FROM numbered
    """
_READ = """
    SELECT request_id, left_item_id, right_item_id, file_row, code, message FROM matching_requests
    WHERE request_id = ANY(CAST(:ids AS int8[])) AND job_id = :job_id ORDER BY request_id
    """
# One look into the index for each job, however many rows it has.
_JOBS = """
    WITH RECURSIVE jobs AS (
        (SELECT job_id FROM matching_requests ORDER BY job_id LIMIT 1)
        UNION ALL
        SELECT (SELECT job_id FROM matching_requests WHERE job_id > jobs.job_id ORDER BY job_id LIMIT 1)
        FROM jobs WHERE job_id IS NOT NULL)
    SELECT job_id FROM jobs WHERE job_id IS NOT NULL
    """
_ROW_NAME = re.compile(r"row (\d+)")

StagedRow = tuple[int | None, str | None, str | None, str | None, str | None]
"""Row of a file, ids of one or two items, and the reason code and message of a row that names no pair."""


@dataclass
class Requests:
    """Some of a job's rows.

    Attributes:
        items: item -> the row's key.
        pairs: pair -> the row's key; ids in code point order.
        broken: (name, code, message).
    """

    items: dict[str, str] = field(default_factory=dict)
    pairs: dict[PairIds, str] = field(default_factory=dict)
    broken: list[tuple[str, str, str]] = field(default_factory=list)


def open_staging(connection: Connection) -> None:
    """A temporary table ``staging`` for this transaction: ``file_row``, ``left_id``, ``right_id``, ``code``,
    ``message``.
    """
    connection.execute(text(_STAGING))


def add_rows(connection: Connection, rows: Iterable[StagedRow]) -> None:
    """Add rows to ``staging``."""
    copy_rows(connection, "staging", _COLUMNS, rows)


def keys_of_staged(connection: Connection, job_id: uuid.UUID) -> Iterator[str]:
    """Give the rows of ``staging`` to a job; their keys, streamed. They are there for others after the commit."""
    connection.execute(text("ANALYZE staging"))
    connection.execute(text(_NUMBERED))
    connection.execute(text(_INSERT), {"job_id": job_id})
    ids = text("SELECT request_id FROM numbered ORDER BY request_id")
    with connection.execute(ids, execution_options={"yield_per": ROWS_AT_ONCE}) as result:
        yield from map(str, result.scalars())


def read(job_id: uuid.UUID, keys: Sequence[str]) -> Requests:
    """The rows of one chunk.

    Raises:
        JobError: they are not there, because the job came to its end, or was split by another version.
    """
    found = Requests()
    with connect() as connection:
        ids = [int(key) for key in keys if key.isdecimal()]
        rows = connection.execute(text(_READ), {"ids": ids, "job_id": job_id}).all()
    if len(rows) < len(keys):
        raise JobError(
            f"{len(keys) - len(rows):,} of the {len(keys):,} rows of this chunk are gone: submit the job once more."
        )
    for row in rows:
        if row.code is not None:
            found.broken.append((row_name(row.file_row), row.code, row.message))
        elif row.right_item_id is None:
            found.items[row.left_item_id] = str(row.request_id)
        else:
            found.pairs[row.left_item_id, row.right_item_id] = str(row.request_id)
    return found


def name_of(job_id: uuid.UUID, key: str) -> str:
    """How what stands in a row is called where it fails; the key itself where the row is gone."""
    with connect() as connection:
        row = connection.execute(text(_READ), {"ids": [int(key)], "job_id": job_id}).one_or_none()
    if row is None:
        return key
    if row.code is not None:
        return row_name(row.file_row)
    if row.right_item_id is None:
        return item_name(row.left_item_id)
    return pair_name((row.left_item_id, row.right_item_id))


def forget(job_id: uuid.UUID) -> int:
    """Drop all rows of a job; returns how many there were."""
    with connect() as connection:
        statement = text("DELETE FROM matching_requests WHERE job_id = :job_id")
        return connection.execute(statement, {"job_id": job_id}).rowcount


def jobs_with_rows() -> list[uuid.UUID]:
    """Every job that has rows."""
    with connect() as connection:
        return list(connection.scalars(text(_JOBS)))


def item_name(item_id: str) -> str:
    """How a failed item is called."""
    if item_id.startswith("[") or _ROW_NAME.fullmatch(item_id):
        return _json(item_id)  # it looks like a pair, or like a row
    return item_id


def pair_name(pair: PairIds) -> str:
    """How a failed pair is called."""
    return _json(*pair)


def row_name(file_row: int) -> str:
    """How a row of a file that names no pair is called."""
    return f"row {file_row}"


def parse_name(name: str) -> int | tuple[str] | PairIds:
    """What failed: the number of a file's row, an item, or a pair."""
    if row := _ROW_NAME.fullmatch(name):
        return int(row[1])
    if name.startswith("["):
        ids: list[str] = json.loads(name)
        return (ids[0],) if len(ids) == 1 else (ids[0], ids[1])
    return (name,)


def _json(*item_ids: str) -> str:
    return json.dumps(item_ids, ensure_ascii=False, separators=(",", ":"))
