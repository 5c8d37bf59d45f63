"""Small pictures inside a page: each is stored once, however often it is shown."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from shopvision.errors import ItemError, TransientError

if TYPE_CHECKING:
    from shopvision.images import PictureDoor

SIDE_PIXELS = 180
JPEG_QUALITY = 80
THREADS = 8  # most of them wait for a remote source most of the time


class Thumbnails:
    """Collects ``image_id -> data: address``; a picture that cannot be read is left out and the page shows a blank."""

    def __init__(self, door: PictureDoor) -> None:
        self._door = door
        self.sources: dict[int, str] = {}

    def add_all(self, uris: Mapping[int, str]) -> None:
        """Several at once, ``image_id -> uri``."""
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(self.add, uris.keys(), uris.values()))

    def add(self, image_id: int, uri: str) -> None:
        """Fetch and shrink one picture, unless it is there already."""
        from PIL import Image

        from shopvision.images import decode

        if image_id in self.sources:
            return
        try:
            picture = decode(self._door.fetch(uri).data, target=(SIDE_PIXELS, SIDE_PIXELS))
        except (ItemError, TransientError):
            return
        picture.thumbnail((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
        self.sources[image_id] = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
