"""select_images: which pictures should represent an item? Found by its text, ranked by clicks. To Postgres."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, model_validator

from worker.kinds import CatalogueId, ChunkResult, ItemFailed, JobKind, JobParams, StepContext
from worker.registration import register

MOST_URGENT_ITEMS = 100  # so many named items are taken for urgent: their pictures are selected in seconds


class SelectParams(JobParams):
    """Parameters of a selection.

    Attributes:
        scope: ``changed`` looks at items of which anything differs from what these models last selected from (record,
            pictures, parameters), ``all`` at every item.
        item_ids: only these items, changed or not.
        library: look also at the pictures of other items that show what the item's text says.
        top_k: best pictures kept of each item.
        most_found: so many pictures of the library at most for one item, those of its own category first.
        least_score: cosine from which on a picture of the library is taken; by default the recall model's own.
        nearly_same: of pictures whose vectors have a larger cosine, or that have equal bytes, the best one is kept.
        recall: ``name:tag``; by default the version that is active for the role ``image_recall`` at the start.
        ranker: ``name:tag``; by default the version that is active for the role ``image_ranker`` at the start. Where
            none is, pictures are ordered by how well they show the text.
        urgent: go before other jobs; by default where ``item_ids`` names at most 100 items.
    """

    scope: Literal["changed", "all"] = "changed"
    item_ids: list[CatalogueId] | None = Field(None, min_length=1)
    library: bool = False
    top_k: int = Field(10, ge=1, le=1_000)
    most_found: int = Field(100, ge=1, le=1_000)
    least_score: float | None = Field(None, ge=-1, le=1)
    nearly_same: float = Field(0.98, gt=0, le=1)
    recall: str | None = None
    ranker: str | None = None
    urgent: bool | None = None

    @model_validator(mode="after")
    def _one_choice(self) -> SelectParams:
        if self.item_ids is not None and self.scope == "all":
            raise ValueError("give either scope=all or item_ids: items that are named are looked at, changed or not")
        if self.least_score is not None and not self.library:
            raise ValueError("least_score goes with library=true: an item's own pictures count whatever they show")
        return self


class SelectImages(JobKind[SelectParams]):
    """See ``shopvision.selection.item_pictures.job``. Item keys are ``item_id`` values."""

    name = "select_images"
    queue = "gpu.rank"
    chunk_size = 256
    params = SelectParams

    def urgent(self, params: SelectParams) -> bool:
        """A few items that somebody names are waited for."""
        if params.urgent is not None:
            return params.urgent
        return params.item_ids is not None and len(params.item_ids) <= MOST_URGENT_ITEMS

    def pin(self, params: SelectParams) -> SelectParams:
        """Every chunk uses the models that were active when the job began."""
        from shopvision.selection.item_pictures import job

        return params.model_copy(update=job.pin(params))

    def split(self, params: SelectParams, context: StepContext) -> Iterable[str]:
        """Ids of the items to look at."""
        from shopvision.selection.item_pictures import job

        return job.items_in_scope(params, context.should_stop)

    def run(self, params: SelectParams, keys: list[str], context: StepContext) -> ChunkResult:
        """Select the pictures of one chunk's items."""
        from shopvision.selection.item_pictures import job

        report = job.work(params, keys, job_id=context.job_id, should_stop=context.should_stop)
        return ChunkResult(
            done=report.selected,
            failures=[ItemFailed(*failed) for failed in report.failed],
            remaining=report.remaining,
            counters=report.counters,
            write=report.write,
            model_seconds=report.model_seconds,
            model_items=report.model_items,
        )

    def finish(self, params: SelectParams, context: StepContext) -> dict[str, Any]:
        """Say what came of it."""
        from shopvision.selection.item_pictures import job
        from worker.ledger.progress import job_progress

        if params.recall is None:
            return dict(job.WITHOUT_MODEL)
        progress = job_progress(context.job_id)
        models = {"recall": params.recall, "ranker": params.ranker, "method": job.method_of(params)}
        return {**models, "items": progress.done, "failed": progress.failed, **progress.counters}


select_images = register(SelectImages())
