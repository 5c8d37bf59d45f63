"""label_posts: which garments in social posts show which products? Training pairs to Postgres."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal
from uuid import UUID

from pydantic import Field, field_validator, model_validator

from shopvision.fashion.posts.rules import LabelRules
from worker.kinds import CatalogueId, ChunkResult, ItemFailed, JobKind, JobParams, StepContext, TableFile
from worker.registration import register

MOST_POSTS_SENT = 1_000  # more belong into a file


class LabelParams(JobParams):
    """Parameters of a labelling.

    Attributes:
        scope: ``changed`` leaves alone posts that these models have labelled by these rules as they are now, ``all``
            labels every post anew.
        post_ids: only these of the posts that are stored.
        posts: these posts, which are stored: ``post_id``, ``photo`` (an address) and ``products``, each with
            ``product_id``, ``thumbnail`` and perhaps ``title``.
        posts_file: those of a file: JSONL, CSV or Parquet, also .gz, under ``s3://bucket/key``,
            ``file:///folder/file`` or a path (local files below an allowed folder).
        images: what relative pictures of the file start from; by default its own folder.
        detector: ``name:tag``; by default the version that is active for ``fashion_detector`` at the start.
        classifier: ``name:tag``; by default the version that is active for ``thumbnail_classifier`` at the start.
        rules: which posts and thumbnails give pairs.
    """

    scope: Literal["changed", "all"] = "changed"
    post_ids: list[CatalogueId] | None = Field(None, min_length=1)
    posts: list[dict[str, Any]] | None = Field(None, min_length=1, max_length=MOST_POSTS_SENT)
    posts_file: TableFile | None = None
    images: str | None = None
    detector: str | None = None
    classifier: str | None = None
    rules: LabelRules = LabelRules()

    @field_validator("posts")
    @classmethod
    def _readable(cls, posts: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        from shopvision.catalogue.record_texts import RecordError, normalised
        from shopvision.errors import ItemError
        from shopvision.fashion.posts.records import post_from_record

        readable = []
        for number, record in enumerate(posts or (), 1):
            try:
                readable.append(normalised(record))
                post_from_record(readable[-1])
            except RecordError as error:
                raise ValueError(f"post {number}: {error}") from None
            except ItemError as error:
                raise ValueError(f"post {number}: {error.message}") from None
        return readable or posts

    @model_validator(mode="after")
    def _one_choice(self) -> LabelParams:
        if sum(one is not None for one in (self.post_ids, self.posts, self.posts_file)) > 1:
            raise ValueError("give one of post_ids, posts and posts_file")
        if self.images is not None and self.posts_file is None:
            raise ValueError("images goes with posts_file: say whose pictures start there")
        return self


class LabelPosts(JobKind[LabelParams]):
    """See ``shopvision.fashion.posts.job``. Keys tell posts from broken rows; failures bear names."""

    name = "label_posts"
    queue = "gpu.embed"
    chunk_size = 64  # a minute on two cores, seconds on a GPU
    params = LabelParams

    def pin(self, params: LabelParams) -> LabelParams:
        """Every chunk uses the models that were active when the job began."""
        from shopvision.fashion.posts import job

        return params.model_copy(update=job.pin(params))

    def split(self, params: LabelParams, context: StepContext) -> Iterator[str]:
        """The posts; those that come with the job are stored first."""
        from shopvision.fashion.posts import job

        return job.keys(params, context.should_stop)

    def split_again(self, params: LabelParams, failed: Iterable[str], context: StepContext) -> Iterator[str]:
        """What failed in another job."""
        from shopvision.fashion.posts import job

        return job.keys_again(params, failed, context.should_stop)

    def name_of(self, job_id: UUID, key: str) -> str:  # noqa: ARG002 - the key tells it
        """The post or row that stands behind a key."""
        from shopvision.fashion.posts import job

        return job.name_of(key)

    def run(self, params: LabelParams, keys: list[str], context: StepContext) -> ChunkResult:
        """Label one chunk's posts."""
        from shopvision.fashion.posts import job

        chunk = job.work(params, keys, context.job_id, context.should_stop)
        return ChunkResult(
            done=chunk.done,
            skipped=chunk.unchanged,
            failures=[ItemFailed(*failed) for failed in chunk.failed],
            remaining=chunk.remaining,
            counters=chunk.counters,
            write=chunk.write,
            model_seconds=chunk.model_seconds,
            model_items=chunk.model_pictures,
        )

    def finish(self, params: LabelParams, context: StepContext) -> dict[str, Any]:
        """Say what came of it, and where posts were lost."""
        from shopvision.fashion.posts import job
        from worker.ledger.progress import failure_counts, job_progress

        result = job.finish(params, job_progress(context.job_id).counters)
        return {**result, "failed": failure_counts(context.job_id)}


label_posts = register(LabelPosts())
