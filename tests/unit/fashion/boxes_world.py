"""Small COCO files and pictures that go with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("bag", "dress")
COLOURS = ((200, 30, 30), (30, 60, 200))


def coco(*annotations: dict[str, Any], images: int = 2, size: tuple[int, int] = (100, 80)) -> dict[str, Any]:
    """A file of so many pictures of one size; annotations are filled up with defaults."""
    defaults = {"image_id": 1, "category_id": 10, "bbox": [10, 20, 30, 40]}
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": size[0], "height": size[1]}
            for number in range(1, images + 1)
        ],
        "categories": [{"id": 10 * number, "name": name} for number, name in enumerate(CLASSES, start=1)],
        "annotations": [defaults | {"id": number} | given for number, given in enumerate(annotations, start=1)],
    }


def write(folder: Path, values: dict[str, Any], name: str = "boxes.json") -> Path:
    """The file and its pictures, each box filled with the colour of its class."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))
    for image in values["images"]:
        drawn = Image.new("RGB", (image["width"], image["height"]), (240, 240, 230))
        pen = ImageDraw.Draw(drawn)
        for one in values["annotations"]:
            if one["image_id"] == image["id"] and np.isfinite(one["bbox"]).all():
                left, top, width, height = one["bbox"]
                colour = COLOURS[one["category_id"] // 10 - 1]
                pen.rectangle((left, top, left + max(width, 1) - 1, top + max(height, 1) - 1), fill=colour)
        drawn.save(folder / image["file_name"])
    return folder / name


def world(folder: Path, pictures: int = 12, seed: int = 1, name: str = "boxes.json", first: int = 1) -> Path:
    """Pictures with one or two coloured boxes each."""
    generator = np.random.default_rng(seed)
    annotations = []
    for number in range(1, pictures + 1):
        for place in range(1 + number % 2):
            left, width = int(generator.integers(0, 14)) + 50 * place, int(generator.integers(24, 36))
            top, height = int(generator.integers(0, 30)), int(generator.integers(30, 50))
            box = [left, top, width, height]
            annotations.append({"image_id": number, "category_id": 10 * int(generator.integers(1, 3)), "bbox": box})
    values = coco(*annotations, images=pictures)
    for image in values["images"]:
        image["file_name"] = f"{first + image['id'] - 1}.png"
    return write(folder, values, name)
