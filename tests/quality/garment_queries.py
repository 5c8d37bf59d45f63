"""Photos of a street in which a garment of a shop's catalogue is worn: made, because no real ones are at hand.

The garment's own catalogue photo, without its white ground, is pasted over a garment of its class in a street photo: as
large as that one's box, a little larger or smaller, in other light, and the photo is saved as JPEG. So where the
garment is, is known exactly. It is easier than life in one way: the garment has no other folds and is seen from the
same side. It is harder in another: what the catalogue shows of people (a head, hands) is pasted along with it.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from shopvision.fashion.detection.coco import DetectionData
from shopvision.images import Box

CLASSES = {
    "bag": ("Handbags", "Backpacks", "Clutches", "Laptop Bag", "Duffel Bag", "Messenger Bag"),
    "bottom": ("Trousers", "Jeans", "Shorts", "Track Pants", "Skirts", "Capris", "Leggings"),
    "dress": ("Dresses",),
    "hat": ("Caps",),
    "outer": ("Jackets",),
    "shoes": ("Casual Shoes", "Sports Shoes", "Formal Shoes", "Heels", "Sandals", "Flats"),
    "top": ("Tshirts", "Shirts", "Tops", "Sweatshirts"),
}
# Of each class in the catalogue: there are five times as many tops as shoes otherwise.
MOST_OF_A_CLASS = 200
# A ground is white where all channels are above, and a photo is on white ground where so much of its edge is.
WHITE, LEAST_WHITE_EDGE = 238, 0.6
# Larger or smaller than the box that it is pasted at.
SIZES = (0.9, 1.2)
LIGHT = (0.8, 1.2)
JPEG_QUALITY = 90
LEAST_SIDE = 24


@dataclass(frozen=True)
class Query:
    """A made photo.

    Attributes:
        photo: number of the street photo.
        image: the pixels.
        box: of the pasted garment in it.
        label: its class.
        row: of the garment in the catalogue.
    """

    photo: int
    image: Image.Image
    box: Box
    label: str
    row: int


def read_catalogue(myntra: Path) -> list[tuple[Path, str]]:
    """Photos of garments, and their classes: of each class at most so many, in the order of their ids."""
    class_of = {article: name for name, articles in CLASSES.items() for article in articles}
    found: defaultdict[str, list[Path]] = defaultdict(list)
    with (myntra / "styles.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (name := class_of.get(row["articleType"])) is not None:
                found[name].append(myntra / row["image"])
    return [(path, name) for name in CLASSES for path in found[name][:MOST_OF_A_CLASS]]


def cut_out(path: Path) -> Image.Image | None:
    """The garment (RGBA) without its white ground; None where the ground is not white."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    pixels = np.asarray(image)
    white = (pixels > WHITE).all(axis=2)
    edge = np.concatenate([white[0], white[:, 0], white[:, -1]])  # models are cut at the lower edge
    garment = ~_joined_to_the_edge(white)
    if edge.mean() < LEAST_WHITE_EDGE or not garment.any():
        return None
    rows, columns = np.flatnonzero(garment.any(axis=1)), np.flatnonzero(garment.any(axis=0))
    image.putalpha(Image.fromarray((garment * 255).astype(np.uint8)))
    return image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


def _joined_to_the_edge(white: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """White that the edge is reached from through white: a white shirt in the middle is none of it."""
    from scipy.ndimage import label

    parts, _ = label(white)
    edges = np.unique(np.concatenate([parts[0], parts[:, 0], parts[:, -1]]))
    ground: NDArray[np.bool_] = np.isin(parts, edges[edges > 0])
    return ground


def make_queries(
    streets: DetectionData, folder: Path, catalogue: list[tuple[Path, str]], *, each: int, seed: int
) -> list[Query]:
    """``each`` photos for every box of the street photos that is not too small, with garments drawn from its class."""
    generator = np.random.default_rng(seed)
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for row, (_, name) in enumerate(catalogue):
        rows_of[name].append(row)
    queries = []
    for number, picture in enumerate(streets.pictures):
        with Image.open(folder / picture.photo) as opened:
            street = opened.convert("RGB")
        for box, label in zip(picture.boxes.tolist(), picture.labels.tolist(), strict=True):
            name = streets.classes[label]
            if min(box[2] - box[0], box[3] - box[1]) < LEAST_SIDE:
                continue
            made = 0
            for row in generator.permutation(rows_of[name]).tolist():
                if made == each:
                    break
                if (garment := cut_out(catalogue[row][0])) is not None:
                    image, where = paste(street, garment, (box[0], box[1], box[2], box[3]), generator)
                    queries.append(Query(number, image, where, name, row))
                    made += 1
    return queries


def paste(
    street: Image.Image, garment: Image.Image, box: Box, generator: np.random.Generator
) -> tuple[Image.Image, Box]:
    """The street photo with a garment in the middle of a box, and where that lies now."""
    left, top, right, bottom = box
    scale = min((right - left) / garment.width, (bottom - top) / garment.height) * generator.uniform(*SIZES)
    size = (max(1, round(garment.width * scale)), max(1, round(garment.height * scale)))
    lit = ImageEnhance.Brightness(garment.convert("RGB")).enhance(generator.uniform(*LIGHT))
    mask = garment.getchannel("A").resize(size, Image.Resampling.BILINEAR)
    start = (round((left + right - size[0]) / 2), round((top + bottom - size[1]) / 2))
    made = street.copy()
    made.paste(lit.resize(size, Image.Resampling.BILINEAR), start, mask)
    packed = io.BytesIO()
    made.save(packed, "JPEG", quality=JPEG_QUALITY)
    with Image.open(packed) as opened:
        made = opened.convert("RGB")
    where = (
        float(max(0, start[0])),
        float(max(0, start[1])),
        float(min(street.width, start[0] + size[0])),
        float(min(street.height, start[1] + size[1])),
    )
    return made, where
