"""Made-up work for networks of pictures: batches that are ready, or pictures that are decoded on the way."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from shopvision.encoders.tuning.record import Setting
from shopvision.images.preprocessing import Preprocessing, prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A shop's picture of middling size: about half a megapixel.
SIZE = (720, 720)
AHEAD = 2  # batches that are decoded before they are needed, as readers of pictures do


def picture_trial(
    run: Callable[[NDArray[np.uint8]], object], preprocessing: Preprocessing, setting: Setting, work: int
) -> Callable[[], None]:
    """Something that runs a network on ``work`` pictures in batches, decoding them meanwhile if the setting says so."""
    pictures = np.random.default_rng(0).integers(0, 256, (setting.batch_size, *preprocessing.size, 3), np.uint8)
    batches = max(1, work // setting.batch_size)
    if setting.decoding_threads is None:

        def compute() -> None:
            for _ in range(batches):
                run(pictures)

        return compute

    encoded, threads = _jpeg(), setting.decoding_threads

    def decode_and_compute() -> None:
        stopped = threading.Event()

        def decode(_: int) -> NDArray[np.uint8] | None:
            return None if stopped.is_set() else prepare(encoded, preprocessing)

        with ThreadPoolExecutor(threads, "decoding") as pool:
            coming: list[Future[NDArray[np.uint8] | None]] = []
            numbers = itertools.count()
            wanted = batches * setting.batch_size
            try:
                for batch in range(batches):
                    ahead = min(wanted, (batch + 1 + AHEAD) * setting.batch_size)
                    coming += [pool.submit(decode, next(numbers)) for _ in range(ahead - len(coming))]
                    first = batch * setting.batch_size
                    ready = [one.result() for one in coming[first : first + setting.batch_size]]
                    run(np.stack([one for one in ready if one is not None]))
            finally:
                stopped.set()

    return decode_and_compute


def made_pictures(count: int, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """(count, H, W, 3) prepared pictures, the same each time."""
    return np.stack([prepare(_jpeg(seed), preprocessing) for seed in range(count)])


def _jpeg(seed: int = 0) -> bytes:
    """A picture with about as much in it as a photo."""
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()
