"""Published annotations of garments (Fashionpedia, ModaNet) to COCO files of a shop's few classes.

Which category becomes which class stands in ``mappings/``; each rule is a function of its own.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from shopvision.errors import UserError
from shopvision.fashion.detection.coco import CocoAnnotation, CocoFile, require_ids_once

SOURCES = ("fashionpedia", "modanet")
CLASS_COUNTS = (7, 12)
# More shoes are of more than one person, whose other garments nobody labelled.
MOST_SHOES = 2


@dataclass(frozen=True)
class ClassMapping:
    """Which category of a source becomes which class.

    Attributes:
        classes: in the order of their numbers.
        mapping: category -> class; None is dropped.
    """

    classes: tuple[str, ...]
    mapping: Mapping[str, str | None]


@dataclass(frozen=True)
class Conversion:
    """What came of a file.

    Attributes:
        coco: the file to write.
        images: how many there were.
        dropped: rule -> images that it dropped.
    """

    coco: dict[str, Any]
    images: int
    dropped: dict[str, int]


def class_mapping(source: str, classes: int) -> ClassMapping:
    """The mapping of a source onto so many classes.

    Raises:
        UserError: there is none.
    """
    if source not in SOURCES or classes not in CLASS_COUNTS:
        raise UserError(
            f"There is no mapping of '{source}' onto {classes} classes: there is {' and '.join(SOURCES)}, onto 7 or 12."
        )
    text = files(__package__).joinpath("mappings", f"{source}_{classes}.json").read_text("utf-8")
    values = json.loads(text)
    return ClassMapping(tuple(values["classes"]), values["mapping"])


def convert(file: CocoFile, source: str, classes: int, *, where: str) -> Conversion:
    """Annotations of a source with the classes of a shop.

    Args:
        file: of the source.
        source: which one it is: ``fashionpedia`` or ``modanet``.
        classes: 7 or 12.
        where: names the file in messages.

    Raises:
        UserError: there is no such mapping, the file has a category that the mapping does not know, an annotation
            names what is not there, or an id stands there twice.
    """
    mapping = class_mapping(source, classes)
    names = {category.id: category.name for category in file.categories}
    require_known(names.values(), mapping, where)
    require_ids_once(file, where)
    by_image: dict[int, list[CocoAnnotation]] = {image.id: [] for image in file.images}
    for annotation in file.annotations:
        if annotation.image_id not in by_image or annotation.category_id not in names:
            raise UserError(f"{where}: annotation {annotation.id} names an image or a category that is not there.")
        if mapping.mapping[names[annotation.category_id]] is not None:
            by_image[annotation.image_id].append(annotation)
    dropped: Counter[str] = Counter()
    images, annotations = [], []
    for image in file.images:
        kept = by_image[image.id]
        found = [str(mapping.mapping[names[one.category_id]]) for one in kept]
        reason = reason_to_drop([one.bbox for one in kept], found, source)
        if reason is not None:
            dropped[reason] += 1
            continue
        images.append({"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height})
        annotations += [
            {
                "id": one.id,
                "image_id": image.id,
                "category_id": mapping.classes.index(name),
                "bbox": list(one.bbox),
                "area": one.bbox[2] * one.bbox[3],
                "iscrowd": one.iscrowd,
            }
            for one, name in zip(kept, found, strict=True)
        ]
    categories = [{"id": number, "name": name} for number, name in enumerate(mapping.classes)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    return Conversion(coco, len(file.images), dict(sorted(dropped.items())))


def reason_to_drop(
    boxes: Sequence[tuple[float, float, float, float]], classes: Sequence[str], source: str
) -> str | None:
    """Why an image with these boxes of kept classes is left out; None where it stays."""
    if has_no_garment(boxes):
        return "no garment"
    if has_impossible_box(boxes):
        return "impossible box"
    if source == "modanet" and shows_several_people(classes):
        return "several people"
    return None


def has_no_garment(boxes: Sequence[tuple[float, float, float, float]]) -> bool:
    """Nothing of what is in the picture belongs to a kept class."""
    return not boxes


def has_impossible_box(boxes: Iterable[tuple[float, float, float, float]]) -> bool:
    """A box begins outside of the picture, or has no finite area: then the others are not trusted either."""
    return any(min(box) < 0 or min(box[2:]) == 0 or not all(map(math.isfinite, box)) for box in boxes)


def shows_several_people(classes: Sequence[str]) -> bool:
    """There are more shoes than one person wears."""
    return classes.count("shoes") > MOST_SHOES


def require_known(categories: Iterable[str], mapping: ClassMapping, where: str) -> None:
    """Refuse a file with a category that nobody has decided on.

    Raises:
        UserError: names it.
    """
    for name in categories:
        if name not in mapping.mapping:
            raise UserError(
                f"{where}: the mapping does not know the category {name!r}, only {', '.join(mapping.mapping)}: this is "
                "another data set, or another version of it."
            )
