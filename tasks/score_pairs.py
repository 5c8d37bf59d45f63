"""score_pairs: which items are the same product? Scores and verdicts of pairs, and groups of items, to Postgres."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal
from uuid import UUID

from pydantic import Field, model_validator

from shopvision.matching.options import BlockingOptions, CascadeOptions, GroupOptions, KeepOptions, Thresholds
from worker.kinds import CatalogueId, ChunkResult, ItemFailed, JobKind, JobParams, StepContext, TableFile
from worker.registration import register


class ScoreParams(JobParams):
    """Parameters of a matching.

    Attributes:
        scope: ``changed`` looks for equals of new and changed items among all items, ``all`` for those of every item,
            and scores and makes vectors anew.
        item_ids: for equals of these items instead, changed or not.
        categories: only for equals of items of these categories, each with all below it.
        sources: only for equals of items that come from these.
        pairs_file: these pairs instead, by the ids of their items: JSONL, CSV or Parquet, also .gz, under
            ``s3://bucket/key``, ``file:///folder/file`` or a path (local files below an allowed folder).
        model: ``name:tag``; by default the version that is active for the role ``pair_scorer`` at the start.
        blocker: ``name:tag`` of a two-tower whose item vectors find candidates, or ``none``; by default the version
            that is active for the role ``pair_blocker``, if there is one.
        cascade: let a two-tower decide the clear cases.
        thresholds: instead of those of the model's card.
        group: bring the item groups up to date at the end; by default only where ``model`` is the active version, so
            that trying a model out never moves groups.
        blocking: how candidates are found.
        grouping: how careful groups are.
        keep: which item of a group to keep.
    """

    scope: Literal["changed", "all"] = "changed"
    item_ids: list[CatalogueId] | None = Field(None, min_length=1)
    categories: list[str] | None = Field(None, min_length=1)
    sources: list[str] | None = Field(None, min_length=1)
    pairs_file: TableFile | None = None
    model: str | None = None
    blocker: str | None = None
    cascade: bool | CascadeOptions = False
    thresholds: Thresholds | None = None
    group: bool | None = None
    blocking: BlockingOptions = BlockingOptions()
    grouping: GroupOptions = GroupOptions()
    keep: KeepOptions = KeepOptions()

    @model_validator(mode="after")
    def _one_choice(self) -> ScoreParams:
        if (self.scope == "all") + (self.item_ids is not None) + (self.pairs_file is not None) > 1:
            raise ValueError("give one of scope=all, item_ids and pairs_file")
        if (self.categories or self.sources) and (self.item_ids or self.pairs_file):
            raise ValueError("categories and sources choose items: leave them out beside item_ids and pairs_file")
        return self


class ScorePairs(JobKind[ScoreParams]):
    """See ``shopvision.matching.job``. Keys are numbers of rows that it stages; failures bear names."""

    name = "score_pairs"
    queue = "gpu.score"
    chunk_size = 4096  # a minute for a small one-tower on two cores, seconds on a GPU
    rounds = 2
    params = ScoreParams

    def pin(self, params: ScoreParams) -> ScoreParams:
        """Every chunk uses the models that were active when the job began."""
        from shopvision.matching import job

        return params.model_copy(update=job.pin(params))

    def split(self, params: ScoreParams, context: StepContext) -> Iterator[str]:
        """Items that need a vector, then pairs."""
        from shopvision.matching import job
        from worker.ledger.progress import recently_failed

        def hopeless() -> set[str]:
            return recently_failed(self.name, within=job.LEFT_ALONE, but_not=job.PASSING)

        return job.keys(params, context.job_id, context.round, hopeless, context.should_stop)

    def split_again(self, params: ScoreParams, failed: Iterable[str], context: StepContext) -> Iterator[str]:
        """What failed in another job."""
        from shopvision.matching import job

        return job.keys_again(params, context.job_id, failed, context.should_stop)

    def name_of(self, job_id: UUID, key: str) -> str:
        """The item, pair or row that stands behind a key."""
        from shopvision.matching import job

        return job.name_of(job_id, key)

    def run(self, params: ScoreParams, keys: list[str], context: StepContext) -> ChunkResult:
        """Make one chunk's vectors, or score its pairs."""
        from shopvision.matching import job
        from worker.ledger.progress import job_progress

        began = job_progress(context.job_id).created_at
        chunk = job.work(params, keys, context.job_id, began, context.should_stop)
        return ChunkResult(
            done=chunk.done,
            skipped=chunk.unchanged,
            failures=[ItemFailed(*failed) for failed in chunk.failed],
            remaining=chunk.remaining,
            counters=chunk.counters,
            write=chunk.write,
            model_seconds=chunk.model_seconds,
            model_items=chunk.model_items,
        )

    def finish(self, params: ScoreParams, context: StepContext) -> dict[str, Any]:
        """What was taken up counts as matched; the groups follow the scores."""
        from shopvision.matching import job
        from worker.ledger.progress import job_progress, keys_failed_with

        progress = job_progress(context.job_id)
        result = job.finish(params, context.job_id, keys_failed_with(context.job_id, job.PASSING), progress.counters)
        return {**result, "failed": progress.failed, "seconds": round(progress.seconds or 0.0, 1)}


score_pairs = register(ScorePairs())
