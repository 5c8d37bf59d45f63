"""Searching by photo: from a photo's bytes to the items of its three garments, by the size of the index.

One thread, on an embedded Postgres in a temporary folder. The networks have random weights; what they give is replaced,
after they ran, by three boxes and by vectors like those of the index, so that each search is an ordinary one.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Deployment, Table, progress

DIMENSION = 128
SIZES, QUICK_SIZES = (100_000, 1_000_000), (5_000,)
PHOTOS, QUICK_PHOTOS = 200, 8
WARM_UP = 3
PHOTO_PIXELS = (1536, 2048)
GARMENTS = {
    "top": (400.0, 300.0, 1100.0, 1000.0),
    "bottom": (450.0, 950.0, 1050.0, 1700.0),
    "bag": (900.0, 900.0, 1200.0, 1300.0),
}
BATCH = 50_000
FILTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "a category of five": {"category": "Men/Bottoms"},
    "a brand of a thousand": {"brands": ("brand 7",)},
    "half of the prices": {"price_to": Decimal(50)},
}


class TimedModels:
    """An encoder and a detector whose networks run, and whose answers are replaced."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        import timm
        import torch

        from shopvision.encoders.image_encoder import ImageEncoder
        from shopvision.fashion.detection.predict import Detector
        from shopvision.fashion.detection.pyramid_network import PyramidArguments, build_pyramid
        from shopvision.images.preprocessing import Preprocessing
        from shopvision.models.card import Architecture

        torch.manual_seed(0)
        cpu = torch.device("cpu")
        network = timm.create_model("efficientnet_lite0", num_classes=DIMENSION).eval()
        self.preprocessing = Preprocessing(size=(224, 224), resize_mode="squash")
        self.dimension, self.batch_size = DIMENSION, 32
        self._encoder = ImageEncoder(network, self.preprocessing, DIMENSION, device=cpu, dtype=torch.float32)
        half = (0.5, 0.5, 0.5)
        arguments = PyramidArguments(
            backbone=Architecture(name="efficientnet_lite0", arguments={"num_classes": 0}), labels=tuple(GARMENTS),
            mean=half, std=half,
        )  # fmt: skip
        self._detector = Detector(build_pyramid(arguments), device=cpu)
        self.labels, self.target, self.rules = tuple(GARMENTS), self._detector.target, self._detector.rules
        self.prepare = self._detector.prepare
        self._queries, self._next = queries, 0
        self.seconds: list[float] = []

    def detect(self, pictures: Sequence[Any]) -> list[Any]:
        from shopvision.fashion.detection.regions import Region

        started = time.perf_counter()
        self._detector.boxes(pictures)
        self.seconds.append(time.perf_counter() - started)
        regions = tuple(Region(box, label, 0.9) for label, box in GARMENTS.items())
        return [regions for _ in pictures]

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        started = time.perf_counter()
        self._encoder.encode(batch)
        self.seconds.append(time.perf_counter() - started)
        places = np.arange(self._next, self._next + len(batch)) % len(self._queries)
        self._next += len(batch)
        return self._queries[places]


def fill(count: int, vectors: NDArray[np.float16]) -> Any:
    """Items with brands and prices, their vectors, and a published index; gives the model's row."""
    from sqlalchemy import text

    from shopvision.database import connect
    from shopvision.index.publish import publish
    from tests.integration.index.catalogue import add_items, embed, make_model

    model = make_model("bench", str(count))
    add_items(0, count)
    with connect() as connection:
        connection.execute(
            text(
                "UPDATE items SET title = 'Item ' || item_id, currency = 'EUR', "
                "brand = 'brand ' || substr(item_id, 6)::int % 1000, price = (substr(item_id, 6)::int * 7919) % 100"
            )
        )
    for start in range(0, count, BATCH):
        embed(model, range(start, min(start + BATCH, count)), vectors[start : start + BATCH])
    with connect() as connection:
        connection.execute(text("ANALYZE"))
    publish("catalogue", model)
    return model


def photo(seed: int) -> bytes:
    """A JPEG of a few megapixels, with as much detail as one has."""
    from tests.made_catalogue import made_picture

    stream = io.BytesIO()
    made_picture(np.random.default_rng(seed), *PHOTO_PIXELS, patches=60).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def measure(search: Any, models: TimedModels, photos: Sequence[bytes], rows: int, name: str) -> dict[str, Any]:
    """Milliseconds of each photo, and of its steps."""
    from shopvision.search import SearchOptions

    options = SearchOptions(k=10, **FILTERS[name])
    first = search.by_photo(photos[0], options).seconds.get("filter", 0.0)
    for data in photos[:WARM_UP]:
        search.by_photo(data, options)
    models.seconds.clear()
    whole, steps = [], []
    for data in photos:
        started = time.perf_counter()
        result = search.by_photo(data, options)
        whole.append(1000 * (time.perf_counter() - started))
        steps.append({step: 1000 * seconds for step, seconds in result.seconds.items()})
    networks = 1000 * sum(models.seconds) / len(photos)

    def of(step: str, percent: float) -> float:
        return round(float(np.percentile([one.get(step, 0.0) for one in steps], percent)), 2)

    median = float(np.percentile(whole, 50))
    return {
        "vectors": rows,
        "filter": name,
        "p50_ms": round(median, 1),
        "p95_ms": round(float(np.percentile(whole, 95)), 1),
        "networks_ms": round(networks, 1),
        "p50_by_networks": round(median / networks, 2),
        "read_p50_ms": of("read", 50),
        "index_p50_ms": of("index", 50),
        "index_p95_ms": of("index", 95),
        "facts_p50_ms": of("facts", 50),
        "filter_first_ms": round(1000 * first, 1),
    }


def run(*, quick: bool) -> list[Table]:
    """Each size in a fresh deployment; the largest takes minutes and 4 GB of memory."""
    results = []
    photos = [photo(seed) for seed in range(QUICK_PHOTOS if quick else PHOTOS // 4)]
    photos = photos if quick else photos * 4
    for rows in QUICK_SIZES if quick else SIZES:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, Deployment(Path(name)).servers():
            results += _by_filter(rows, photos)
    note = (
        f"One thread; {DIMENSION} dimensions; photos of {PHOTO_PIXELS[0]} x {PHOTO_PIXELS[1]} pixels with three "
        "garments, ten items for each, from the photo's bytes on. *networks*: a detector and an encoder on "
        "EfficientNet-Lite0 alone. *index*: all three vectors; with a filter, what fits and what fills up. *facts*: "
        "one query to Postgres. *filter, first*: which pictures fit, asked once a minute."
    )
    return [Table("Search by photo", note, results)]


def _by_filter(rows: int, photos: Sequence[bytes]) -> list[dict[str, Any]]:
    from shopvision.index.faiss_library import faiss
    from shopvision.index.reader import IndexReader
    from shopvision.search import VisualSearch
    from shopvision.settings import get_settings
    from shopvision.storage import open_store
    from tests.integration.index.catalogue import clustered
    from tests.integration.search.world import let_serve

    queries = 3 * len(photos)
    everything = clustered(rows + queries, DIMENSION, clusters=max(1, rows // 20))
    model = fill(rows, everything[:rows])
    let_serve("fashion_detector", "finder")
    models = TimedModels(everything[rows:].astype(np.float32))
    faiss.omp_set_num_threads(1)
    reader = IndexReader(open_store(), "catalogue", get_settings().cache_dir / "index")
    search = VisualSearch(reader, {model.spec: models, "finder:1": models}.__getitem__)
    results = []
    for name in FILTERS:
        results.append(measure(search, models, photos, rows, name))
        progress(f"visual_search: {results[-1]}")
    return results
