"""refresh_embeddings: what does every catalogue picture look like now? Vectors to Postgres, then a new index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, Literal

from pydantic import model_validator

from worker.kinds import ChunkResult, ItemFailed, JobKind, JobParams, StepContext
from worker.registration import register

LEFT_ALONE = timedelta(hours=24)  # how long a run without ``verify`` leaves out what failed
PASSING = ("unavailable", "timeout")  # failures that may be over in an hour


class RefreshParams(JobParams):
    """Parameters of a refresh.

    Attributes:
        scope: ``changed`` embeds what is new or changed since this model last saw it, ``all`` embeds everything anew.
        item_ids: only the pictures of these items.
        verify: with ``changed``, also look at the source of every known picture; without, only at pictures that this
            model has never seen (cheap, for hourly runs).
        model: ``name:tag``; by default the version that is active for the role ``catalogue_encoder`` at the start.
        publish: move the index to the new vectors at the end; by default only where ``model`` is the active version, so
            that trying a model out never moves search.
    """

    scope: Literal["changed", "all"] = "changed"
    item_ids: list[str] | None = None
    verify: bool = True
    model: str | None = None
    publish: bool | None = None

    @model_validator(mode="after")
    def _some_items(self) -> RefreshParams:
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
        from shopvision.embeddings import job as refresh

        spec = refresh.resolve_model(params.model).spec
        publish = spec == refresh.resolve_model(None).spec if params.publish is None else params.publish
        return params.model_copy(update={"model": spec, "publish": publish})

    def split(self, params: RefreshParams, context: StepContext) -> Iterator[str]:  # noqa: ARG002 - has one round
        """Ids of the pictures to look at."""
        from shopvision.embeddings import job as refresh
        from worker.ledger.progress import recently_failed

        only_unseen = params.scope == "changed" and not params.verify
        # A picture that is broken for good would otherwise fail again every hour.
        hopeless = recently_failed(self.name, within=LEFT_ALONE, but_not=PASSING) if only_unseen else set()
        image_ids: Iterable[int] = refresh.images_in_scope(
            refresh.resolve_model(params.model), item_ids=params.item_ids, only_unseen=only_unseen
        )
        return (key for key in map(str, image_ids) if key not in hopeless)

    def run(self, params: RefreshParams, keys: list[str], context: StepContext) -> ChunkResult:
        """Embed one chunk's pictures."""
        from shopvision.embeddings import job as refresh
        from worker import metrics

        ref = refresh.resolve_model(params.model)
        report = refresh.embed_images(
            ref, [int(key) for key in keys], everything=params.scope == "all", should_stop=context.should_stop
        )
        metrics.observe_model_seconds(self.name, report.model_seconds, report.embedded)
        return ChunkResult(
            done=report.embedded + report.unchanged,
            skipped=report.unchanged,
            failures=[ItemFailed(str(failed.image_id), failed.code, failed.message) for failed in report.failed],
            remaining=[str(image_id) for image_id in report.remaining],
            counters={"embedded": report.embedded},
            write=report.write,
        )

    def finish(self, params: RefreshParams, context: StepContext) -> dict[str, Any]:  # noqa: ARG002 - nothing to stop here
        """Publish what changed."""
        from shopvision.embeddings import job as refresh
        from shopvision.settings import get_settings

        if not params.publish:
            return {"published": False}
        return refresh.publish_index(get_settings().index_name, refresh.resolve_model(params.model))


refresh_embeddings = register(RefreshEmbeddings())
