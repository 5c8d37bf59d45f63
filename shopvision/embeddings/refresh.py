"""Embedding some pictures with a model version: whole ones with an image encoder, garments with a composed one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from shopvision.database import connect, is_passing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from shopvision.embeddings.composition import Composition
    from shopvision.embeddings.region_tasks import RegionOutcome, VectorKey
    from shopvision.fashion.composition.found import FoundRegion
    from shopvision.images import PictureDoor
    from shopvision.images.outcome import Failed
    from shopvision.models import ModelVersionRef

    Write = Callable[[Connection, Sequence[RegionOutcome]], int]


@dataclass
class RefreshReport:
    """What one chunk came to. ``write`` stores it; the caller decides in which transaction.

    Attributes:
        embedded: pictures with new vectors.
        unchanged: pictures that were left as they are.
        model_seconds: that networks took.
        reading_seconds: what pictures took, by what it was: ``wait``, ``fetch``, ``decode``.
        counters: numbers that are summed over a job.
        failed: pictures without a vector, and why.
        remaining: pictures that were not looked at, because somebody asked to stop.
        outcomes: what is to be written.
        begun: the chunk that comes next, its pictures on their way.
    """

    _write: Write
    embedded: int = 0
    unchanged: int = 0
    model_seconds: float = 0.0
    reading_seconds: dict[str, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    failed: list[Failed] = field(default_factory=list)
    remaining: list[int] = field(default_factory=list)
    outcomes: list[RegionOutcome] = field(default_factory=list)
    begun: BegunRefresh | None = None

    def write(self, connection: Connection) -> None:
        """Upsert the vectors, and what was found in the pictures."""
        self._write(connection, self.outcomes)

    def take(self, outcomes: Iterable[RegionOutcome]) -> None:
        """Count outcomes, and keep them to be written."""
        from shopvision.embeddings.region_tasks import EmbeddedRegions
        from shopvision.images.outcome import Embedded, Failed

        for outcome in outcomes:
            self.outcomes.append(outcome)
            if isinstance(outcome, Failed):
                self.failed.append(outcome)
            elif isinstance(outcome, Embedded | EmbeddedRegions):
                self.embedded += 1
            else:
                self.unchanged += 1


class BegunRefresh:
    """Some pictures on their way to a model. A context manager; leaving it stops the threads and closes the door.

    Attributes:
        tasks: what is looked at.
    """

    def __init__(self, ref: ModelVersionRef, image_ids: Sequence[int], *, everything: bool) -> None:
        """Begin to read; see ``embed_images``."""
        from shopvision.embeddings.composition import composition_of
        from shopvision.images import PictureDoor
        from shopvision.settings import get_settings

        composition = composition_of(ref)
        with ExitStack() as stack:
            door = stack.enter_context(PictureDoor(get_settings()))
            self._way = (
                _whole_pictures(ref, door, image_ids, everything=everything)
                if composition is None
                else _garments(ref, composition, door, image_ids, everything=everything)
            )
            self.tasks = self._way.tasks
            self._reading = stack.enter_context(self._way.pipeline.begin(self.tasks))
            self._open = stack.pop_all()

    @property
    def are_all_begun(self) -> bool:
        """Whether no picture waits any more to be read."""
        return bool(self._reading.are_all_begun)

    def outcomes(self) -> Iterator[Sequence[RegionOutcome]]:
        """One outcome per task, in lists: one per model run, or earlier where sources are slow."""
        yield from self._way.pipeline.outcomes(self._reading)

    def report(self, outcomes: Iterable[RegionOutcome]) -> RefreshReport:
        """What some outcomes come to, and the time that everything has taken until now."""
        report = RefreshReport(self._way.write)
        report.take(outcomes)
        report.model_seconds = self._way.pipeline.model_seconds
        report.reading_seconds = self._way.pipeline.reading_seconds
        report.counters = self._way.count(report.outcomes)
        return report

    def close(self) -> None:
        """Stop."""
        self._open.close()

    def __enter__(self) -> BegunRefresh:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def embed_images(
    ref: ModelVersionRef,
    image_ids: Sequence[int],
    *,
    everything: bool,
    should_stop: Callable[[], bool],
    next_ids: Callable[[], Sequence[int] | None] = lambda: None,
    begun: BegunRefresh | None = None,
) -> RefreshReport:
    """Look at some pictures and embed those that changed. No database connection is held meanwhile.

    A picture with the bytes of one that was embedded before, in any chunk or job, gets its vector, and what a detector
    found in it before is not looked for again.

    Args:
        ref: the model version.
        image_ids: pictures to look at; those that left the catalogue since are dropped without a word.
        everything: embed unchanged ones too, and anew.
        should_stop: asked after every batch.
        next_ids: what comes after these pictures, or None; asked when all of these are being read, so that the first
            of those are there when the model is done with the last of these. The report then holds what was begun.
        begun: these pictures, where they were begun in this way.
    """
    outcomes: list[RegionOutcome] = []
    with ExitStack() as undone, begun or BegunRefresh(ref, image_ids, everything=everything) as current:
        waiting = {task.image_id for task in current.tasks}
        following: BegunRefresh | None = None
        for batch in current.outcomes():
            outcomes += batch
            waiting.difference_update(outcome.image_id for outcome in batch)
            if should_stop():
                break
            if following is None and current.are_all_begun and (ids := next_ids()) is not None:
                following = _begun_ahead(ref, ids, everything=everything)
                if following is not None:
                    undone.push(following)
        report = current.report(outcomes)
        report.remaining = sorted(waiting)
        report.begun = following
        undone.pop_all()
    return report


def _begun_ahead(ref: ModelVersionRef, image_ids: Sequence[int], *, everything: bool) -> BegunRefresh | None:
    """What can be begun now; a database that is away for a moment concerns these pictures only when they are due."""
    try:
        return BegunRefresh(ref, image_ids, everything=everything)
    except Exception as error:
        if is_passing(error):
            return None
        raise


@dataclass(frozen=True)
class _Way:
    """How pictures are looked at.

    Attributes:
        tasks: what to look at.
        pipeline: how.
        write: stores outcomes.
        count: what is told of them beside.
    """

    tasks: Sequence[Any]
    pipeline: Any
    write: Write
    count: Callable[[Sequence[RegionOutcome]], dict[str, int]] = lambda _: {}


def _whole_pictures(ref: ModelVersionRef, door: PictureDoor, image_ids: Sequence[int], *, everything: bool) -> _Way:
    from shopvision import models
    from shopvision.embeddings.precision import precision_of
    from shopvision.embeddings.store import select_tasks, vectors_of_bytes, write_outcomes
    from shopvision.images.outcome import ImageTask
    from shopvision.images.pipeline import EmbeddingPipeline

    version = ref.model_version_id
    with connect() as connection:
        tasks = select_tasks(connection, version, image_ids)
    if everything:
        tasks = [ImageTask(task.image_id, task.uri, None, None) for task in tasks]

    def known_vectors(sha256s: Sequence[bytes]) -> dict[bytes, bytes]:
        if everything:
            return {}
        with connect() as connection:
            return vectors_of_bytes(connection, version, sha256s, precision)

    def write(connection: Connection, outcomes: Sequence[Any]) -> int:
        return write_outcomes(connection, version, outcomes, precision)

    encoder = models.load(ref.spec)
    precision = precision_of(encoder)
    return _Way(tasks, EmbeddingPipeline(encoder, door, known_vectors=known_vectors), write)


def _garments(
    ref: ModelVersionRef, composition: Composition, door: PictureDoor, image_ids: Sequence[int], *, everything: bool
) -> _Way:
    from shopvision import models
    from shopvision.embeddings import region_store
    from shopvision.embeddings.precision import precision_of
    from shopvision.embeddings.region_pipeline import RegionPipeline
    from shopvision.embeddings.region_tasks import EmbeddedRegions

    with connect() as connection:
        tasks = region_store.select_region_tasks(connection, composition, image_ids, everything=everything)

    def known_regions(sha256s: Sequence[bytes]) -> Mapping[bytes, tuple[FoundRegion, ...]]:
        with connect() as connection:
            return region_store.regions_of_bytes(connection, composition, sha256s)

    def known_vectors(sha256s: Sequence[bytes]) -> Mapping[VectorKey, bytes]:
        if everything:
            return {}
        with connect() as connection:
            return region_store.vectors_of_regions(connection, composition, sha256s, precision)

    def write(connection: Connection, outcomes: Sequence[RegionOutcome]) -> int:
        return region_store.write_region_outcomes(connection, composition, outcomes, precision)

    def count(outcomes: Sequence[RegionOutcome]) -> dict[str, int]:
        return {
            "regions": sum(len(one.vectors) for one in outcomes if isinstance(one, EmbeddedRegions)),
            "detected": pipeline.detected,
            "detector_seconds": round(pipeline.detector_seconds),
        }

    encoder = models.load(ref.spec)
    precision = precision_of(encoder)
    pipeline = RegionPipeline(encoder, door, known_regions=known_regions, known_vectors=known_vectors)
    return _Way(tasks, pipeline, write, count)
