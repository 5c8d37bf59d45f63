"""Pictures of items through the picture door, decoded in threads ahead of the model that reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from shopvision.errors import ItemError
from shopvision.images.door import PictureDoor
from shopvision.images.preprocessing import prepare
from shopvision.settings import get_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shopvision.images.preprocessing import Preprocessing
    from shopvision.matching.records import Item

THREADS = 8  # most of them wait for a remote source most of the time
ITEMS_AT_ONCE = 256


def read_pictures(
    items: Sequence[Item], preprocessing: Preprocessing
) -> Iterator[tuple[slice, list[NDArray[np.uint8] | None]]]:
    """The pictures of items, in batches; while one batch is worked on, the next is fetched and decoded.

    Yields:
        The batch's place among ``items``, and its prepared pictures, None for items without one.

    Raises:
        ItemError: a picture cannot be read; the message names the item.
    """
    with PictureDoor(get_settings()) as door, ThreadPoolExecutor(THREADS, "pictures") as threads:

        def read(item: Item) -> NDArray[np.uint8] | None:
            if not item.picture:
                return None
            try:
                return prepare(door.fetch(item.picture).data, preprocessing, door.limits)
            except ItemError as error:
                raise ItemError(error.code, f"Item {item.item_id!r}: {error.message}") from None

        places = [slice(start, start + ITEMS_AT_ONCE) for start in range(0, len(items), ITEMS_AT_ONCE)]
        ahead = threads.map(read, items[places[0]]) if places else iter(())
        for number, place in enumerate(places):
            pictures = list(ahead)
            if number + 1 < len(places):
                ahead = threads.map(read, items[places[number + 1]])
            yield place, pictures
