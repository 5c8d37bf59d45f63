"""Which pairs a job is to score, in order of their ids: those that blocking found, or those of a file.

They pass through a temporary table, so that however many there are, none is given twice and memory stays small.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import structlog
from sqlalchemy import Connection, text

from shopvision.catalogue.files import open_source
from shopvision.catalogue.rows import RecordError
from shopvision.database import connect, copy_rows
from shopvision.errors import ItemError, UserError
from shopvision.images.roots import allowed_image_roots
from shopvision.items.item import pair_key
from shopvision.items.pair_files import LEFT_KEYS, RIGHT_KEYS
from shopvision.items.record_parsing import record_id
from shopvision.matching import store
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from shopvision.matching.blocking import BlockingOptions
    from shopvision.models import ModelVersionRef

log = structlog.get_logger(__name__)

LONGEST_ID = 200  # characters, as the catalogue takes them

_COLUMNS = (("row", "int8"), ("left_id", "text"), ("right_id", "text"), ("code", "text"), ("message", "text"))
_TABLE = "CREATE TEMPORARY TABLE asked (row int8, left_id text, right_id text, code text, message text) ON COMMIT DROP"

_UNKNOWN = """
    UPDATE asked SET code = 'unknown_item', message = CASE WHEN EXISTS (
        SELECT FROM items WHERE item_id = left_id) THEN right_id ELSE left_id END
    WHERE code IS NULL AND NOT (EXISTS (SELECT FROM items WHERE item_id = left_id)
                                AND EXISTS (SELECT FROM items WHERE item_id = right_id))
    """

# What a changed item was scored with before may not be among its candidates any more, and is wrong until scored anew.
_SCORED = """
    INSERT INTO asked (left_id, right_id)
    SELECT scored.left_item_id, scored.right_item_id
    FROM matching_states AS due JOIN pair_scores AS scored
        ON scored.{side}_item_id = due.item_id AND scored.model_version_id = due.model_version_id
    WHERE due.pending_job_id = :job_id
    """

_PAIRS = """
    SELECT DISTINCT left_id COLLATE "C" AS left_id, right_id COLLATE "C" AS right_id FROM asked WHERE code IS NULL
    ORDER BY 1, 2
    """
_BROKEN = "SELECT row, code, message FROM asked WHERE code IS NOT NULL ORDER BY row"


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row of a pairs file that names no pair: a reason code, and one line for a person."""

    row: int
    code: str
    message: str


def blocked_pairs(
    job_id: uuid.UUID, options: BlockingOptions, blocker: ModelVersionRef | None, *, everything: bool
) -> Iterator[tuple[str, str]]:
    """Pairs of the items that a job has taken up: candidates, and pairs that have a score already.

    Args:
        blocker: whose item vectors say which items are near.
        everything: the job has taken up every item.
    """
    from shopvision.matching.blocking import candidate_pairs

    due = None if everything else store.due_items(job_id)
    batches = candidate_pairs(due, options, index_reader=_index_reader(options), blocker=blocker)
    with connect() as connection:
        connection.execute(text(_TABLE))
        rows = ((None, pair.left, pair.right, None, None) for batch in batches for pair in batch)
        copy_rows(connection, "asked", _COLUMNS, rows)
        for side in ("left", "right"):
            connection.execute(text(_SCORED.format(side=side)), {"job_id": job_id})
        yield from _pairs(connection)


def pairs_of_file(location: str) -> Iterator[tuple[str, str] | BrokenRow]:
    """Pairs of a file (JSONL, CSV or Parquet, also .gz) by the ids of their items, then its rows that name none.

    Args:
        location: ``s3://bucket/key``, ``file:///folder/file``, or a path; local files below an allowed folder.

    Raises:
        UserError: the file is missing, outside the allowed folders, of unknown format, or damaged.
    """
    with connect() as connection:
        connection.execute(text(_TABLE))
        with open_source(readable(location)) as source:
            copy_rows(connection, "asked", _COLUMNS, (_row(number, record) for number, record in source.records))
        connection.execute(text(_UNKNOWN))
        total, broken = connection.execute(text("SELECT count(*), count(code) FROM asked")).one()
        pairs = 0
        for pair in _pairs(connection):
            pairs += 1
            yield pair
        log.info("pairs_file_read", file=location, rows=total, pairs=pairs, broken=broken)
        for row in connection.execution_options(yield_per=5000).execute(text(_BROKEN)):
            yield BrokenRow(row.row, row.code, _message(location, row))


def readable(location: str) -> str:
    """The location as ``open_source`` takes it.

    Raises:
        UserError: a local file outside the allowed folders, or another kind of address.
    """
    if location.startswith("s3://"):
        return location
    if location.startswith("file:///"):
        location = os.fsdecode(unquote_to_bytes(location.removeprefix("file://")))
    elif "://" in location:
        raise UserError(f"{location}: give s3://bucket/key, file:///folder/file, or a path.")
    # Whoever may send a job may not therefore read every file of the worker's machine.
    path = os.path.realpath(location)
    if not any(path == str(root) or path.startswith(f"{root}{os.sep}") for root in allowed_image_roots(get_settings())):
        raise UserError(f"{location} is outside the allowed folders: add its folder to SHOPVISION_IMAGE_ROOTS.")
    return path


def _row(number: int, record: Mapping[str, Any] | RecordError) -> tuple[Any, ...]:
    if isinstance(record, RecordError):
        return (number, None, None, "broken_row", str(record))
    try:
        return (number, *pair_key(_side(record, LEFT_KEYS), _side(record, RIGHT_KEYS)), None, None)
    except ItemError as error:
        return (number, None, None, error.code, error.message)


def _side(record: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    item_id = record_id(record, keys)
    if not item_id:
        raise ItemError("broken_row", f"no {keys[0]}; give the ids of two catalogue items")
    if len(item_id) > LONGEST_ID:
        raise ItemError("broken_row", f"{keys[0]} has {len(item_id)} characters; ids have {LONGEST_ID} at most")
    return item_id


def _message(location: str, row: Any) -> str:
    reason = row.message
    if row.code == "unknown_item":
        reason = f"item {row.message!r} is not in the catalogue; import it, or leave the row out"
    return f"Row {row.row} of {location}: {reason}."


def _pairs(connection: Connection) -> Iterable[tuple[str, str]]:
    connection.execute(text("ANALYZE asked"))
    for row in connection.execution_options(yield_per=5000).execute(text(_PAIRS)):
        yield row.left_id, row.right_id


def _index_reader(options: BlockingOptions) -> Any:
    """The catalogue's picture index; None where nothing was published yet, or no source needs it."""
    if "picture" not in options.sources and "same_picture" not in options.sources:
        return None
    from shopvision.index.reader import IndexReader, read_current
    from shopvision.storage import open_store

    settings = get_settings()
    index_store = open_store()
    if read_current(index_store, settings.index_name) is None:
        log.info("blocking_without_index", index=settings.index_name)
        return None
    return IndexReader(index_store, settings.index_name, settings.cache_dir / "index")
