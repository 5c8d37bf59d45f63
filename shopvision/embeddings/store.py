"""Reading what is known about pictures, and writing what the pipeline found out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import ARRAY, BigInteger, Connection, LargeBinary, Text, and_, bindparam, column, func, select, update
from sqlalchemy.dialects.postgresql import distinct_on

from shopvision.catalogue.tables import ItemImage
from shopvision.database import among, copy_upsert
from shopvision.images.outcome import Embedded, ImageTask, Outcome, Touched
from shopvision.index.tables import Embedding

_COLUMNS = (
    ("model_version_id", "int8"), ("image_id", "int8"), ("region", "int2"), ("image_sha256", "bytea"),
    ("source_fingerprint", "text"), ("vector", "bytea"), ("embedded_at", "timestamptz"), ("precision", "text"),
    ("pixels", "int4"),
)  # fmt: skip
_KEY = ("model_version_id", "image_id", "region")
WHOLE = 0  # the region that is the whole picture


def select_tasks(connection: Connection, model_version_id: int, image_ids: Sequence[int]) -> list[ImageTask]:
    """The pictures with these ids that still exist, with what this model version knows about them; by id."""
    known = and_(Embedding.image_id == ItemImage.image_id, Embedding.model_version_id == model_version_id)
    rows = connection.execute(
        select(ItemImage.image_id, ItemImage.uri, Embedding.source_fingerprint, Embedding.image_sha256)
        .outerjoin(Embedding, known)
        .where(ItemImage.image_id == func.any(bindparam("ids", list(image_ids), ARRAY(BigInteger))))
        .ext(distinct_on(ItemImage.image_id))
        .order_by(ItemImage.image_id, Embedding.region)
    )
    return [ImageTask(*row) for row in rows]


def vectors_of_bytes(
    connection: Connection, model_version_id: int, sha256s: Sequence[bytes], precision: str | None = None
) -> dict[bytes, bytes]:
    """Vectors that this model version made in ``precision`` of pictures with these bytes, wherever they stand."""
    rows = connection.execute(
        select(Embedding.image_sha256, Embedding.vector)
        .where(
            Embedding.model_version_id == model_version_id,
            Embedding.image_sha256 == func.any(bindparam("sha256s", list(sha256s), ARRAY(LargeBinary))),
            Embedding.precision.is_not_distinct_from(precision),
        )
        .ext(distinct_on(Embedding.image_sha256))
        .order_by(Embedding.image_sha256, Embedding.region)
    )
    return {sha256: vector for sha256, vector in rows}  # noqa: C416 - rows are no pairs to the type checker


def write_outcomes(
    connection: Connection, model_version_id: int, outcomes: Iterable[Outcome], precision: str | None = None
) -> int:
    """Upsert new vectors and refresh the fingerprints of touched pictures, in the caller's transaction.

    Pictures that left the catalogue meanwhile are skipped. An image_id must not occur twice.

    Args:
        connection: to the database.
        model_version_id: whose vectors they are.
        outcomes: of the pipeline.
        precision: that the vectors were computed in; None where nobody knows.

    Returns:
        How many vectors were written.
    """
    embedded: dict[int, Embedded] = {}
    touched: list[Touched] = []
    for outcome in outcomes:
        if isinstance(outcome, Embedded):
            embedded[outcome.image_id] = outcome
        elif isinstance(outcome, Touched):
            touched.append(outcome)
    write_fingerprints(connection, model_version_id, touched)
    if not embedded:
        return 0
    now = datetime.now(UTC)
    rows = (
        (model_version_id, one.image_id, WHOLE, one.sha256, one.fingerprint, one.vector, now, precision, one.pixels)
        for one in (embedded[image_id] for image_id in lock_pictures(connection, list(embedded)))
    )
    return upsert_vectors(connection, rows)


def lock_pictures(connection: Connection, image_ids: Sequence[int]) -> Sequence[int]:
    """Keep pictures in place until the commit; returns those that there are, rising.

    The order keeps two writers from waiting for each other.
    """
    return connection.scalars(
        select(ItemImage.image_id)
        .where(among(ItemImage.image_id, image_ids))
        .order_by(ItemImage.image_id)
        .with_for_update(read=True, key_share=True)
    ).all()


def upsert_vectors(
    connection: Connection, rows: Iterable[tuple[int, int, int, bytes, str, bytes, datetime, str | None, int | None]]
) -> int:
    """Write rows of ``embeddings``, in the order of its columns; returns how many there were."""
    return copy_upsert(connection, Embedding.__table__, _COLUMNS, rows, key=_KEY)  # type: ignore[arg-type] # declared as FromClause


def write_fingerprints(connection: Connection, model_version_id: int, touched: Sequence[Touched]) -> None:
    """Store the new marks of pictures whose bytes are the known ones."""
    if not touched:
        return
    pairs = sorted((one.image_id, one.fingerprint) for one in touched)
    news = (
        func.unnest(
            bindparam("ids", [image_id for image_id, _ in pairs], ARRAY(BigInteger)),
            bindparam("marks", [mark for _, mark in pairs], ARRAY(Text)),
        )
        .table_valued(column("image_id", BigInteger), column("mark", Text), name="news")
        .render_derived()
    )
    connection.execute(
        update(Embedding)
        .where(Embedding.model_version_id == model_version_id, Embedding.image_id == news.c.image_id)
        .values(source_fingerprint=news.c.mark)
    )
