"""Pictures with a class each: a folder per class, or a file with a row per picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shopvision.catalogue.picture_addresses import PictureRoot, picture_uri
from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.errors import UserError
from shopvision.items.record_parsing import picture_root

PRODUCT_COLUMN = "product_id"


@dataclass(frozen=True)
class Columns:
    """Names of a file's columns; ``product`` None is ``product_id`` where there is such a column."""

    picture: str = "picture"
    label: str = "label"
    product: str | None = None


@dataclass(frozen=True)
class LabelledPictures:
    """n pictures, and the classes that their labels number.

    Attributes:
        classes: names.
        names: of the pictures as their folder or file has them.
        uris: addresses.
        labels: (n,) int64.
        products: equal for pictures of one product; empty where it is unknown.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    uris: tuple[str, ...]
    labels: NDArray[np.int64]
    products: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.uris)

    def rows(self, kept: NDArray[Any]) -> LabelledPictures:
        """Some of them, by position or by mask (n,)."""
        places = np.arange(len(self))[kept].tolist()
        return replace(
            self,
            names=tuple(self.names[place] for place in places),
            uris=tuple(self.uris[place] for place in places),
            labels=self.labels[kept],
            products=tuple(self.products[place] for place in places),
        )

    def followed_by(self, other: LabelledPictures) -> LabelledPictures:
        """These pictures and then those of ``other``, which has the same classes."""
        return replace(
            self,
            names=self.names + other.names,
            uris=self.uris + other.uris,
            labels=np.concatenate([self.labels, other.labels]),
            products=self.products + other.products,
        )

    def by_class(self) -> dict[str, int]:
        """How many pictures there are of each class."""
        counts = np.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))

    def fingerprint(self) -> str:
        """Sha256 of classes, pictures' names, labels and products, wherever the pictures lie."""
        told = [self.classes, self.names, self.labels.tolist(), self.products]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def read_labelled(
    path: Path, *, images: str | None = None, columns: Columns | None = None, classes: Sequence[str] | None = None
) -> LabelledPictures:
    """The pictures of a folder or a file.

    Args:
        path: a folder that has a folder for each class, named so, with its pictures at any depth; or a file:
            ``.jsonl``, ``.csv`` or ``.parquet``, also ``.gz``, with a row for each picture.
        images: what the file's pictures start from: a folder, ``s3://`` or ``https://``; by default its own folder.
        columns: of the file.
        classes: that a classifier knows, in its order; there must be no others. By default those that are found, in
            the order of their names.

    Raises:
        UserError: nothing is there, a row is broken, or a class is unknown.
    """
    if path.is_dir():
        if images is not None:
            raise UserError(f"{path} is a folder, which holds its pictures: leave out images.")
        found = list(_of_folder(path))
    else:
        found = list(_of_file(str(path), images, columns or Columns()))
    if not found:
        raise UserError(f"{path} holds no pictures: put them into a folder for each class, or name another file.")
    known = sorted({label for _, _, label, _ in found}) if classes is None else list(classes)
    number = {name: place for place, name in enumerate(known)}
    for name, _, label, _ in found:
        if label not in number:
            raise UserError(f"{path}: {name} is of the class '{label}', which the classifier has not: {_told(known)}.")
    return LabelledPictures(
        classes=tuple(known),
        names=tuple(name for name, _, _, _ in found),
        uris=tuple(uri for _, uri, _, _ in found),
        labels=np.array([number[label] for _, _, label, _ in found], np.int64),
        products=tuple(product for _, _, _, product in found),
    )


_Row = tuple[str, str, str, str]
"""Name, address, class and product of a picture."""


def _of_folder(folder: Path) -> Iterator[_Row]:
    root = PictureRoot.parse(str(folder))
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for path in sorted(inner.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
                yield name, root.uri(name), inner.name, ""


def _of_file(location: str, images: str | None, columns: Columns) -> Iterator[_Row]:
    root, has_products = picture_root(location, images), False
    with open_source(location, own_exports=True) as source:
        for line, record in source.records:
            where = f"{location}: line {line}"
            if isinstance(record, RecordError):
                raise UserError(f"{where}: {record}.")
            name, label = (_text(record, column, where) for column in (columns.picture, columns.label))
            if not name or not label:
                what, column = ("label", columns.label) if name else ("picture", columns.picture)
                raise UserError(
                    f"{where} has no '{column}', only {_told(record)}: fill it in, or name the column of the {what}."
                )
            try:
                uri = picture_uri(name, None, root) if "://" in name else picture_uri(None, name, root)
            except ValueError as error:
                raise UserError(f"{where}: {columns.picture}: {error}.") from None
            product = _text(record, columns.product or PRODUCT_COLUMN, where)
            has_products |= bool(product)
            yield name, uri, label, product
    if columns.product is not None and not has_products:
        raise UserError(f"{location} has no product under '{columns.product}' in any row: name the right column.")


def _text(record: Mapping[str, Any], column: str, where: str) -> str:
    value = record.get(column)
    if isinstance(value, (dict, list, tuple, bool)):
        raise UserError(f"{where}: {column} is no text: write it as one text.")
    return "" if value is None else str(value).strip()


def _told(names: Sequence[str] | Mapping[str, Any]) -> str:
    listed = list(names)
    return ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
