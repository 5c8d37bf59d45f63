"""A matching job from its start to its end: what ``tasks.score_pairs`` asks for.

The pairs are those of a file, or those that blocking finds for items. Blocking compares vectors of the whole catalogue,
and splitting has neither a GPU nor much time; so such a job has two rounds, and the vectors that are missing are made
by the chunks of the first one, with all that chunks have: several workers, leases, item failures, progress.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from shopvision.matching import due_items, requested_pairs, requests, store
from shopvision.matching.chunk import score_pairs, vectors_of
from shopvision.matching.due_items import DueScope
from shopvision.matching.groups.group_update import update_groups
from shopvision.matching.options import MatchingParams
from shopvision.matching.pinning import SCORER_ROLE, blocker_of, pin, resolve, scoring_method
from shopvision.matching.requests import name_of
from shopvision.matching.stopping import ShouldStop, StopAskedError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["LEFT_ALONE", "PASSING", "ROUNDS", "MatchingChunk", "finish", "keys", "keys_again", "name_of", "pin", "work"]

ROUNDS = 2  # vectors, then pairs
PASSING = ("unavailable", "timeout")  # failures that may be over tomorrow although nothing changes here
LEFT_ALONE = timedelta(days=30)  # how long an unchanged item that could have no vector is left out
WITHOUT_MODEL = {
    "pairs": 0,
    "reason": "No model serves the role pair_scorer, so no pair was scored: "
    "`shopvision models activate pair_scorer NAME:TAG` sets one.",
}


def keys(
    params: MatchingParams, job_id: uuid.UUID, round_number: int, recently_failed: Callable[[], Collection[str]],
    should_stop: ShouldStop,
) -> Iterator[str]:  # fmt: skip
    """Keys of the rows that the chunks of one round work on; see ``requests``. They end early once asked to stop.

    Args:
        params: pinned.
        job_id: the job's.
        round_number: from 1 to ``ROUNDS``.
        recently_failed: names of what failed in the last days for a reason that does not pass by itself.
        should_stop: asked between batches.

    Raises:
        UserError: an item is unknown, or the file cannot be read.
    """
    if params.model is None:
        return
    with suppress(StopAskedError):
        yield from _keys(params, job_id, round_number, recently_failed, should_stop)


def _keys(
    params: MatchingParams, job_id: uuid.UUID, round_number: int, recently_failed: Callable[[], Collection[str]],
    should_stop: ShouldStop,
) -> Iterator[str]:  # fmt: skip
    last = round_number == ROUNDS
    if params.pairs_file is not None:
        # In the last round, so that each kind of request passes through the same steps.
        if last:
            yield from requested_pairs.pairs_of_file(job_id, params.pairs_file, should_stop)
        return
    blocker, everything = blocker_of(params), params.scope == "all"
    if last:
        takes_all = everything and params.categories is None and params.sources is None
        yield from requested_pairs.blocked_pairs(
            job_id, params.blocking, blocker, everything=takes_all, should_stop=should_stop
        )
        return
    version = resolve(params.model, SCORER_ROLE).model_version_id
    scope = DueScope(everything, params.item_ids, params.categories, params.sources)
    due_items.mark_due(version, job_id, scope)
    if blocker is not None:
        # An item that can have no vector would otherwise fail again every night.
        hopeless = recently_failed()
        found = due_items.items_without_vector(blocker.model_version_id, version, job_id)
        wanted = (item_id for item_id, due in found if due or requests.item_name(item_id) not in hopeless)
        yield from requested_pairs.items_to_read(job_id, wanted, should_stop)


def keys_again(
    params: MatchingParams, job_id: uuid.UUID, failed: Iterable[str], should_stop: ShouldStop
) -> Iterator[str]:
    """Keys of the rows for what failed in another job: its items and pairs, and its file's rows as they are now."""
    with suppress(StopAskedError):
        yield from requested_pairs.what_failed(job_id, failed, params.pairs_file, should_stop)


@dataclass
class MatchingChunk:
    """What one chunk came to. ``write`` stores it and completes the counters; the caller decides in which transaction.

    Attributes:
        done: items with a vector and pairs with a score, the ``unchanged`` ones included.
        failed: (name, code, message).
        remaining: keys not looked at because the chunk was asked to stop.
        counters: see ``chunk.ScoreReport``.
        model_items: items and pairs that went through models, for ``model_seconds``.
    """

    done: int = 0
    unchanged: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    model_seconds: float = 0.0
    model_items: int = 0
    writes: list[Callable[[Connection], None]] = field(default_factory=list)

    def write(self, connection: Connection) -> None:
        """Store vectors and scores."""
        for write in self.writes:
            write(connection)


def work(
    params: MatchingParams,
    chunk_keys: Sequence[str],
    job_id: uuid.UUID,
    since: datetime,
    should_stop: Callable[[], bool],
) -> MatchingChunk:
    """Make one chunk's vectors, or score its pairs.

    Args:
        params: pinned.
        chunk_keys: from ``keys``.
        job_id: the job's.
        since: when the job began.
        should_stop: asked after every batch.
    """
    rows = requests.read(job_id, chunk_keys)
    result = MatchingChunk(failed=list(rows.broken))
    fresh_from = since if params.scope == "all" else None
    if rows.items:
        _make_vectors(result, params, rows.items, since=fresh_from, should_stop=should_stop)
    if rows.pairs and result.remaining:
        result.remaining += rows.pairs.values()
    elif rows.pairs:
        _score(result, params, rows.pairs, job_id=job_id, since=fresh_from, should_stop=should_stop)
    return result


def _make_vectors(
    result: MatchingChunk,
    params: MatchingParams,
    rows: Mapping[str, str],
    *,
    since: datetime | None,
    should_stop: Callable[[], bool],
) -> None:
    blocker = blocker_of(params)
    if blocker is None:
        return
    found = vectors_of(blocker, list(rows), since=since, should_stop=should_stop)
    result.done += len(found.vectors)
    result.unchanged += len(found.vectors) - len(found.made)
    result.failed += [(requests.item_name(item_id), *failed) for item_id, failed in found.failed.items()]
    result.remaining += [rows[item_id] for item_id in found.remaining]
    result.counters["vectors"] = len(found.made)
    result.model_seconds += found.model_seconds
    result.model_items += len(found.made)
    result.writes.append(lambda connection: found.write(connection, confirm=True))


def _score(
    result: MatchingChunk,
    params: MatchingParams,
    rows: Mapping[store.PairIds, str],
    *,
    job_id: uuid.UUID,
    since: datetime | None,
    should_stop: Callable[[], bool],
) -> None:
    report = score_pairs(scoring_method(params), list(rows), job_id=job_id, since=since, should_stop=should_stop)
    result.done += len(report.scores) + report.unchanged
    result.unchanged += report.unchanged
    result.failed += [(requests.pair_name(pair), code, message) for pair, code, message in report.failed]
    result.remaining += [rows[pair] for pair in report.remaining]
    result.model_seconds += report.model_seconds
    result.model_items += len(report.scores)

    def write(connection: Connection) -> None:
        report.write(connection)
        result.counters.update(report.counters)

    result.writes.append(write)


def finish(
    params: MatchingParams, job_id: uuid.UUID, again: Iterable[str], counters: Mapping[str, int]
) -> dict[str, Any]:
    """What was taken up counts as matched; the groups follow the scores. Safe to repeat.

    Args:
        params: pinned.
        job_id: the job's.
        again: names of what failed for a reason that passes; its items are due again.
        counters: of all chunks.
    """
    if params.model is None:
        return dict(WITHOUT_MODEL)
    failed = (requests.parse_name(name) for name in again)
    due_items.complete(job_id, sorted({item_id for ids in failed if not isinstance(ids, int) for item_id in ids}))
    requests.forget(job_id)
    names = ("pairs", "same", "same_exact", "different", "review", "unchanged")
    result: dict[str, Any] = {"model": params.model, "blocker": params.blocker}
    result |= {name: counters.get(name, 0) for name in names}
    if params.group:
        version = resolve(params.model, SCORER_ROLE).model_version_id
        result["groups"] = update_groups(version, job_id, params.grouping, params.keep)
    return result
