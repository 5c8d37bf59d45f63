"""The ids beside the vectors: which picture and region, item, category and uri each row is, without a database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ids = NDArray[np.int64]

# Up to so many rows are faster one by one (10 hits of one query: 0.07 ms instead of 0.8); many, batch by batch.
FEW_ROWS = 300

SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()), ("region", pa.int16()), ("item_id", pa.string()), ("category", pa.string()),
        ("uri", pa.string()),
    ]
)  # fmt: skip


class IdRow(NamedTuple):
    """One row of an ids file: a picture, or a region of one."""

    image_id: int
    region: int
    item_id: str
    category: str | None
    uri: str


class IdsWriter:
    """Writes an ids file in batches; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._writer = pa.ipc.new_file(str(path), SCHEMA)

    def __enter__(self) -> IdsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, rows: Iterable[IdRow]) -> None:
        """Append rows."""
        columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))


def read_ids(path: Path) -> Any:
    """The ids file as a ``pyarrow.Table`` over mapped memory: nothing is read before it is looked at.

    Generations of format 1 know no regions: each of their rows is a whole picture.
    """
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    if "region" in table.column_names:
        return table
    return table.add_column(1, SCHEMA.field("region"), pa.array(np.zeros(table.num_rows, np.int16)))


def image_ids(table: Any) -> Ids:
    """Column image_id, shape (rows,)."""
    return np.asarray(table.column("image_id").to_numpy(), dtype=np.int64)


def look_up(table: Any, rows: Ids) -> list[dict[str, Any]]:
    """Some rows of an ids file, in the order asked for; only the parts of the file that hold them are read."""
    if len(rows) <= FEW_ROWS:
        columns = [(name, table.column(name)) for name in table.column_names]
        return [{name: column[row].as_py() for name, column in columns} for row in rows.tolist()]
    found: list[dict[str, Any]] = [{}] * len(rows)
    batches = table.to_batches()
    ends = np.cumsum([batch.num_rows for batch in batches])
    batch_of = np.searchsorted(ends, rows, side="right")
    for number in np.unique(batch_of):
        places = np.flatnonzero(batch_of == number)
        batch = batches[number]
        local = rows[places] - (ends[number] - batch.num_rows)
        for place, row in zip(places, batch.take(pa.array(local)).to_pylist(), strict=True):
            found[place] = row
    return found


class PictureRows:
    """Finds the rows of pictures, of which each may have several."""

    def __init__(self, ids: Ids) -> None:
        """``ids``: the picture of each row, in any order."""
        ascending = bool((ids[1:] >= ids[:-1]).all())
        self._order = None if ascending else np.argsort(ids, kind="stable")
        ordered = ids if self._order is None else ids[self._order]
        first = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
        self._pictures = ordered[first]
        self._starts = np.append(first, len(ids))

    def find(self, pictures: Ids) -> Ids:
        """The rows of some distinct pictures, those of one side by side; pictures without a row are passed over."""
        places = np.searchsorted(self._pictures, pictures)
        there = places < len(self._pictures)
        there[there] = self._pictures[places[there]] == pictures[there]
        places = places[there]
        starts = self._starts[places]
        counts = self._starts[places + 1] - starts
        rows: Ids = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        if self._order is not None:
            rows = self._order[rows]
        return rows


def live_masks(segments: Sequence[tuple[Ids, Ids]]) -> list[NDArray[np.bool_]]:
    """Which rows of each segment searches may answer.

    Args:
        segments: (image ids, tombstones) oldest first; tombstones hide rows of earlier segments only.

    Returns:
        one mask of shape (rows,) per segment.
    """
    hidden = np.empty(0, np.int64)
    masks: list[NDArray[np.bool_]] = []
    for ids, tombstones in reversed(segments):
        masks.append(np.isin(ids, hidden, invert=True))
        hidden = np.union1d(hidden, tombstones)
    return masks[::-1]


def category_codes(table: Any) -> tuple[NDArray[np.int32], list[str]]:
    """Column category as small numbers: (code per row, name per code); a missing category is ``''``."""
    encoded = pc.fill_null(table.column("category"), "").combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(), dtype=np.int32), encoded.dictionary.to_pylist()


def in_category(names: Sequence[str], category: str) -> NDArray[np.bool_]:
    """Which category paths are ``category`` or lie below it: ``Men`` covers ``Men/Tops``, not ``Menswear``."""
    wanted = category.strip("/")
    return np.array([name == wanted or name.startswith(f"{wanted}/") for name in names], dtype=np.bool_)
