"""Pictures to garments to vectors, in one pass over the pixels.

Threads fetch, decode and prepare ahead; the detector gets pictures by shape, other threads cut garments out, and the
encoder gets full batches of crops, of however many pictures. What is known of the same bytes is done once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from shopvision.embeddings.crop_batches import CropBatches, WaitingPicture
from shopvision.embeddings.region_reading import Looked, RegionReader
from shopvision.embeddings.region_tasks import RegionOutcome, RegionTask, VectorKey
from shopvision.errors import ItemError
from shopvision.fashion.composition.colour import region_colours
from shopvision.fashion.composition.found import WHOLE, FoundRegion, single_box, size_of
from shopvision.fashion.composition.policy import LEAST_SCORE, MOST_REGIONS
from shopvision.fashion.composition.wanted import wanted_regions
from shopvision.fashion.detection.regions import RegionRules
from shopvision.images.made_vectors import Recent, as_stored
from shopvision.images.reader import THREADS, ReadPicture
from shopvision.images.task_reading import TaskReading, by_address, failed, is_known, known

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.fashion.composition.predict import ComposedEncoder
    from shopvision.images.door import PictureDoor

Found: TypeAlias = tuple[FoundRegion, ...]
KnownRegions: TypeAlias = Callable[[Sequence[bytes]], Mapping[bytes, Found]]
"""sha256 of pictures' bytes -> what the detector found in them before, region 0 first."""
KnownRegionVectors: TypeAlias = Callable[[Sequence[bytes]], Mapping[VectorKey, bytes]]
"""sha256 of pictures' bytes -> the vectors that there are of their regions."""
_Read: TypeAlias = tuple[ReadPicture[Looked], Sequence[RegionTask]]

# What is stored of a picture does not depend on the policy, so that encoders with one detector share it.
STORED = RegionRules(score=LEAST_SCORE)
# Batches of the detector that are read before it begins: pictures of one shape then find each other.
DETECTED_AT_ONCE = 2


class RegionPipeline:
    """Pictures to vectors of the garments in them. One instance serves one process.

    Attributes:
        model_seconds: that networks took, all of them.
        reading_seconds: what pictures took in the last ``outcomes``; see ``TaskReading.seconds``.
        detector_seconds: that the detector took.
        detected: pictures that it looked at.
    """

    def __init__(
        self,
        encoder: ComposedEncoder,
        door: PictureDoor,
        *,
        threads: int = THREADS,
        known_regions: KnownRegions = lambda _: {},
        known_vectors: KnownRegionVectors = lambda _: {},
    ) -> None:
        """Tie a composed encoder to the door that pictures come through.

        Args:
            encoder: the model.
            door: open for as long as pictures are read.
            threads: that fetch and decode, and as many that cut garments out.
            known_regions: asked before each run of the detector.
            known_vectors: asked before garments are cut out.
        """
        self.encoder = encoder
        self.model_seconds = self.detector_seconds = 0.0
        self.reading_seconds: dict[str, float] = {}
        self.detected = 0
        self._door, self._threads = door, threads
        self._at_once = DETECTED_AT_ONCE * encoder.detector.batch_size
        self._known_regions, self._known_vectors = known_regions, known_vectors
        self._found: Recent[bytes, Found | ItemError] = Recent()
        self._vectors: Recent[VectorKey, bytes | None] = Recent()

    def stream(self, tasks: Sequence[RegionTask]) -> Iterator[list[RegionOutcome]]:
        """One outcome per task, in any order, in lists; see ``outcomes``. Closing the generator stops the threads."""
        with self.begin(tasks) as reading:
            yield from self.outcomes(reading)

    def begin(self, tasks: Sequence[RegionTask]) -> TaskReading[Looked, RegionTask]:
        """Begin to fetch, decode and prepare, as far ahead as the pipeline does; no network does anything yet."""
        groups = by_address(tasks)
        ahead = 2 * self._at_once + self._threads
        reader = RegionReader(self._door, self.encoder, groups, threads=self._threads, ahead=ahead)
        return TaskReading(reader, groups)

    def outcomes(self, reading: TaskReading[Looked, RegionTask]) -> Iterator[list[RegionOutcome]]:
        """One outcome per task that was begun, in lists.

        Crops wait for a full batch of the encoder as long as pictures come fast enough.

        Raises:
            TransientError: a source is away for the moment; outcomes already given out stay valid.
            JobError: a model cannot run.
        """
        batches = CropBatches()
        with ThreadPoolExecutor(self._threads, "crops") as pool:
            while reading.missing or batches.are_awaited:
                settled, pictures = reading.gather(self._at_once)
                self.reading_seconds = reading.seconds
                outcomes: list[RegionOutcome] = [*settled, *self._prepare(pictures, batches, pool)]
                least = self.encoder.batch_size if len(pictures) == self._at_once else 1
                while batches.crops >= least:
                    self._encode(batches)
                    # After each batch, so that somebody who asks to stop waits for one batch at most.
                    yield outcomes + batches.finished()
                    outcomes = []
                yield outcomes + batches.finished()

    def _prepare(
        self, pictures: Sequence[_Read], batches: CropBatches, pool: ThreadPoolExecutor
    ) -> list[RegionOutcome]:
        """Find and cut out garments; what they are not wanted of is settled."""
        outcomes: list[RegionOutcome] = []
        new: list[_Read] = []
        for picture, tasks in pictures:
            settled = [known(task, picture.fingerprint) for task in tasks if is_known(task, picture.sha256)]
            outcomes += settled
            if len(settled) < len(tasks):
                new.append((picture, tasks))
        found, fresh = self._find(new)
        waiting: list[tuple[ReadPicture[Looked], WaitingPicture]] = []
        for picture, tasks in new:
            others = [task for task in tasks if not is_known(task, picture.sha256)]
            regions = found[picture.sha256]
            if isinstance(regions, ItemError):
                outcomes += [failed(task, regions) for task in others]
            else:
                wanted = [(task, self._wanted(regions, task.category)) for task in others]
                waiting.append((picture, WaitingPicture(picture.sha256, picture.fingerprint, regions, wanted)))
        self._cut([(looked_at(picture), one) for picture, one in waiting], fresh, batches, pool)
        return outcomes

    def _wanted(self, found: Found, category: str | None) -> tuple[int, ...]:
        garments = found[WHOLE + 1 :]
        return wanted_regions(self.encoder.policy, self.encoder.classes, garments, size_of(found), category)

    def _find(self, pictures: Sequence[_Read]) -> tuple[dict[bytes, Found | ItemError], set[bytes]]:
        """What was found in pictures, by sha256, and of which of them nobody knew; those have no colours yet."""
        found: dict[bytes, Found | ItemError] = {}
        for picture, tasks in pictures:
            for task in tasks:
                if task.found_sha256 == picture.sha256:
                    found[picture.sha256] = task.found
        found |= self._found.known(sha256 for sha256 in _sha256s(pictures) if sha256 not in found)
        unknown = {picture.sha256: looked_at(picture) for picture, _ in pictures if picture.sha256 not in found}
        if unknown:
            found |= self._known_regions(list(unknown))
        fresh = {sha256: looked for sha256, looked in unknown.items() if sha256 not in found}
        found |= self._detect(fresh)
        self._found.note(found)
        return found, fresh.keys() & {sha256 for sha256, one in found.items() if not isinstance(one, ItemError)}

    def _detect(self, pictures: Mapping[bytes, Looked]) -> dict[bytes, Found | ItemError]:
        found: dict[bytes, Found | ItemError] = {
            sha256: (whole_region(looked.kept.size),) for sha256, looked in pictures.items()
        }
        inputs = {sha256: looked.inputs for sha256, looked in pictures.items() if looked.inputs is not None}
        if not inputs:
            return found
        started = time.perf_counter()
        results = self.encoder.detector.detect(list(inputs.values()), STORED)
        seconds = time.perf_counter() - started
        self.detector_seconds += seconds
        self.model_seconds += seconds
        self.detected += len(inputs)
        for sha256, regions in zip(inputs, results, strict=True):
            if isinstance(regions, ItemError):
                found[sha256] = regions
            else:
                garments = (FoundRegion(single_box(one.box), one.label, one.score) for one in regions[:MOST_REGIONS])
                found[sha256] = (whole_region(pictures[sha256].kept.size), *garments)
        return found

    def _cut(
        self,
        pictures: Sequence[tuple[Looked, WaitingPicture]],
        fresh: set[bytes],
        batches: CropBatches,
        pool: ThreadPoolExecutor,
    ) -> None:
        """Cut out what has no vector yet, and tell the colours of what was found just now."""
        keys = {key for _, picture in pictures for key in picture.keys if key not in batches}
        vectors: dict[VectorKey, bytes | None] = self._vectors.known(keys)
        # Of what nobody had looked at, nobody has vectors either.
        if unknown := {key[0] for key in keys - vectors.keys()} - fresh:
            vectors |= self._known_vectors(list(unknown))
        batches.note(vectors)

        jobs: list[_Cutting] = []
        begun: set[VectorKey] = set()
        for looked, picture in pictures:
            missing = {key for key in picture.keys - begun if key not in batches}
            begun |= missing
            jobs.append(_Cutting(looked, picture, missing, picture.sha256 in fresh))
        for picture, crops in pool.map(self._cut_one, jobs):
            self._found.note({picture.sha256: picture.found})
            for key, crop in crops.items():
                batches.add(key, crop)
            batches.wait(picture)

    def _cut_one(self, job: _Cutting) -> tuple[WaitingPicture, dict[VectorKey, NDArray[np.uint8]]]:
        crops = {key: self.encoder.prepare_crop(job.looked.kept, key[1]) for key in job.missing}
        if not job.is_fresh:
            return job.picture, crops
        return replace(job.picture, found=coloured(job.looked, job.picture.found)), crops

    def _encode(self, batches: CropBatches) -> None:
        """Run the encoder on one batch."""
        crops = batches.take(self.encoder.batch_size)
        started = time.perf_counter()
        vectors = self.encoder.encode(np.stack(list(crops.values())), [label for _, _, label in crops])
        self.model_seconds += time.perf_counter() - started
        made = dict(zip(crops, as_stored(vectors), strict=True))
        self._vectors.note(made)
        batches.note(made)


@dataclass(frozen=True, slots=True)
class _Cutting:
    """What a thread cuts out of one picture: what is ``missing``; and whether it tells colours."""

    looked: Looked
    picture: WaitingPicture
    missing: set[VectorKey]
    is_fresh: bool


def looked_at(picture: ReadPicture[Looked]) -> Looked:
    """What was made of a picture that could be read."""
    (looked,) = picture.parts
    if isinstance(looked, ItemError):
        raise looked
    return looked


def whole_region(size: tuple[int, int]) -> FoundRegion:
    """Region 0 of a picture of ``size`` (width, height)."""
    return FoundRegion((0.0, 0.0, float(size[0]), float(size[1])))


def coloured(looked: Looked, found: Found) -> Found:
    """The same regions with their colours."""
    colours = region_colours(looked.kept, [region.box for region in found])
    return tuple(replace(region, colour=colour) for region, colour in zip(found, colours, strict=True))


def _sha256s(pictures: Sequence[_Read]) -> set[bytes]:
    return {picture.sha256 for picture, _ in pictures}
