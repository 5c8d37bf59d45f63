"""Small pictures of parts for a page that shows garments; what several parts are cut from is read once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shopvision.errors import TransientError
from shopvision.images.reader import PictureReader, PictureRequest, ReadPicture
from shopvision.reports.thumbnails import SIDE_PIXELS, thumbnail

if TYPE_CHECKING:
    from shopvision.images import Box, PictureDoor

WHOLE: Box = (0.0, 0.0, 1e9, 1e9)  # what lies outside of a picture is left out


def read_cutouts(parts: Mapping[str, tuple[str, Box]], door: PictureDoor) -> dict[str, str]:
    """``data:`` addresses of parts of pictures, under the same keys; those that cannot be read are left out.

    Args:
        parts: key -> address, and box in pixels of the upright picture at full scale, or ``WHOLE``.
        door: that the pictures come through.
    """
    by_address: dict[str, list[str]] = {}
    for key, (address, _) in parts.items():
        by_address.setdefault(address, []).append(key)
    groups = list(by_address.items())
    requests = [
        PictureRequest(number, address, regions=tuple(parts[key][1] for key in keys))
        for number, (address, keys) in enumerate(groups)
    ]
    reader = PictureReader(door, thumbnail, target=(SIDE_PIXELS, SIDE_PIXELS))
    found: dict[str, str] = {}
    try:
        with reader.read(requests) as reading:
            for outcome in reading:
                if isinstance(outcome, ReadPicture):
                    made = zip(groups[outcome.key][1], outcome.parts, strict=True)
                    found |= {key: source for key, source in made if isinstance(source, str)}
    except TransientError:
        pass  # the page is worth having without what is away
    return found
