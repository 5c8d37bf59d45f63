"""The folder that ``shopvision demo-fashion`` is given: photos with boxes, and a catalogue."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from shopvision.errors import UserError
from shopvision.fashion.composition.categories import read_categories, require_classes
from shopvision.fashion.detection.coco import DetectionData, read_boxes
from shopvision.fashion.encoding.pairs import pairs_of_items
from worker.demo.catalogue_folder import items_table

PHOTOS, BOXES, CATALOGUE, CATEGORIES = "photos", "boxes.json", "catalogue", "categories.json"
_OF_COCO = {"images", "annotations", "categories"}


@dataclass(frozen=True)
class FashionFolder:
    """What was found in the folder.

    Attributes:
        boxes: COCO JSON of the photos; its pictures lie beside it or in ``images`` there.
        data: what it says, checked.
        catalogue: a folder with a table of items and their pictures.
        items: this table.
        pairs: how many pictures of items there are beside the leading ones, which an encoder can learn from.
        classes: category path -> class of the photos' boxes; None where the folder says nothing about it.
    """

    boxes: Path
    data: DetectionData
    catalogue: Path
    items: Path
    pairs: int
    classes: Mapping[str, str] | None


def look_into(folder: Path) -> FashionFolder:
    """What ``folder`` holds; links in it may lead elsewhere.

    Raises:
        UserError: something is missing, ambiguous or wrong.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Give one that holds {PHOTOS}/{BOXES} and {CATALOGUE}/.")
    for name, content in ((PHOTOS, f"photos, and {BOXES} with their boxes"), (CATALOGUE, "items.jsonl and pictures")):
        if not (folder / name).is_dir():
            raise UserError(f"{folder} has no folder {name}: make one that holds {content}.")
    catalogue = (folder / CATALOGUE).resolve()
    items = items_table(catalogue)
    if items is None:
        raise UserError(f"{folder / CATALOGUE} has no table of items: put items.jsonl, .csv or .parquet there.")
    boxes = _boxes_file(folder / PHOTOS).resolve()
    data = read_boxes(boxes)
    _require_inside(boxes.parent, data, folder / PHOTOS)
    pairs = len(pairs_of_items(items, str(catalogue)).measured)
    return FashionFolder(boxes, data, catalogue, items, pairs, _classes(folder / CATEGORIES, data))


def _require_inside(photos: Path, data: DetectionData, given: Path) -> None:
    """Refuse pictures that the training may not read, because a link leads out of the folder that it is given.

    Args:
        photos: the folder of the boxes, resolved.
        data: what they say.
        given: the folder as it was given.
    """
    for picture in data.pictures:
        place = Path(os.fsdecode(unquote_to_bytes(picture.uri.removeprefix("file://"))))
        if not place.resolve().is_relative_to(photos):
            raise UserError(
                f"A link leads out of {given} to {place}: put the pictures there, or let all of {given} be one link."
            )


def _boxes_file(photos: Path) -> Path:
    """``boxes.json``, or under another name the only file of boxes there."""
    if (photos / BOXES).is_file():
        return photos / BOXES
    found = sorted(path for path in photos.glob("*.json") if _keys(path) >= _OF_COCO)
    if not found:
        raise UserError(f"{photos} has no {BOXES}: put the photos' boxes there as COCO JSON.")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{photos} has several files of boxes ({names}): call the right one {BOXES}.")
    return found[0]


def _keys(path: Path) -> set[str]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return set()
    return set(values) if isinstance(values, dict) else set()


def _classes(path: Path, data: DetectionData) -> Mapping[str, str] | None:
    """A file that says the class of categories, if there is one."""
    if not path.exists():
        return None
    classes = read_categories(path)
    require_classes({f"the category {category}": name for category, name in classes.items()}, data.classes, "boxes")
    return classes
