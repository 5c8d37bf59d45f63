"""What is asked of the pipeline for garments, and what can come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from shopvision.fashion.composition.found import FoundRegion
from shopvision.images import Box
from shopvision.images.outcome import ImageTask, Outcome

VectorKey: TypeAlias = tuple[bytes, Box, str | None]
"""What a vector is of: sha256 of a picture's bytes, box and label of the region."""


@dataclass(frozen=True, slots=True)
class RegionTask(ImageTask):
    """One picture to look at for garments.

    What ``ImageTask`` knows is known of the regions that are wanted now: where others have a vector, it knows nothing.

    Attributes:
        category: path of the picture's item.
        found: what the detector found in this picture before, region 0 first; empty where it never looked.
        found_sha256: of the bytes that it looked at.
    """

    category: str | None = None
    found: tuple[FoundRegion, ...] = ()
    found_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class EmbeddedRegions:
    """New vectors of one picture's regions; those of other regions are out of date.

    Attributes:
        image_id: of the picture.
        sha256: of its bytes.
        fingerprint: mark of its source.
        vectors: number of a region -> vector as in ``Embedded``.
        found: everything that was found in it, region 0 first; None where that is stored already.
    """

    image_id: int
    sha256: bytes
    fingerprint: str
    vectors: Mapping[int, bytes]
    found: tuple[FoundRegion, ...] | None


RegionOutcome: TypeAlias = Outcome | EmbeddedRegions


def key_of(sha256: bytes, region: FoundRegion) -> VectorKey:
    """What a region's vector is known by."""
    return sha256, region.box, region.label
