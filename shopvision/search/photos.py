"""Photos to search with: read, decoded once for detector and crops, and kept small until their vectors are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

from shopvision.errors import ItemError
from shopvision.fashion.detection.predict import PreparedPicture
from shopvision.images import Decoded, FetchedPicture
from shopvision.images.given import OwnFilesDoor
from shopvision.images.reader import PictureReader, PictureRequest, Reading
from shopvision.images.reducing import reduced
from shopvision.images.transfer import check_length
from shopvision.settings import Settings, get_settings

Photo: TypeAlias = bytes | str | Path
"""An encoded picture, a path, or an address (``https://``, ``s3://``, ``file://``: the rules of the picture door
apply)."""

PHOTOS_AT_ONCE = 8
KEPT_PIXELS = 2**22  # of one photo, until its garments are cut out: 12 MiB


@dataclass(frozen=True, slots=True)
class ReadPhoto:
    """A photo before the models.

    Attributes:
        decoded: its pixels.
        prepared: as the detector reads it; None where there is none, or nothing is to be detected.
    """

    decoded: Decoded
    prepared: PreparedPicture | ItemError | None


class _PhotoDoor(OwnFilesDoor):
    """A door that also knows the bytes that the caller holds."""

    def __init__(self, settings: Settings, photos: Sequence[Photo]) -> None:
        super().__init__(settings)
        self._given = {_address(place, photo): photo for place, photo in enumerate(photos) if isinstance(photo, bytes)}
        self._limits_of_bytes = settings

    def fetch(self, uri: str) -> FetchedPicture:
        data = self._given.get(uri)
        if data is None:
            return super().fetch(uri)
        check_length(self._limits_of_bytes, len(data), "The photo")
        return FetchedPicture(data, sha256(data).digest(), "")


def _address(place: int, photo: Photo) -> str:
    return f"photo {place}" if isinstance(photo, bytes) else str(photo)


@contextmanager
def reading(
    photos: Sequence[Photo], target: tuple[int, int], prepare: Callable[[Decoded], PreparedPicture] | None
) -> Iterator[Reading[ReadPhoto]]:
    """Read photos ahead of whoever takes them, in their order.

    Args:
        photos: to read.
        target: (height, width) to decode them for.
        prepare: makes of each what the detector reads; without it there is nothing to detect.
    """

    def keep(decoded: Decoded) -> ReadPhoto:
        kept = reduced(decoded, target, KEPT_PIXELS)
        if prepare is None:
            return ReadPhoto(kept, None)
        try:
            return ReadPhoto(kept, prepare(kept))
        except ItemError as error:
            return ReadPhoto(kept, error)

    with _PhotoDoor(get_settings(), photos) as door:
        reader = PictureReader(door, keep, target=target, ahead=PHOTOS_AT_ONCE)
        requests = [PictureRequest(place, _address(place, photo)) for place, photo in enumerate(photos)]
        with reader.read(requests, in_order=True) as result:
            yield result
