"""score_pairs: which items are the same product? Scores and verdicts of pairs, and groups of items, to Postgres.

The pairs are those of a file, or those that blocking finds for items. Blocking compares vectors of the whole catalogue,
and splitting has neither a GPU nor much time; so the job has two rounds, and the vectors that are missing are made by
the chunks of the first one, with all that chunks have: several workers, leases, item failures, progress.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from worker.kinds import ChunkResult, ItemFailed, JobKind, JobParams, StepContext
from worker.registration import register

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from shopvision.matching.blocking import BlockingOptions
    from shopvision.matching.groups.components import GroupOptions
    from shopvision.matching.requested_pairs import BrokenRow
    from shopvision.matching.scoring.scoring_setup import Setup, Thresholds

T = TypeVar("T", "BlockingOptions", "GroupOptions")

PASSING = ("unavailable", "timeout")  # failures that may be over tomorrow although nothing changes here
LEFT_ALONE = timedelta(days=30)  # how long an unchanged item that could have no vector is left out
NONE = "none"
_ROW_KEY = re.compile(r"row (?P<row>\d+)(?:: (?P<code>\w+): (?P<message>.*))?", re.DOTALL)


class ThresholdParams(BaseModel):
    """Probabilities that are a verdict: of ``same`` and above, of ``different`` and below."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    same: float
    different: float


class CascadeParams(BaseModel):
    """A two-tower that decides first: what is at most ``low`` or at least ``high`` the model need not see.

    Attributes:
        model: ``name:tag``; by default the version that is active for the role ``pair_blocker``.
        low: by default its threshold for ``different``, or that of the model where it is lower.
        high: by default its threshold for ``same``, or that of the model where it is higher.
    """

    model_config = ConfigDict(extra="forbid", defer_build=True)

    model: str | None = None
    low: float | None = None
    high: float | None = None


class ScoreParams(JobParams):
    """Parameters of a matching.

    Attributes:
        scope: ``changed`` looks for equals of new and changed items among all items, ``all`` for those of every item,
            and scores and makes vectors anew.
        item_ids: for equals of these items instead, changed or not.
        pairs_file: these pairs instead, by the ids of their items: JSONL, CSV or Parquet, also .gz, under
            ``s3://bucket/key``, ``file:///folder/file`` or a path (local files below an allowed folder).
        model: ``name:tag``; by default the version that is active for the role ``pair_scorer`` at the start.
        blocker: ``name:tag`` of a two-tower whose item vectors find candidates, or ``none``; by default the version
            that is active for the role ``pair_blocker``, if there is one.
        cascade: let a two-tower decide the clear cases; see ``CascadeParams``.
        thresholds: instead of those of the model's card.
        group: bring the item groups up to date at the end; by default only where ``model`` is the active version, so
            that trying a model out never moves groups.
        blocking: fields of ``shopvision.matching.blocking.BlockingOptions``, such as ``max_per_item``.
        grouping: fields of ``shopvision.matching.groups.components.GroupOptions``.
    """

    scope: Literal["changed", "all"] = "changed"
    item_ids: list[str] | None = Field(None, min_length=1)
    pairs_file: str | None = None
    model: str | None = None
    blocker: str | None = None
    cascade: bool | CascadeParams = False
    thresholds: ThresholdParams | None = None
    group: bool | None = None
    blocking: dict[str, Any] = Field(default_factory=dict)
    grouping: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_choice(self) -> ScoreParams:
        from shopvision.matching.blocking import BlockingOptions
        from shopvision.matching.groups.components import GroupOptions

        if (self.scope == "all") + (self.item_ids is not None) + (self.pairs_file is not None) > 1:
            raise ValueError("give one of scope=all, item_ids and pairs_file")
        _options(BlockingOptions, "blocking", self.blocking)
        _options(GroupOptions, "grouping", self.grouping)
        return self


class ScorePairs(JobKind[ScoreParams]):
    """See the module's docstring.

    Item keys are JSON: ``["left","right"]`` for a pair, ids in code point order; ``["item"]`` for an item that needs a
    vector first. A row of a file that names no pair has the key ``row 17``.
    """

    name = "score_pairs"
    queue = "gpu.score"
    chunk_size = 4096  # a minute for a small one-tower on two cores, seconds on a GPU
    rounds = 2
    params = ScoreParams

    def pin(self, params: ScoreParams) -> ScoreParams:
        """Every chunk uses the models that were active when the job began.

        The routine run has nothing to do while no model serves the role; whoever asks for more gets an error.
        """
        from shopvision import models
        from shopvision.matching.scoring import scoring_setup as setup

        asked = (params.model, params.item_ids, params.pairs_file)
        active = models.serves(setup.SCORER_ROLE)
        if active is None and asked == (None, None, None) and params.scope == "changed":
            return params
        model = setup.resolve(params.model, setup.SCORER_ROLE).spec
        pinned = params.model_copy(
            update={
                "model": model,
                "blocker": _pinned_blocker(params),
                "cascade": _pinned_cascade(params),
                "group": model == active if params.group is None else params.group,
            }
        )
        _setup(pinned)
        return pinned

    def split(self, params: ScoreParams, context: StepContext) -> Iterator[str]:
        """Items that need a vector, then pairs."""
        from shopvision.matching import requested_pairs as asked
        from shopvision.matching import store
        from shopvision.matching.blocking import BlockingOptions
        from shopvision.matching.scoring import scoring_setup as setup
        from worker.ledger.progress import recently_failed

        if params.model is None:
            return
        if params.pairs_file is not None:
            # In the second round, so that each kind of request passes through the same steps.
            if context.round == self.rounds:
                yield from map(_key, asked.pairs_of_file(params.pairs_file))
            return
        blocker = None if params.blocker in {None, NONE} else setup.resolve(params.blocker, setup.BLOCKER_ROLE)
        everything = params.scope == "all"
        if context.round < self.rounds:
            ref = setup.resolve(params.model, setup.SCORER_ROLE)
            store.mark_due(ref.model_version_id, context.job_id, everything=everything, item_ids=params.item_ids)
            if blocker is not None:
                # An item that can have no vector would otherwise fail again every night.
                hopeless = recently_failed(self.name, within=LEFT_ALONE, but_not=PASSING)
                found = store.items_without_vector(blocker.model_version_id, ref.model_version_id, context.job_id)
                yield from (_ids_key(item_id) for item_id, due in found if due or _ids_key(item_id) not in hopeless)
            return
        options = _options(BlockingOptions, "blocking", params.blocking)
        yield from map(_key, asked.blocked_pairs(context.job_id, options, blocker, everything=everything))

    def run(self, params: ScoreParams, keys: list[str], context: StepContext) -> ChunkResult:
        """Make one chunk's vectors, or score its pairs."""
        from worker.ledger.progress import job_progress

        result = ChunkResult()
        items: list[str] = []
        pairs: list[tuple[str, str]] = []
        for key in keys:
            if row := _ROW_KEY.fullmatch(key):
                result.failures.append(_broken(params, row))
            elif len(ids := json.loads(key)) == 1:
                items.append(ids[0])
            else:
                pairs.append((ids[0], ids[1]))
        since = job_progress(context.job_id).created_at if params.scope == "all" else None
        writes: list[Callable[[Connection], None]] = []
        if items:
            writes.append(_make_vectors(params, items, since, context, result))
        if pairs and result.remaining:
            result.remaining += map(_key, pairs)
        elif pairs:
            writes.append(_score(params, pairs, since, context, result))

        def write_all(connection: Connection) -> None:
            for write in writes:
                write(connection)

        result.write = write_all
        return result

    def finish(self, params: ScoreParams, context: StepContext) -> dict[str, Any]:
        """What was taken up counts as matched; the groups follow the scores."""
        from shopvision.matching import store
        from shopvision.matching.groups.components import GroupOptions
        from shopvision.matching.groups.group_update import update_groups
        from shopvision.matching.scoring import scoring_setup as setup
        from worker.ledger.progress import job_progress, keys_failed_with

        if params.model is None:
            return {
                "pairs": 0,
                "reason": "No model serves the role pair_scorer, so no pair was scored: "
                "`shopvision models activate pair_scorer NAME:TAG` sets one.",
            }
        ref = setup.resolve(params.model, setup.SCORER_ROLE)
        again = {item_id for key in keys_failed_with(context.job_id, PASSING) for item_id in json.loads(key)}
        store.complete(context.job_id, sorted(again))
        progress = job_progress(context.job_id)
        result: dict[str, Any] = {
            "model": params.model,
            "blocker": params.blocker,
            **{name: progress.counters.get(name, 0) for name in ("pairs", "same", "different", "review")},
            "unchanged": progress.counters.get("unchanged", 0),
            "failed": progress.failed,
            "seconds": round(progress.seconds or 0.0, 1),
        }
        if params.group:
            options = _options(GroupOptions, "grouping", params.grouping)
            result["groups"] = update_groups(ref.model_version_id, context.job_id, options)
        return result


def _make_vectors(
    params: ScoreParams, item_ids: list[str], since: datetime | None, context: StepContext, result: ChunkResult
) -> Callable[[Connection], None]:
    from shopvision.matching import job as score
    from shopvision.matching.scoring import scoring_setup as setup
    from worker import metrics

    ref = setup.resolve(params.blocker, setup.BLOCKER_ROLE)
    found = score.vectors_of(ref, item_ids, since=since, should_stop=context.should_stop)
    metrics.observe_model_seconds(ScorePairs.name, found.model_seconds, len(found.made))
    result.done += len(found.vectors)
    result.skipped += len(found.vectors) - len(found.made)
    result.failures += [ItemFailed(_ids_key(item_id), *failed) for item_id, failed in found.failed.items()]
    result.remaining += [_ids_key(item_id) for item_id in found.remaining]
    result.counters["vectors"] = len(found.made)
    return lambda connection: found.write(connection, confirm=True)


def _score(
    params: ScoreParams,
    pairs: list[tuple[str, str]],
    since: datetime | None,
    context: StepContext,
    result: ChunkResult,
) -> Callable[[Connection], None]:
    from shopvision.matching import job as score
    from worker import metrics

    report = score.score_pairs(
        _setup(params), pairs, job_id=context.job_id, since=since, should_stop=context.should_stop
    )
    metrics.observe_model_seconds(ScorePairs.name, report.model_seconds, len(report.scores))
    result.done += len(report.scores) + report.unchanged
    result.skipped += report.unchanged
    result.failures += [ItemFailed(_ids_key(*pair), code, message) for pair, code, message in report.failed]
    result.remaining += [_ids_key(*pair) for pair in report.remaining]

    def write(connection: Connection) -> None:
        report.write(connection)
        for name, value in report.counters.items():
            result.counters[name] = value

    return write


def _setup(params: ScoreParams) -> Setup:
    from shopvision.matching.scoring import scoring_setup as setup

    ref, thresholds = setup.resolve(params.model, setup.SCORER_ROLE), _thresholds(params)
    cascade = params.cascade
    if not isinstance(cascade, CascadeParams) or cascade.low is None or cascade.high is None:
        return setup.Setup(ref, thresholds)
    first = setup.FirstStage(setup.resolve(cascade.model, setup.BLOCKER_ROLE), cascade.low, cascade.high)
    return setup.Setup(ref, thresholds, first)


def _thresholds(params: ScoreParams) -> Thresholds:
    from shopvision.matching.scoring import scoring_setup as setup

    if params.thresholds is not None:
        return setup.Thresholds(params.thresholds.same, params.thresholds.different)
    return setup.thresholds_of(setup.resolve(params.model, setup.SCORER_ROLE))


def _pinned_blocker(params: ScoreParams) -> str:
    from shopvision import models
    from shopvision.matching.blocking import BlockingOptions
    from shopvision.matching.scoring import scoring_setup as setup

    wanted = "text_vector" in _options(BlockingOptions, "blocking", params.blocking).sources
    spec = params.blocker or models.serves(setup.BLOCKER_ROLE) or NONE
    if spec == NONE or not wanted or params.pairs_file is not None:
        return NONE
    setup.require_vectors(setup.resolve(spec, setup.BLOCKER_ROLE))
    return spec


def _pinned_cascade(params: ScoreParams) -> bool | CascadeParams:
    from shopvision.matching.scoring import scoring_setup as setup

    if params.cascade is False:
        return False
    given = CascadeParams() if params.cascade is True else params.cascade
    first = setup.resolve(given.model, setup.BLOCKER_ROLE)
    setup.require_vectors(first)
    low, high = given.low, given.high
    if low is None or high is None:
        own, zone = setup.thresholds_of(first), _thresholds(params)
        low = min(own.different, zone.different) if low is None else low
        high = max(own.same, zone.same) if high is None else high
    return CascadeParams(model=first.spec, low=low, high=high)


def _options(kind: type[T], name: str, given: dict[str, Any]) -> T:
    """A dataclass of options from JSON values; a wrong one is named."""
    known = [option.name for option in fields(kind)]
    for key in given:
        if key not in known:
            raise ValueError(f"{name} has no {key!r}; it takes {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _ids_key(*item_ids: str) -> str:
    return json.dumps(item_ids, ensure_ascii=False, separators=(",", ":"))


def _key(asked: tuple[str, str] | BrokenRow) -> str:
    if isinstance(asked, tuple):
        return _ids_key(*asked)
    return f"row {asked.row}: {asked.code}: {asked.message}"


def _broken(params: ScoreParams, row: re.Match[str]) -> ItemFailed:
    # A retry knows no more than the row's number: the file has to be given again once it is mended.
    again = f"Row {row['row']} of {params.pairs_file} names no pair: mend it, and submit a job over the file."
    return ItemFailed(f"row {row['row']}", row["code"] or "broken_row", row["message"] or again)


score_pairs = register(ScorePairs())
