"""refresh_embeddings: what does every catalogue picture look like now? Vectors to Postgres, then a new index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import model_validator

from worker.kinds import CatalogueId, ChunkResult, ItemFailed, JobKind, JobParams, StepContext
from worker.registration import register


class RefreshParams(JobParams):
    """Parameters of a refresh.

    Attributes:
        scope: ``changed`` embeds what is new or changed since this model last saw it, ``all`` embeds everything anew.
        item_ids: only the pictures of these items.
        verify: with ``changed``, also look at the source of every known picture; without, only at pictures that this
            model has never seen (cheap, for hourly runs).
        role: whose active version embeds: ``catalogue_encoder`` (what looks alike), the default, or ``image_recall``
            (what a text says). Each has an index of its own.
        model: ``name:tag`` of any image tower that can serve one of these roles, instead.
        publish: move the role's index to the new vectors at the end; by default only where ``model`` is the active
            version, so that trying a model out never moves search.
    """

    scope: Literal["changed", "all"] = "changed"
    item_ids: list[CatalogueId] | None = None
    verify: bool = True
    role: Literal["catalogue_encoder", "image_recall"] | None = None
    model: str | None = None
    publish: bool | None = None

    @model_validator(mode="after")
    def _some_items(self) -> RefreshParams:
        if self.role is not None and self.model is not None:
            raise ValueError("give role or model: a model's kind says whose index its vectors are for")
        if self.item_ids is not None and not self.item_ids:
            raise ValueError("item_ids is empty: leave it out to refresh the whole catalogue")
        return self


class RefreshEmbeddings(JobKind[RefreshParams]):
    """See the module's docstring. Item keys are ``image_id`` values."""

    name = "refresh_embeddings"
    queue = "gpu.embed"
    finish_queue = "index"
    chunk_size = 512  # whole batches; a larger one saves under 1 % and keeps a second worker waiting
    params = RefreshParams

    def pin(self, params: RefreshParams) -> RefreshParams:
        """Every chunk uses the model that was active when the job began, even if another is activated meanwhile."""
        from shopvision.embeddings import job

        return params.model_copy(update=job.pin(params))

    def split(self, params: RefreshParams, context: StepContext) -> Iterator[str]:  # noqa: ARG002 - has one round
        """Ids of the pictures to look at."""
        from shopvision.embeddings import job
        from worker.ledger.progress import recently_failed

        def hopeless() -> set[str]:
            return recently_failed(self.name, within=job.LEFT_ALONE, but_not=job.PASSING)

        return map(str, job.images_to_look_at(params, hopeless))

    def run(self, params: RefreshParams, keys: list[str], context: StepContext) -> ChunkResult:
        """Embed one chunk's pictures."""
        from shopvision.embeddings import job

        def next_ids() -> list[int] | None:
            keys = context.next_keys()
            return None if keys is None else [int(key) for key in keys]

        report = job.work(params, [int(key) for key in keys], context.should_stop, next_ids, context.begun)
        return ChunkResult(
            done=report.embedded + report.unchanged,
            skipped=report.unchanged,
            failures=[ItemFailed(str(failed.image_id), failed.code, failed.message) for failed in report.failed],
            remaining=[str(image_id) for image_id in report.remaining],
            counters={"embedded": report.embedded} | report.counters,
            write=report.write,
            model_seconds=report.model_seconds,
            model_items=report.embedded,
            reading_seconds=report.reading_seconds,
            begun=report.begun,
        )

    def finish(self, params: RefreshParams, context: StepContext) -> dict[str, Any]:  # noqa: ARG002 - nothing to stop here
        """Publish what changed."""
        from shopvision.embeddings import job

        return job.finish(params)


refresh_embeddings = register(RefreshEmbeddings())
