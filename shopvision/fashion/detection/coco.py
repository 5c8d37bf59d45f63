"""Boxes of garments in files of the COCO form: read with every doubt removed, and written."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.errors import UserError
from shopvision.fashion.detection.regions import Boxes
from shopvision.images import Box
from shopvision.reports.row_writer import replacing

# Annotations are rounded: what lies outside by no more, in pixels, is cut off and not complained about.
ROUNDING = 1.0


class CocoImage(BaseModel):
    """A picture; ``photo`` names the photo that it was cut from, where it is a part of one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    file_name: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    photo: str | None = None


class CocoAnnotation(BaseModel):
    """A box: left, top, width, height in pixels; ``iscrowd`` marks one around several garments."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class CocoCategory(BaseModel):
    """A class."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    name: str


class CocoFile(BaseModel):
    """What is read of a file; everything else in it, such as outlines, is not."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


@dataclass(frozen=True, eq=False)
class LabelledPicture:
    """A picture, or a part of one, with n boxes.

    Attributes:
        uri: its address.
        size: (width, height) in pixels, of the part where it is one.
        boxes: (n, 4) float32: left, top, right, bottom in pixels, within ``size``.
        labels: (n,) int64, numbers of classes.
        photo: equal for pictures that were cut from one photo.
        part: of the picture at ``uri``, in its pixels; None is the whole.
    """

    uri: str
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    photo: str
    part: Box | None = None

    @property
    def truth(self) -> Boxes:
        """Its boxes as metrics compare them with found ones."""
        return Boxes(torch.from_numpy(self.boxes), torch.from_numpy(self.labels), torch.ones(len(self.labels)))

    def require_size(self, size: tuple[int, int]) -> None:
        """Refuse a picture that is not as large (width, height) as its file says.

        Raises:
            UserError: its boxes would lie elsewhere.
        """
        if size != self.size:
            said, is_so = (f"{width} x {height}" for width, height in (self.size, size))
            raise UserError(
                f"{self.uri} is {is_so} upright, its file of boxes says {said}: boxes would lie elsewhere. Correct the "
                "file."
            )


@dataclass(frozen=True)
class DetectionData:
    """Pictures with boxes, and the classes that their labels number."""

    classes: tuple[str, ...]
    pictures: tuple[LabelledPicture, ...]

    def with_pictures(self, pictures: Iterable[LabelledPicture]) -> DetectionData:
        """Other pictures of the same classes."""
        return DetectionData(self.classes, tuple(pictures))

    def fingerprint(self) -> str:
        """Sha256 of classes, pictures' names and boxes, wherever the pictures lie."""
        named = [[one.photo, one.size, one.boxes.tolist(), one.labels.tolist(), one.part] for one in self.pictures]
        return hashlib.sha256(json.dumps([self.classes, named]).encode()).hexdigest()

    def boxes_by_class(self) -> dict[str, int]:
        """How many boxes there are of each class."""
        counts = Counter(int(label) for picture in self.pictures for label in picture.labels)
        return {name: counts[number] for number, name in enumerate(self.classes)}


def read_boxes(path: Path, *, images: str | None = None, classes: Sequence[str] | None = None) -> DetectionData:
    """The pictures of a COCO file. Boxes around several garments (``iscrowd``) are left out.

    Args:
        path: the file.
        images: what the pictures' file names start from: a folder, ``s3://`` or ``https://``; by default the file's
            own folder, or the folder ``images`` in it where that has the pictures.
        classes: that a detector knows, in its order; the file must have no others. By default those of the file, in
            the order of their ids.

    Raises:
        UserError: the file has another form, or a picture or a box is impossible; names the first of its kind and how
            many there are.
    """
    file = read_coco(path)
    check_coco(file, str(path))
    names = {category.id: category.name for category in sorted(file.categories, key=lambda one: one.id)}
    known = tuple(names.values()) if classes is None else tuple(classes)
    if unknown := [name for name in names.values() if name not in known]:
        raise UserError(f"{path}: category {unknown[0]!r} is unknown to the detector, which has {', '.join(known)}.")
    root = PictureRoot.parse(images or str(_beside(path, file)))
    _require_pictures(file, root, path)
    boxes: dict[int, list[CocoAnnotation]] = {image.id: [] for image in file.images}
    for annotation in file.annotations:
        if not annotation.iscrowd:
            boxes[annotation.image_id].append(annotation)
    numbers = {identity: known.index(name) for identity, name in names.items()}
    try:
        return DetectionData(known, tuple(_picture(image, boxes[image.id], numbers, root) for image in file.images))
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None


def read_coco(path: Path) -> CocoFile:
    """A file of the COCO form, not checked yet.

    Raises:
        UserError: it cannot be read, or has another form; the message names the field.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a COCO JSON file.") from None
    try:
        return CocoFile.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the text"
        raise UserError(f"{path} is no COCO file: {field}: {first['msg']}.") from None


def write_coco(path: Path, values: Mapping[str, Any]) -> None:
    """Write a COCO file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def check_coco(file: CocoFile, where: str) -> None:
    """Refuse a file whose ids or boxes cannot be right.

    Raises:
        UserError: names the first wrong one of its kind, and how many there are.
    """
    require_ids_once(file, where)
    images = {image.id: image for image in file.images}
    categories = {category.id for category in file.categories}
    strays = [one for one in file.annotations if one.image_id not in images]
    _refuse(
        [f"annotation {one.id} names the image {one.image_id}, which is not there" for one in strays],
        where,
        "remove it",
    )
    strays = [one for one in file.annotations if one.category_id not in categories]
    _refuse(
        [f"annotation {one.id} names the category {one.category_id}, which is not there" for one in strays],
        where,
        "add the category",
    )
    for problem, is_wrong in _PROBLEMS:
        wrong = [one for one in file.annotations if is_wrong(one.bbox, images[one.image_id])]
        _refuse([_told(one, images[one.image_id], problem) for one in wrong], where, "correct the box")


def require_ids_once(file: CocoFile, where: str) -> None:
    """Refuse a file in which an id, or a name, stands for two things.

    Raises:
        UserError: names the first.
    """
    for what, ids in (
        ("image", [image.id for image in file.images]),
        ("annotation", [annotation.id for annotation in file.annotations]),
        ("category", [category.id for category in file.categories]),
        ("category", [category.name for category in file.categories]),
        ("picture file", [image.file_name for image in file.images]),
    ):
        doubles = [identity for identity, count in Counter(ids).items() if count > 1]
        _refuse([f"{what} {double!r} stands there twice" for double in doubles], where, "give each its own")


def _is_not_finite(box: Box, _: CocoImage) -> bool:
    return not all(map(math.isfinite, box))


def _is_empty(box: Box, _: CocoImage) -> bool:
    return box[2] <= 0 or box[3] <= 0


def _leaves(box: Box, image: CocoImage) -> bool:
    left, top, width, height = box
    outside = max(-left, -top, left + width - image.width, top + height - image.height)
    return outside > ROUNDING or left >= image.width or top >= image.height or left + width <= 0 or top + height <= 0


_PROBLEMS: tuple[tuple[str, Callable[[Box, CocoImage], bool]], ...] = (
    ("is not finite", _is_not_finite),
    ("is empty", _is_empty),
    ("lies outside of the picture", _leaves),
)


def _told(one: CocoAnnotation, image: CocoImage, problem: str) -> str:
    box = ", ".join(f"{side:g}" for side in one.bbox)
    return f"annotation {one.id} on {image.file_name}: its box [{box}] {problem} ({image.width} x {image.height})"


def _refuse(wrong: Sequence[str], where: str, mend: str) -> None:
    if wrong:
        count = f" ({len(wrong)} such cases)" if len(wrong) > 1 else ""
        raise UserError(f"{where}: {wrong[0]}{count}: {mend}.")


def _beside(path: Path, file: CocoFile) -> Path:
    """Some files name pictures as they lie in the folder ``images``, others write ``images/`` before each."""
    own = path.parent
    if (own / "images").is_dir() and not any((own / image.file_name).is_file() for image in file.images):
        return own / "images"
    return own


def _require_pictures(file: CocoFile, root: PictureRoot, path: Path) -> None:
    if root.folder is None:
        return
    folder = root.folder
    missing = [image.file_name for image in file.images if not (folder / image.file_name).is_file()]
    _refuse([f"the picture {name} is not in {folder}" for name in missing], str(path), "name its folder, or get it")


def _picture(
    image: CocoImage, annotations: Sequence[CocoAnnotation], numbers: Mapping[int, int], root: PictureRoot
) -> LabelledPicture:
    boxes = np.array([one.bbox for one in annotations], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.clip(0, [image.width, image.height, image.width, image.height])
    labels = np.array([numbers[one.category_id] for one in annotations], np.int64)
    return LabelledPicture(
        root.uri(image.file_name),
        (image.width, image.height),
        boxes.astype(np.float32),
        labels,
        image.photo or image.file_name,
    )
