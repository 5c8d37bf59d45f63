"""One chunk of pairs scored by a pair model: what ``job.work`` asks for.

Items are read once, their texts tokenised once, and vectors kept from former chunks are used again. Pairs of which
neither item changed since the same model scored them in the same way are left alone.
"""

from __future__ import annotations

import hashlib
import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import compress
from operator import not_
from typing import TYPE_CHECKING

import numpy as np

from shopvision import models
from shopvision.errors import ItemError
from shopvision.evaluation.calibration import verdicts
from shopvision.matching import store
from shopvision.matching.exact_matches import exact_matches
from shopvision.matching.scoring.cascade import Cascade
from shopvision.matching.scoring.item_vectors import ItemVectors, item_vectors
from shopvision.matching.scoring.score_file import NOTHING_IN_COMMON
from shopvision.matching.store import CatalogueItems, PairIds, ScoreRow

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shopvision.matching.pinning import ScoringMethod
    from shopvision.matching.scoring.predict import BaseScorer
    from shopvision.models import ModelVersionRef


@dataclass
class ScoreReport:
    """What one chunk came to. ``write`` stores scores and vectors; the caller decides in which transaction.

    Attributes:
        scores: pairs with a verdict.
        unchanged: pairs left alone.
        failed: (pair, code, message).
        remaining: pairs not scored because the chunk was asked to stop.
        counters: pairs (that were settled), unchanged, vectors (made), passed_on (by a cascade's first model to the
            second), and, once written, same, different, review, same_exact (those of same that have something exactly)
            and changed_meanwhile.
        model_seconds: time that items and pairs spent in models.
    """

    method: ScoringMethod
    job_id: uuid.UUID
    read: CatalogueItems
    scores: list[ScoreRow] = field(default_factory=list)
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
        written = store.write_scores(connection, self.method.ref.model_version_id, self.job_id, self.read, self.scores)
        for verdict in ("same", "different", "review"):
            self.counters[verdict] = sum(score.verdict == verdict for score in written)
        self.counters["same_exact"] = sum(score.verdict == "same" and bool(score.exact) for score in written)
        self.counters["changed_meanwhile"] = len(self.scores) - len(written)


def _scorers(method: ScoringMethod) -> dict[str, BaseScorer]:
    """The models that are asked, by ``name:tag``."""
    return {ref.spec: models.load(ref.spec) for ref in method.models}


def _combined(method: ScoringMethod, scorers: dict[str, BaseScorer]) -> BaseScorer:
    scorer = scorers[method.ref.spec]
    if method.first is None:
        return scorer
    zone = {"different": method.thresholds.different, "same": method.thresholds.same}
    return Cascade(scorers[method.first.ref.spec], scorer, method.first.low, method.first.high, thresholds=zone)


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
    scorer: BaseScorer = models.load(ref.spec)
    return item_vectors(scorer, ref.model_version_id, read, read.items, since=since, should_stop=should_stop)


def score_pairs(
    method: ScoringMethod,
    pairs: Sequence[PairIds],
    *,
    job_id: uuid.UUID,
    since: datetime | None,
    should_stop: Callable[[], bool],
) -> ScoreReport:
    """Score some pairs. No database connection is held while a model computes.

    Args:
        method: the models, and what their probabilities mean.
        pairs: ids in code point order, no pair twice. Those of items that left the catalogue are dropped.
        job_id: noted with each score.
        since: score every pair, and make vectors anew that are older; None leaves alone what is unchanged.
        should_stop: asked after every batch of items or pairs.
    """
    read = store.read_items(item_id for pair in pairs for item_id in pair)
    report = ScoreReport(method, job_id, read)
    waiting = _without_unchanged(report, pairs, everything=since is not None)
    scorers = _scorers(method)
    scorer = _combined(method, scorers)
    waiting = _without(report, waiting, _refused(scorer, read, _ids(waiting)))
    waiting = _with_something_in_common(report, waiting, scorer)
    for ref in method.models:
        if scorers[ref.spec].vector_dimension is not None and waiting:
            waiting = _with_vectors(report, ref, scorers[ref.spec], waiting, since=since, should_stop=should_stop)
    if waiting:
        _score(report, scorer, waiting, should_stop)
    report.counters["vectors"] = sum(len(found.made) for found in report.vectors)
    report.counters["unchanged"] = report.unchanged
    report.counters["pairs"] = report.unchanged + len(report.scores) + len(report.failed)
    return report


def _without_unchanged(report: ScoreReport, pairs: Sequence[PairIds], *, everything: bool) -> list[PairIds]:
    items = report.read.items
    live = [pair for pair in pairs if pair[0] in items and pair[1] in items]
    if everything:
        return live
    before = store.scored_before(report.method.ref.model_version_id, live)
    changed = [pair for pair in live if before.get(pair) != _input_hash(report, pair)]
    report.unchanged = len(live) - len(changed)
    return changed


def _input_hash(report: ScoreReport, pair: PairIds) -> bytes:
    hashes = report.read.hashes
    return hashlib.sha256(hashes[pair[0]] + hashes[pair[1]] + report.method.options).digest()


def _with_vectors(
    report: ScoreReport,
    ref: ModelVersionRef,
    scorer: BaseScorer,
    pairs: Sequence[PairIds],
    *,
    since: datetime | None,
    should_stop: Callable[[], bool],
) -> list[PairIds]:
    """The pairs of which both items have a vector of one model; the others fail, or are left over."""
    found = item_vectors(scorer, ref.model_version_id, report.read, _ids(pairs), since=since, should_stop=should_stop)
    report.vectors.append(found)
    report.model_seconds += found.model_seconds
    if found.remaining:
        report.remaining += pairs
        return []
    return _without(report, pairs, found.failed)


def _score(report: ScoreReport, scorer: BaseScorer, pairs: Sequence[PairIds], should_stop: Callable[[], bool]) -> None:
    items = _ids(pairs)
    place = {item_id: number for number, item_id in enumerate(items)}
    left, right = (np.array([place[pair[side]] for pair in pairs], np.int64) for side in (0, 1))
    vectors = None
    if report.vectors:
        rows = [b"".join(found.vectors[item_id] for found in report.vectors) for item_id in items]
        vectors = np.frombuffer(b"".join(rows), "<f2").reshape(len(items), -1).astype(np.float32)
    stop = _Remembered(should_stop)
    started = time.perf_counter()
    scores = scorer.score([report.read.items[item] for item in items], left, right, vectors, should_stop=stop)
    report.model_seconds += time.perf_counter() - started
    if isinstance(scorer, Cascade):
        report.counters["passed_on"] = scorer.passed_on
    zone = report.method.thresholds
    decided = verdicts(scores, same=zone.same, different=zone.different).tolist()
    exact = exact_matches(report.read.items, pairs)
    for pair, probability, verdict in zip(pairs, scores.tolist(), decided, strict=True):
        if math.isfinite(probability):
            row = ScoreRow(pair, probability, verdict, _input_hash(report, pair), exact.get(pair, ()))
            report.scores.append(row)
        elif stop.said:
            report.remaining.append(pair)
        else:
            message = f"The model gives {pair[0]!r} and {pair[1]!r} no finite score: try another version of it."
            report.failed.append((pair, "bad_score", message))


class _Remembered:
    """Whether it was ever asked to stop: pairs without a score were not reached then, else the model failed them."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self.said = False

    def __call__(self) -> bool:
        self.said = self.said or self._should_stop()
        return self.said


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


def _with_something_in_common(report: ScoreReport, pairs: Sequence[PairIds], scorer: BaseScorer) -> list[PairIds]:
    """The pairs of which one model reads both items; the others fail."""
    items = _ids(pairs)
    place = {item_id: number for number, item_id in enumerate(items)}
    left, right = (np.array([place[pair[side]] for pair in pairs], np.int64) for side in (0, 1))
    readable = scorer.readable_pairs([report.read.items[item] for item in items], left, right).tolist()
    for pair in compress(pairs, map(not_, readable)):
        report.failed.append((pair, "nothing_in_common", f"{pair[0]!r} and {pair[1]!r}: {NOTHING_IN_COMMON}."))
    return list(compress(pairs, readable))


def _refused(scorer: BaseScorer, read: CatalogueItems, item_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Items that give the model nothing to read."""
    refused = {}
    for item_id in item_ids:
        try:
            scorer.check(read.items[item_id])
        except ItemError as error:
            refused[item_id] = (error.code, error.message)
    return refused


def _ids(pairs: Iterable[PairIds]) -> list[str]:
    return list(dict.fromkeys(item_id for pair in pairs for item_id in pair))
