"""Which pairs a job is to score: those that blocking finds, those of a file, or those that failed in another job."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Connection, text

from shopvision.catalogue.allowed_files import allowed_location
from shopvision.catalogue.record_schema import MAX_ID_CHARACTERS
from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.database import connect
from shopvision.errors import ItemError
from shopvision.items.item import pair_key
from shopvision.items.pair_files import LEFT_KEYS, RIGHT_KEYS
from shopvision.items.record_parsing import record_id
from shopvision.matching import requests
from shopvision.matching.due_items import due_items
from shopvision.matching.options import BlockingOptions
from shopvision.matching.requests import StagedRow
from shopvision.matching.stopping import ShouldStop, never, until_stopped
from shopvision.matching.store import ROWS_AT_ONCE
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from shopvision.index.reader import IndexReader
    from shopvision.models import ModelVersionRef

log = structlog.get_logger(__name__)

_UNKNOWN = """
    UPDATE staging SET code = 'unknown_item', message = concat(
        'Row ', file_row, ' of ', CAST(:location AS text), ': item ''',
        CASE WHEN EXISTS (SELECT FROM items WHERE item_id = left_id) THEN right_id ELSE left_id END,
        ''' is not in the catalogue; import it, or leave the row out.')
    WHERE code IS NULL AND file_row IS NOT NULL
      AND NOT (EXISTS (SELECT FROM items WHERE item_id = left_id)
               AND EXISTS (SELECT FROM items WHERE item_id = right_id))
    """

# What a changed item was scored with before may not be among its candidates any more, and is wrong until scored anew.
_SCORED = """
    INSERT INTO staging (left_id, right_id)
    SELECT scored.left_item_id, scored.right_item_id
    FROM matching_states AS due JOIN pair_scores AS scored
        ON scored.{side}_item_id = due.item_id AND scored.model_version_id = due.model_version_id
    WHERE due.pending_job_id = :job_id
    """


def items_to_read(job_id: uuid.UUID, item_ids: Iterable[str], should_stop: ShouldStop = never) -> Iterator[str]:
    """Keys of items that need a vector."""
    with connect() as connection:
        requests.open_staging(connection)
        wanted = until_stopped(item_ids, should_stop, every=ROWS_AT_ONCE)
        requests.add_rows(connection, ((None, item_id, None, None, None) for item_id in wanted))
        yield from requests.keys_of_staged(connection, job_id)


def blocked_pairs(
    job_id: uuid.UUID,
    options: BlockingOptions,
    blocker: ModelVersionRef | None,
    *,
    everything: bool,
    should_stop: ShouldStop,
) -> Iterator[str]:
    """Keys of the pairs of items that a job has taken up: candidates, and pairs that have a score already.

    Args:
        blocker: whose item vectors say which items are near.
        everything: the job has taken up every item.
        should_stop: asked between batches of items; a yes ends it with ``StopAskedError``, as in the functions below.
    """
    from shopvision.matching.blocking import candidate_pairs

    due = None if everything else due_items(job_id)
    batches = candidate_pairs(
        due, options, index_reader=_index_reader(options), blocker=blocker, should_stop=should_stop
    )
    with connect() as connection:
        requests.open_staging(connection)
        rows = ((None, pair.left, pair.right, None, None) for batch in batches for pair in batch)
        requests.add_rows(connection, rows)
        for side in ("left", "right"):
            connection.execute(text(_SCORED.format(side=side)), {"job_id": job_id})
        yield from requests.keys_of_staged(connection, job_id)


def pairs_of_file(job_id: uuid.UUID, location: str, should_stop: ShouldStop) -> Iterator[str]:
    """Keys of the pairs of a file (JSONL, CSV or Parquet, also .gz) by the ids of their items, and of its other rows.

    Args:
        location: ``s3://bucket/key``, ``file:///folder/file``, or a path; local files below an allowed folder.

    Raises:
        UserError: the file is missing, outside the allowed folders, of unknown format, or damaged.
    """
    with connect() as connection:
        requests.open_staging(connection)
        _stage_file(connection, location, should_stop)
        total, broken = connection.execute(text("SELECT count(*), count(code) FROM staging")).one()
        log.info("pairs_file_read", file=location, rows=total, broken=broken)
        yield from requests.keys_of_staged(connection, job_id)


def what_failed(
    job_id: uuid.UUID, names: Iterable[str], location: str | None, should_stop: ShouldStop
) -> Iterator[str]:
    """Keys of what failed in another job.

    Args:
        names: of the failures.
        location: the file whose rows failed; they are read again, as they are now.

    Raises:
        UserError: as ``pairs_of_file``.
    """
    with connect() as connection:
        requests.open_staging(connection)
        requests.add_rows(connection, map(_failed_row, names))
        connection.execute(text("CREATE TEMPORARY TABLE wanted (file_row) ON COMMIT DROP AS"
                                " SELECT file_row FROM staging WHERE file_row IS NOT NULL"))  # fmt: skip
        connection.execute(text("DELETE FROM staging WHERE file_row IS NOT NULL"))
        if location is not None and connection.scalar(text("SELECT EXISTS (SELECT FROM wanted)")):
            _stage_file(connection, location, should_stop)
            connection.execute(text("DELETE FROM staging WHERE file_row IS NOT NULL AND NOT EXISTS"
                                    " (SELECT FROM wanted WHERE wanted.file_row = staging.file_row)"))  # fmt: skip
        yield from requests.keys_of_staged(connection, job_id)


def _failed_row(name: str) -> StagedRow:
    failed = requests.parse_name(name)
    if isinstance(failed, int):
        return (failed, None, None, None, None)
    return (None, failed[0], failed[1] if len(failed) == 2 else None, None, None)


def _stage_file(connection: Connection, location: str, should_stop: ShouldStop) -> None:
    with open_source(allowed_location(location), own_exports=True) as source:
        records = until_stopped(source.records, should_stop, every=ROWS_AT_ONCE)
        requests.add_rows(connection, (_row(location, number, record) for number, record in records))
    connection.execute(text(_UNKNOWN), {"location": location})


def _row(location: str, number: int, record: Mapping[str, Any] | RecordError) -> StagedRow:
    try:
        return (number, *_pair(record), None, None)
    except ItemError as error:
        return (number, None, None, error.code, f"Row {number} of {location}: {error.message}.")


def _pair(record: Mapping[str, Any] | RecordError) -> tuple[str, str]:
    if isinstance(record, RecordError):
        raise ItemError("broken_row", str(record))
    return pair_key(_side(record, LEFT_KEYS), _side(record, RIGHT_KEYS))


def _side(record: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    item_id = record_id(record, keys, code="broken_row")
    if not item_id:
        raise ItemError("broken_row", f"no {keys[0]}; give the ids of two catalogue items")
    if len(item_id) > MAX_ID_CHARACTERS:
        raise ItemError("broken_row", f"{keys[0]} has {len(item_id)} characters; ids have {MAX_ID_CHARACTERS} at most")
    return item_id


def _index_reader(options: BlockingOptions) -> IndexReader | None:
    """The catalogue's picture index; None where nothing was published yet, or no source needs it."""
    if "picture" not in options.sources and "same_picture" not in options.sources:
        return None
    from shopvision.index.current import read_current
    from shopvision.index.opening import open_index
    from shopvision.storage import open_store

    settings = get_settings()
    index_store = open_store()
    if read_current(index_store, settings.index_name) is None:
        log.info("blocking_without_index", index=settings.index_name)
        return None
    return open_index()
