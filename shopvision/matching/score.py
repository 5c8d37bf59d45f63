"""One chunk of pairs scored by a pair model: what ``tasks.score_pairs`` asks for.

Items are read once, their texts tokenised once, and vectors kept from former chunks are used again. Pairs of which
neither item changed since the same model scored them in the same way are left alone.
"""

from __future__ import annotations

import hashlib
import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from shopvision.matching import store
from shopvision.matching.item_vectors import ItemVectors, item_vectors
from shopvision.matching.store import CatalogueItems, PairIds, ScoredPair

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from shopvision.matching.predict import PairScorer
    from shopvision.matching.setup import Setup
    from shopvision.models import ModelVersionRef

BATCH_PAIRS = 1024  # between looks at whether to stop


@dataclass
class ScoreReport:
    """What one chunk came to. ``write`` stores scores and vectors; the caller decides in which transaction.

    Attributes:
        scores: pairs with a verdict.
        unchanged: pairs left alone.
        failed: (pair, code, message).
        remaining: pairs not scored because the chunk was asked to stop.
        counters: pairs (that were settled), unchanged, vectors (made), first_stage (decided by the cascade's first
            model), and, once written, same, different, review and changed_meanwhile.
        model_seconds: time that items and pairs spent in models.
    """

    setup: Setup
    job_id: uuid.UUID
    read: CatalogueItems
    scores: list[ScoredPair] = field(default_factory=list)
    unchanged: int = 0
    failed: list[tuple[PairIds, str, str]] = field(default_factory=list)
    remaining: list[PairIds] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    model_seconds: float = 0.0
    vectors: list[ItemVectors] = field(default_factory=list)

    def write(self, connection: Connection) -> None:
        """Store the scores and count the verdicts."""
        for vectors in self.vectors:
            vectors.write(connection)
        written = store.write_scores(connection, self.setup.ref.model_version_id, self.job_id, self.read, self.scores)
        for verdict in ("same", "different", "review"):
            self.counters[verdict] = sum(score.verdict == verdict for score in written)
        self.counters["changed_meanwhile"] = len(self.scores) - len(written)


@lru_cache(maxsize=3)
def _scorer(spec: str) -> PairScorer:
    """Loaded once per process and kept: loading costs seconds, a chunk not much more."""
    from shopvision import models
    from shopvision.matching.predict import PairScorer

    return PairScorer(models.local_copy(models.find(spec)))


def vectors_of(
    ref: ModelVersionRef, item_ids: Sequence[str], *, since: datetime | None, should_stop: Callable[[], bool]
) -> ItemVectors:
    """The vectors of some items, by which blocking finds their neighbours; items that left the catalogue are dropped.

    Args:
        ref: a two-tower.
        since: make those anew that are older.
        should_stop: asked after every batch of items.
    """
    read = store.read_items(item_ids)
    return item_vectors(_scorer(ref.spec), ref.model_version_id, read, read.items, since=since, should_stop=should_stop)


def score_pairs(
    setup: Setup,
    pairs: Sequence[PairIds],
    *,
    job_id: uuid.UUID,
    since: datetime | None,
    should_stop: Callable[[], bool],
) -> ScoreReport:
    """Score some pairs. No database connection is held while a model computes.

    Args:
        setup: the models, and what their probabilities mean.
        pairs: ids in code point order, no pair twice. Those of items that left the catalogue are dropped.
        job_id: noted with each score.
        since: score every pair, and make vectors anew that are older; None leaves alone what is unchanged.
        should_stop: asked after every batch of items or pairs.
    """
    read = store.read_items(item_id for pair in pairs for item_id in pair)
    report = ScoreReport(setup, job_id, read)
    waiting = _without_unchanged(report, pairs, everything=since is not None)
    if setup.first is not None:
        doubtful: list[PairIds] = []
        for batch, probabilities in _stage(setup.first.ref, waiting, report, since, should_stop):
            clear = (probabilities <= setup.first.low) | (probabilities >= setup.first.high)
            _decide(report, list(compress(batch, clear)), probabilities[clear])
            doubtful += compress(batch, ~clear)
        report.counters["first_stage"] = len(report.scores)
        waiting = doubtful
    for batch, probabilities in _stage(setup.ref, waiting, report, since, should_stop):
        _decide(report, batch, probabilities)
    report.counters["vectors"] = sum(len(found.made) for found in report.vectors)
    report.counters["unchanged"] = report.unchanged
    report.counters["pairs"] = report.unchanged + len(report.scores) + len(report.failed)
    return report


def _without_unchanged(report: ScoreReport, pairs: Sequence[PairIds], *, everything: bool) -> list[PairIds]:
    items = report.read.items
    live = [pair for pair in pairs if pair[0] in items and pair[1] in items]
    if everything:
        return live
    before = store.scored_before(report.setup.ref.model_version_id, live)
    changed = [pair for pair in live if before.get(pair) != _input_hash(report, pair)]
    report.unchanged = len(live) - len(changed)
    return changed


def _input_hash(report: ScoreReport, pair: PairIds) -> bytes:
    hashes = report.read.hashes
    return hashlib.sha256(hashes[pair[0]] + hashes[pair[1]] + report.setup.options).digest()


def _stage(
    ref: ModelVersionRef,
    pairs: Sequence[PairIds],
    report: ScoreReport,
    since: datetime | None,
    should_stop: Callable[[], bool],
) -> Iterator[tuple[list[PairIds], NDArray[np.float32]]]:
    """Batches of pairs with one model's probabilities; pairs that fail and those left over are noted in the report."""
    scorer, read = _scorer(ref.spec), report.read
    fit = _without(report, pairs, _speechless(scorer, read, _ids(pairs)))
    vectors: Mapping[str, bytes] | None = None
    if scorer.vector_dimension is not None and fit:
        found = item_vectors(scorer, ref.model_version_id, read, _ids(fit), since=since, should_stop=should_stop)
        report.vectors.append(found)
        report.model_seconds += found.model_seconds
        if found.remaining:
            report.remaining += fit
            return
        fit = _without(report, fit, found.failed)
        vectors = found.vectors
    for start in range(0, len(fit), BATCH_PAIRS):
        if start and should_stop():
            report.remaining += fit[start:]
            return
        batch = fit[start : start + BATCH_PAIRS]
        started = time.perf_counter()
        probabilities = _probabilities(scorer, batch, read, vectors)
        report.model_seconds += time.perf_counter() - started
        yield batch, probabilities


def _probabilities(
    scorer: PairScorer, pairs: Sequence[PairIds], read: CatalogueItems, vectors: Mapping[str, bytes] | None
) -> NDArray[np.float32]:
    ids = _ids(pairs)
    place = {item_id: number for number, item_id in enumerate(ids)}
    left, right = (np.array([place[pair[side]] for pair in pairs], np.int64) for side in (0, 1))
    matrix = None
    if vectors is not None:
        matrix = np.stack([np.frombuffer(vectors[item_id], "<f2") for item_id in ids]).astype(np.float32)
    return scorer.score([read.items[item_id] for item_id in ids], left, right, matrix)


def _decide(report: ScoreReport, pairs: Sequence[PairIds], probabilities: NDArray[np.float32]) -> None:
    thresholds = report.setup.thresholds
    for pair, probability in zip(pairs, probabilities.tolist(), strict=True):
        if not math.isfinite(probability):
            report.failed.append((pair, "bad_score", f"The model gives {pair[0]!r} and {pair[1]!r} no finite score."))
            continue
        report.scores.append(ScoredPair(pair, probability, thresholds.verdict(probability), _input_hash(report, pair)))


def _without(report: ScoreReport, pairs: Sequence[PairIds], failed: Mapping[str, tuple[str, str]]) -> list[PairIds]:
    """The pairs of which neither item failed; the others fail for the reason of the first that did."""
    rest = []
    for pair in pairs:
        culprit = next((item_id for item_id in pair if item_id in failed), None)
        if culprit is None:
            rest.append(pair)
        else:
            report.failed.append((pair, *failed[culprit]))
    return rest


def _speechless(scorer: PairScorer, read: CatalogueItems, item_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Items of which a model that reads nothing but texts has nothing to read."""
    if scorer.needs_picture:
        return {}
    items = (read.items[item_id] for item_id in item_ids)
    return {
        item.item_id: ("no_text", f"Item {item.item_id!r} has no title, attributes or description: give it some.")
        for item in items
        if not (item.title or item.attributes or item.description)
    }


def _ids(pairs: Iterable[PairIds]) -> list[str]:
    return list(dict.fromkeys(item_id for pair in pairs for item_id in pair))
