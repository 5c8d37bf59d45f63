"""Seeded catalogues of vectors in the real tables, and stores that fail on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, text

from shopvision.database import connect, copy_rows
from shopvision.models.tables import ModelVersion
from shopvision.storage import ObjectStat, ObjectStore

CATEGORIES = ("Men/Tops/Tanks", "Men/Tops/Jackets", "Men/Bottoms", "Women/Tops", "Women/Topsy")


def clustered(count: int, dimension: int, seed: int = 0, clusters: int | None = None) -> NDArray[np.float16]:
    """Unit vectors around cluster centres, as embeddings of a catalogue are."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters or max(1, count // 20), dimension), dtype=np.float32)
    vectors = centres[random.integers(0, len(centres), count)]
    vectors += 0.6 * random.standard_normal((count, dimension), dtype=np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def make_model(name: str = "toy", tag: str = "1", kind: str = "image_encoder") -> Any:
    """A row of ``model_versions``; has what ``publish`` asks of a reference."""
    with connect() as connection:
        identity = connection.scalar(
            insert(ModelVersion)
            .values(name=name, tag=tag, card={"kind": kind})
            .returning(ModelVersion.model_version_id)
        )
    return SimpleNamespace(model_version_id=identity, name=name, tag=tag, spec=f"{name}:{tag}")


def add_items(first: int, count: int) -> None:
    """Items ``first`` .. ``first + count - 1`` (ids ``item-N``), each with one picture whose image_id is N."""
    numbers = range(first, first + count)
    with connect() as connection:
        copy_rows(
            connection, "items", [("item_id", "text"), ("category", "text"), ("content_hash", "bytea")],
            ((f"item-{n}", CATEGORIES[n % len(CATEGORIES)], b"") for n in numbers),
        )  # fmt: skip
        copy_rows(
            connection,
            "item_images",
            [("image_id", "int8"), ("item_id", "text"), ("position", "int2"), ("uri", "text")],
            ((n, f"item-{n}", 0, f"file:///pictures/{n}.jpg") for n in numbers),
        )


def embed(
    model: Any, numbers: Iterable[int], vectors: NDArray[np.float16], region: int = 0, *, precision: str | None = None
) -> None:
    """Upsert vectors of pictures, or of one region of each, as the refresh does."""
    from shopvision.database import copy_upsert
    from shopvision.index.tables import Embedding

    rows = [
        (
            model.model_version_id,
            int(number),
            region,
            b"sha of %d" % number,
            "mark",
            vector.astype("<f2").tobytes(),
            precision,
        )
        for number, vector in zip(numbers, vectors, strict=True)
    ]
    columns = [
        ("model_version_id", "int8"), ("image_id", "int8"), ("region", "int2"), ("image_sha256", "bytea"),
        ("source_fingerprint", "text"), ("vector", "bytea"), ("precision", "text"),
    ]  # fmt: skip
    with connect() as connection:
        copy_upsert(connection, Embedding.__table__, columns, rows, key=("model_version_id", "image_id", "region"))


def remove_items(numbers: Iterable[int]) -> None:
    with connect() as connection:
        connection.execute(text("DELETE FROM items WHERE item_id = ANY(:ids)"), {"ids": [f"item-{n}" for n in numbers]})


def notes(model: Any) -> int:
    with connect() as connection:
        return connection.scalar(
            text("SELECT count(*) FROM index_changes WHERE model_version_id = :m"), {"m": model.model_version_id}
        )


@dataclass
class Toy:
    """A model with ``count`` pictures, one per item."""

    model: Any
    vectors: NDArray[np.float16]

    def nearest(self, number: int, k: int = 10) -> list[int]:
        """Exact answer by plain numpy."""
        scores = self.vectors.astype(np.float32) @ self.vectors[number].astype(np.float32)
        return list(np.argsort(-scores, kind="stable")[:k])


def toy(count: int = 300, dimension: int = 16, seed: int = 0) -> Toy:
    model = make_model()
    vectors = clustered(count, dimension, seed)
    add_items(0, count)
    embed(model, range(count), vectors)
    return Toy(model, vectors)


class WrappedStore(ObjectStore):
    """Passes everything on; ``before(operation, key)`` may raise, or do harm. Records every call."""

    def __init__(self, inner: ObjectStore, before: Callable[[str, str], None] = lambda operation, key: None) -> None:
        self.inner = inner
        self.url = inner.url
        self.before = before
        self.calls: list[tuple[str, str]] = []

    def _note(self, operation: str, key: str) -> None:
        self.calls.append((operation, key))
        self.before(operation, key)

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        self._note("get", key)
        return self.inner.get_with_etag(key)

    def put(self, key: str, data: bytes | Path, **options: Any) -> str:
        self._note("put", key)
        return self.inner.put(key, data, **options)

    def download(self, key: str, path: Path) -> None:
        self._note("download", key)
        self.inner.download(key, path)

    def stat(self, key: str) -> ObjectStat:
        self._note("stat", key)
        return self.inner.stat(key)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        return self.inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        self.inner.delete(keys)

    def honours_conditional_writes(self) -> bool:
        return self.inner.honours_conditional_writes()

    def uploaded(self) -> list[str]:
        return [key.rpartition("/")[2] for operation, key in self.calls if operation == "put"]
