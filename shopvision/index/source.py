"""What Postgres holds for an index: how many vectors there are, and the vectors themselves, streamed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import BigInteger, Connection, Row, Select, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.errors import JobError
from shopvision.index.build import Spool
from shopvision.index.ids import IdRow, Ids, IdsWriter
from shopvision.index.tables import Embedding

BATCH_ROWS = 5_000
_Row = Row[int, int, str, str | None, str, bytes, str | None]
_Batches = Generator[Sequence[_Row], None, None]
LOOKUP_IDS = 20_000  # picture ids asked for in one query
UNKNOWN = "unknown"  # the precision of vectors that were made before it was noted


@dataclass(frozen=True)
class Spooled:
    """Vectors on disk.

    Attributes:
        vectors: fp16 of shape (rows, dimension).
        precisions: rows by what their vectors were computed in.
    """

    vectors: Spool
    precisions: dict[str, int] = field(default_factory=dict)


def count_vectors(connection: Connection, model_version_id: int) -> int:
    """How many vectors of pictures or their regions this model version has (an index-only scan)."""
    query = select(func.count()).select_from(Embedding).where(Embedding.model_version_id == model_version_id)
    return connection.scalar(query) or 0


def _rows(model_version_id: int) -> Select[int, int, str, str | None, str, bytes, str | None]:
    return (
        select(
            Embedding.image_id,
            Embedding.region,
            ItemImage.item_id,
            Item.category,
            ItemImage.uri,
            Embedding.vector,
            Embedding.precision,
        )
        .join(ItemImage, ItemImage.image_id == Embedding.image_id)
        .join(Item, Item.item_id == ItemImage.item_id)
        .where(Embedding.model_version_id == model_version_id)
        .order_by(Embedding.image_id, Embedding.region)
    )


def _batches(connection: Connection, model_version_id: int, wanted: Ids | None) -> _Batches:
    query = _rows(model_version_id)
    parameters: list[dict[str, list[int]]] = [{}]
    if wanted is not None:
        query = query.where(Embedding.image_id == any_(bindparam("wanted", type_=ARRAY(BigInteger))))
        starts = range(0, len(wanted), LOOKUP_IDS)
        parameters = [{"wanted": wanted[start : start + LOOKUP_IDS].tolist()} for start in starts]
    for chosen in parameters:
        result = connection.execute(query, chosen, execution_options={"yield_per": BATCH_ROWS})
        with closing(result):
            yield from result.partitions()


def spool(
    connection: Connection, model_version_id: int, folder: Path, dimension: int | None, wanted: Ids | None = None
) -> Spooled:
    """Write ids to ``folder/ids.arrow`` and vectors to a spool file, and map the latter.

    The database is done with as soon as this returns; building may take minutes, and memory stays bounded.

    Args:
        dimension: what the vectors must have; ``None`` takes the first one's.
        wanted: picture ids, ascending; by default every picture with a vector. Those without one are passed over, of
            the others every vector is taken.

    Returns:
        The vectors, mapped from ``folder/vectors.f16``.

    Raises:
        JobError: vectors differ in length, or there is none and the dimension is unknown.
    """
    rows, precisions = 0, Counter[str]()
    path = folder / "vectors.f16"
    batches = closing(_batches(connection, model_version_id, wanted))
    with path.open("wb") as file, IdsWriter(folder / "ids.arrow") as ids, batches as found:
        for batch in found:
            dimension = dimension or len(batch[0].vector) // 2
            for row in batch:
                if len(row.vector) != dimension * 2:
                    raise JobError(
                        f"Picture {row.image_id} has a vector of dimension {len(row.vector) // 2}, the index has "
                        f"{dimension}: embed it again (refresh with scope 'all')."
                    )
                file.write(row.vector)
            ids.write(IdRow(row.image_id, row.region, row.item_id, row.category, row.uri) for row in batch)
            precisions.update(row.precision or UNKNOWN for row in batch)
            rows += len(batch)
    if dimension is None:
        raise JobError("There are no vectors of this model to index: run `refresh_embeddings` first.")
    if rows == 0:
        return Spooled(np.empty((0, dimension), np.float16))
    return Spooled(np.memmap(path, dtype="<f2", mode="r", shape=(rows, dimension)), dict(precisions))
