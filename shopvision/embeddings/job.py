"""Embedding pictures that are new or changed, and publishing at the end: what ``tasks.refresh_embeddings`` asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sqlalchemy import Connection, func, select

from shopvision.catalogue.known_ids import require_items
from shopvision.catalogue.tables import ItemImage
from shopvision.database import among, connect
from shopvision.index.tables import Embedding, IndexGeneration

if TYPE_CHECKING:
    from shopvision.encoders.image_encoder import ImageEncoder
    from shopvision.images.outcome import Failed, Outcome
    from shopvision.models import ModelVersionRef

ROLE = "catalogue_encoder"
LEFT_ALONE = timedelta(hours=24)  # how long a run without ``verify`` leaves out what failed
PASSING = ("unavailable", "timeout")  # failures that may be over in an hour
ROWS_AT_ONCE = 10_000
MAX_COVERAGE_LOSS = 0.02  # share of the served pictures that may be missing when search moves to another model


class RefreshParams(Protocol):
    """A refresh's parameters; ``tasks.refresh_embeddings.RefreshParams`` says what they mean."""

    scope: Literal["changed", "all"]
    item_ids: list[str] | None
    verify: bool
    model: str | None
    publish: bool | None


@dataclass
class RefreshReport:
    """What one chunk came to. ``write`` stores it; the caller decides in which transaction."""

    model_version_id: int
    embedded: int = 0
    unchanged: int = 0
    model_seconds: float = 0.0
    failed: list[Failed] = field(default_factory=list)
    remaining: list[int] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def write(self, connection: Connection) -> None:
        """Upsert the vectors."""
        from shopvision.embeddings.store import write_outcomes

        write_outcomes(connection, self.model_version_id, self.outcomes)


def resolve_model(spec: str | None) -> ModelVersionRef:
    """The model version called ``spec`` (``name:tag``), or the one active for the role; see ``models.resolve``."""
    from shopvision import models

    return models.resolve(spec, ROLE)


def pin(params: RefreshParams) -> dict[str, Any]:
    """What of a job's parameters must not change while it runs, by name."""
    spec = resolve_model(params.model).spec
    return {
        "model": spec,
        "publish": spec == resolve_model(None).spec if params.publish is None else params.publish,
    }


def images_to_look_at(params: RefreshParams, recently_failed: Callable[[], Collection[str]]) -> Iterator[int]:
    """Ids of the pictures of a job, by pinned parameters, streamed.

    Args:
        params: pinned.
        recently_failed: ids, as text, of what failed within ``LEFT_ALONE`` for a reason that does not pass by itself.
    """
    only_unseen = params.scope == "changed" and not params.verify
    # A picture that is broken for good would otherwise fail again every hour.
    hopeless = set(map(int, recently_failed())) if only_unseen else set()
    ref = resolve_model(params.model)
    for image_id in images_in_scope(ref, item_ids=params.item_ids, only_unseen=only_unseen):
        if image_id not in hopeless:
            yield image_id


def work(params: RefreshParams, image_ids: Sequence[int], should_stop: Callable[[], bool]) -> RefreshReport:
    """Embed one chunk's pictures, by pinned parameters; see ``embed_images``."""
    ref = resolve_model(params.model)
    return embed_images(ref, image_ids, everything=params.scope == "all", should_stop=should_stop)


def finish(params: RefreshParams) -> dict[str, Any]:
    """Publish what changed, where that was asked for."""
    from shopvision.settings import get_settings

    if not params.publish:
        return {"published": False}
    return publish_index(get_settings().index_name, resolve_model(params.model))


def images_in_scope(
    ref: ModelVersionRef, *, item_ids: Sequence[str] | None = None, only_unseen: bool = False
) -> Iterator[int]:
    """Ids of the pictures to look at, streamed in order.

    Args:
        ref: the model version that will look.
        item_ids: only pictures of these items.
        only_unseen: only pictures that this model version has no vector of.

    Raises:
        UserError: one of ``item_ids`` is not in the catalogue.
    """
    query = select(ItemImage.image_id).order_by(ItemImage.image_id)
    if item_ids is not None:
        query = query.where(among(ItemImage.item_id, require_items(item_ids)))
    if only_unseen:
        seen = select(Embedding.image_id).where(
            Embedding.model_version_id == ref.model_version_id, Embedding.image_id == ItemImage.image_id
        )
        query = query.where(~seen.exists())
    with connect() as connection, connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}) as result:
        yield from result.scalars()


def embed_images(
    ref: ModelVersionRef, image_ids: Sequence[int], *, everything: bool, should_stop: Callable[[], bool]
) -> RefreshReport:
    """Look at some pictures and embed those that changed. No database connection is held meanwhile.

    A picture with the bytes of one that was embedded before, in any chunk or job, gets its vector.

    Args:
        ref: the model version.
        image_ids: pictures to look at; those that left the catalogue since are dropped without a word.
        everything: embed unchanged ones too, and anew.
        should_stop: asked after every batch.
    """
    from shopvision import models
    from shopvision.embeddings.store import select_tasks, vectors_of_bytes
    from shopvision.images import PictureDoor
    from shopvision.images.outcome import Embedded, Failed, ImageTask
    from shopvision.images.pipeline import EmbeddingPipeline
    from shopvision.settings import get_settings

    with connect() as connection:
        tasks = select_tasks(connection, ref.model_version_id, image_ids)
    if everything:
        tasks = [ImageTask(task.image_id, task.uri, None, None) for task in tasks]
    report = RefreshReport(ref.model_version_id)
    waiting = {task.image_id for task in tasks}
    encoder: ImageEncoder = models.load(ref.spec)

    def known_vectors(sha256s: Sequence[bytes]) -> dict[bytes, bytes]:
        if everything:
            return {}
        with connect() as connection:
            return vectors_of_bytes(connection, ref.model_version_id, sha256s)

    with PictureDoor(get_settings()) as door:
        pipeline = EmbeddingPipeline(encoder, door, known_vectors=known_vectors)
        for batch in pipeline.stream(tasks):
            for outcome in batch:
                waiting.discard(outcome.image_id)
                if isinstance(outcome, Failed):
                    report.failed.append(outcome)
                elif isinstance(outcome, Embedded):
                    report.embedded += 1
                else:
                    report.unchanged += 1
            report.outcomes.extend(batch)
            if should_stop():
                break
        report.model_seconds = pipeline.model_seconds
    report.remaining = sorted(waiting)
    return report


def publish_index(name: str, ref: ModelVersionRef) -> dict[str, Any]:
    """Publish a generation with what changed, unless search would lose pictures by moving to this model."""
    from shopvision.index.publish import publish

    if not _has_vectors(ref):
        return {"published": False, "reason": f"There is no vector of {ref.spec} yet: import a catalogue first."}
    loss = _coverage_loss(name, ref)
    if loss > MAX_COVERAGE_LOSS:
        return {
            "published": False,
            "reason": f"{ref.spec} has seen {loss:.1%} fewer pictures than the model that search uses now: "
            "search stays with that one until a refresh of the whole catalogue has finished.",
        }
    report = publish(name, ref)
    return {"published": report.path is not None, **asdict(report)}


def _has_vectors(ref: ModelVersionRef) -> bool:
    with connect() as connection:
        return bool(
            connection.scalar(
                select(select(Embedding.image_id).where(Embedding.model_version_id == ref.model_version_id).exists())
            )
        )


def _coverage_loss(name: str, ref: ModelVersionRef) -> float:
    """Share of the pictures that search finds now and would lose by moving to ``ref``; 0 for the same model."""
    with connect() as connection:
        served = connection.scalar(
            select(IndexGeneration.model_version_id).where(IndexGeneration.name == name, IndexGeneration.is_current)
        )
        if served is None or served == ref.model_version_id:
            return 0.0
        counts: dict[int, int] = dict(
            connection.execute(
                select(Embedding.model_version_id, func.count())
                .where(Embedding.model_version_id.in_([served, ref.model_version_id]))
                .group_by(Embedding.model_version_id)
            ).all()
        )
    before = counts.get(served, 0)
    return max(0.0, 1 - counts.get(ref.model_version_id, 0) / before) if before else 0.0
