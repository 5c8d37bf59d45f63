"""What is asked of the pipeline for one picture, and what can come of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One picture to look at.

    Attributes:
        image_id: its row in ``item_images``.
        uri: ``file://``, ``s3://`` or ``https://``.
        known_fingerprint: mark of the source when it was last embedded; None if it never was.
        known_sha256: of the bytes that were last embedded, 32 bytes.
    """

    image_id: int
    uri: str
    known_fingerprint: str | None = None
    known_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """A new vector: ``vector`` is little-endian float16 of unit length, two bytes per dimension.

    Attributes:
        pixels: width times height of the picture; None where nobody noted it.
    """

    image_id: int
    sha256: bytes
    fingerprint: str
    vector: bytes
    pixels: int | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The source bears the known fingerprint; its bytes were not even read."""

    image_id: int


@dataclass(frozen=True, slots=True)
class Touched:
    """Another fingerprint, the same bytes: only the fingerprint is worth storing."""

    image_id: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Failed:
    """This picture cannot be embedded; ``code`` is short and stable, ``message`` is for people."""

    image_id: int
    code: str
    message: str


Outcome = Embedded | Unchanged | Touched | Failed
