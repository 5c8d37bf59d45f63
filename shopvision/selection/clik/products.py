"""The products that exhibitions show: their texts and pictures, stored by column."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, overload
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shopvision.catalogue.picture_addresses import PictureRoot, picture_uri
from shopvision.errors import UserError
from shopvision.selection.topic import SLOTS, Topic


class TextColumn(Sequence[str]):
    """Texts in Arrow memory, read one at a time."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> TextColumn: ...
    def __getitem__(self, index: int | slice) -> str | TextColumn:
        if isinstance(index, slice):
            return TextColumn(self.array[index])
        text: str = self.array[int(index)].as_py()
        return text

    def distinct(self) -> list[str]:
        """Every text once."""
        texts: list[str] = self.array.unique().to_pylist()
        return texts


class Products:
    """Products by column, each once, in the order of their ids.

    Attributes:
        columns: by name, see ``__init__``.
        ids: the column ``id``.
    """

    def __init__(self, columns: Mapping[str, Any], root: PictureRoot | None) -> None:
        """Columns ``id``, ``image`` (address or path below ``root``; empty: ``<id>.jpg``) and any of the topic slots.

        Args:
            columns: Arrow arrays of text of one length, plain or dictionary-encoded, sorted by ``id``.
            root: where relative pictures start from.
        """
        self.columns = {name: TextColumn(column) for name, column in columns.items()}
        self._root = root
        self.ids = self.columns["id"]

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, index: int) -> str:
        """The address of the picture of product ``index``: ``file:///``, ``s3://`` or ``https://``.

        Raises:
            UserError: there is no folder to start from, or the path leaves it.
        """
        named = self.columns["image"][index] or f"{self.ids[index]}.jpg"
        try:
            return picture_uri(named, None, None) if "://" in named else picture_uri(None, named, self._root)
        except ValueError as error:
            mend = " Say where the pictures lie (images)." if self._root is None else ""
            raise UserError(f"Product {self.ids[index]}: {error}.{mend}") from None

    def topic(self, index: int) -> Topic:
        """The product's own texts in the slots of a topic; what text augmentation puts in an exhibition's place."""
        return Topic(**{slot: self.columns[slot][index] for slot in SLOTS if slot in self.columns})

    def take(self, indices: NDArray[np.int32]) -> Products:
        """These products only; ``indices`` ascend."""
        chosen = pa.array(indices)
        return Products({name: column.array.take(chosen) for name, column in self.columns.items()}, self._root)

    def present(self) -> NDArray[np.bool_]:
        """Which products have their picture: (n,) bool. Local files are looked for, remote ones are believed."""
        names = lru_cache(maxsize=None)(_file_names)
        result = np.ones(len(self), bool)
        for index in range(len(self)):
            uri = self.image(index)
            if uri.startswith("file://"):
                folder, _, name = unquote(uri.removeprefix("file://"), errors="surrogateescape").rpartition("/")
                result[index] = name in names(folder)
        return result

    def update_digest(self, digest: Any, indices: NDArray[np.int32]) -> None:
        """Feed the content of these products to a hash; where the picture folder lies does not count."""
        chosen = pa.array(indices)
        for name in sorted(self.columns):
            texts = self.columns[name].array.take(chosen).cast(pa.large_string())
            digest.update(name.encode())
            digest.update(pc.binary_length(texts).to_numpy(zero_copy_only=False).tobytes())
            digest.update("".join(texts.to_pylist()).encode())


def _file_names(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 - names alone, of folders with a million files
    except OSError:
        return frozenset()
