"""Small pictures inside a page: each is stored once, however often it is shown."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from shopvision.errors import TransientError
from shopvision.images.reader import PictureReader, PictureRequest, whole

if TYPE_CHECKING:
    from shopvision.images import Decoded, PictureDoor

SIDE_PIXELS = 180
JPEG_QUALITY = 80


def read_thumbnails(uris: Mapping[int, str], door: PictureDoor, side: int = SIDE_PIXELS) -> dict[int, str]:
    """``data:`` addresses of the pictures at ``uris`` with at most ``side`` pixels a side, under the same keys.

    A picture that cannot be read is left out, and the page shows a blank.
    """
    reader = PictureReader(door, partial(thumbnail, side=side), target=(side, side))
    places = list(dict.fromkeys(uris.values()))
    found: dict[str, str] = {}
    try:
        with reader.read([PictureRequest(key, uri) for key, uri in enumerate(places)]) as reading:
            for outcome in reading:
                if isinstance(source := whole(outcome), str):
                    found[places[outcome.key]] = source
    except TransientError:
        pass  # the page is worth having without what is away
    return {key: found[uri] for key, uri in uris.items() if uri in found}


def thumbnail(decoded: Decoded, side: int = SIDE_PIXELS) -> str:
    """The ``data:`` address of a small copy, with at most ``side`` pixels a side."""
    from PIL import Image

    scale = min(1.0, side / max(decoded.image.size))
    size = max(1, round(decoded.image.width * scale)), max(1, round(decoded.image.height * scale))
    picture = decoded.image.resize(size, Image.Resampling.BICUBIC, box=decoded.box, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
