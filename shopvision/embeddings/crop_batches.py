"""Crops that wait for the encoder, and pictures that wait for the vectors of their crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shopvision.embeddings.region_tasks import EmbeddedRegions, RegionOutcome, RegionTask, VectorKey, key_of
from shopvision.fashion.composition.found import FoundRegion
from shopvision.images.task_reading import without_vector

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class WaitingPicture:
    """A picture whose garments are known and cut out.

    Attributes:
        sha256: of its bytes.
        fingerprint: mark of its source.
        found: everything that was found in it.
        wanted: the tasks that name it, each with the numbers of the regions that it wants a vector of.
    """

    sha256: bytes
    fingerprint: str
    found: tuple[FoundRegion, ...]
    wanted: Sequence[tuple[RegionTask, tuple[int, ...]]]

    @property
    def keys(self) -> set[VectorKey]:
        """Of the vectors that it waits for."""
        return {key_of(self.sha256, self.found[number]) for _, numbers in self.wanted for number in numbers}


class CropBatches:
    """Fills the encoder's batches with crops of many pictures."""

    def __init__(self) -> None:
        self._crops: dict[VectorKey, NDArray[np.uint8]] = {}
        self._waiting: list[WaitingPicture] = []
        self._vectors: dict[VectorKey, bytes | None] = {}

    @property
    def are_awaited(self) -> bool:
        """Whether a picture waits."""
        return bool(self._waiting)

    @property
    def crops(self) -> int:
        """How many wait for the encoder."""
        return len(self._crops)

    def __contains__(self, key: VectorKey) -> bool:
        """Whether there is a crop of it, or its vector."""
        return key in self._crops or key in self._vectors

    def add(self, key: VectorKey, crop: NDArray[np.uint8]) -> None:
        """A crop that is to be encoded."""
        self._crops[key] = crop

    def wait(self, picture: WaitingPicture) -> None:
        """Let a picture wait for its vectors."""
        self._waiting.append(picture)

    def take(self, most: int) -> dict[VectorKey, NDArray[np.uint8]]:
        """The crops that wait for longest."""
        keys = list(self._crops)[:most]
        return {key: self._crops.pop(key) for key in keys}

    def note(self, vectors: Mapping[VectorKey, bytes | None]) -> None:
        """Vectors that there are now; None where the model gives none."""
        self._vectors |= vectors

    def finished(self) -> list[RegionOutcome]:
        """Outcomes of the pictures that have all their vectors; they wait no more."""
        outcomes: list[RegionOutcome] = []
        still: list[WaitingPicture] = []
        needed: set[VectorKey] = set()
        for picture in self._waiting:
            keys = picture.keys
            if keys <= self._vectors.keys():
                outcomes += [self._outcome(picture, task, numbers) for task, numbers in picture.wanted]
            else:
                still.append(picture)
                needed |= keys
        self._waiting = still
        self._vectors = {key: vector for key, vector in self._vectors.items() if key in needed}
        return outcomes

    def _outcome(self, picture: WaitingPicture, task: RegionTask, numbers: Sequence[int]) -> RegionOutcome:
        vectors = {number: self._vectors[key_of(picture.sha256, picture.found[number])] for number in numbers}
        good = {number: vector for number, vector in vectors.items() if vector is not None}
        # Garments that the model cannot place are looked at again with the next look at the picture.
        if not good:
            return without_vector(task)
        # Where the same bytes were looked at twice, by two workers at once, the last bits and so the order may differ:
        # whoever writes it puts these numbers and those of what is stored together.
        is_stored = task.found_sha256 == picture.sha256 and task.found == picture.found
        found = None if is_stored else picture.found
        return EmbeddedRegions(task.image_id, picture.sha256, picture.fingerprint, good, found)
