"""What is known of garments in pictures, and of their vectors; and writing what the pipeline found out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Connection, SmallInteger, and_, bindparam, column, delete, func, select
from sqlalchemy import tuple_ as row_of
from sqlalchemy.dialects.postgresql import aggregate_order_by, distinct_on

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import among, connect, copy_upsert
from shopvision.database.named_lock import take_lock
from shopvision.embeddings.composition import Composition
from shopvision.embeddings.region_numbers import renumbered
from shopvision.embeddings.region_tasks import EmbeddedRegions, RegionOutcome, RegionTask, VectorKey, key_of
from shopvision.embeddings.store import lock_pictures, upsert_vectors, write_fingerprints
from shopvision.fashion.composition.found import FoundRegion, single_box
from shopvision.fashion.tables import PictureRegion
from shopvision.images.outcome import Touched
from shopvision.index.tables import Embedding

_COLUMNS = (
    ("detector_version_id", "int8"), ("image_id", "int8"), ("region", "int2"), ("image_sha256", "bytea"),
    ("box", "float4[]"), ("label", "text"), ("score", "float4"), ("colour", "float4[]"), ("found_at", "timestamptz"),
)  # fmt: skip
ROWS_AT_ONCE = 10_000
_KEY = ("detector_version_id", "image_id", "region")
_REGION = (PictureRegion.box, PictureRegion.label, PictureRegion.score, PictureRegion.colour)


def select_region_tasks(
    connection: Connection, composition: Composition, image_ids: Sequence[int], *, everything: bool
) -> list[RegionTask]:
    """The pictures with these ids that still exist, with what is known about them; by id.

    Args:
        connection: to the database.
        composition: of the encoder that will look.
        image_ids: of the pictures.
        everything: act as if there was no vector yet.
    """
    found = {image_id: (sha256, regions) for image_id, sha256, regions in _found(connection, composition, image_ids)}
    seen = {} if everything else _seen(connection, composition, image_ids)
    rows = connection.execute(
        select(ItemImage.image_id, ItemImage.uri, Item.category)
        .join(Item, Item.item_id == ItemImage.item_id)
        .where(among(ItemImage.image_id, image_ids))
        .order_by(ItemImage.image_id)
    )
    tasks = []
    for image_id, uri, category in rows:
        sha256, regions = found.get(image_id, (None, ()))
        fingerprint, seen_sha256, numbers = seen.get(image_id, (None, None, ()))
        # What is wanted can be told where the detector has seen the bytes that were embedded.
        if sha256 is None or sha256 != seen_sha256 or composition.wanted(regions, category) != numbers:
            fingerprint = seen_sha256 = None
        tasks.append(RegionTask(image_id, uri, fingerprint, seen_sha256, category, regions, sha256))
    return tasks


def _found(
    connection: Connection, composition: Composition, image_ids: Sequence[int]
) -> Iterator[tuple[int, bytes, tuple[FoundRegion, ...]]]:
    rows = connection.execute(
        select(PictureRegion.image_id, PictureRegion.image_sha256, *_REGION)
        .where(
            PictureRegion.detector_version_id == composition.detector_version_id,
            among(PictureRegion.image_id, image_ids),
        )
        .order_by(PictureRegion.image_id, PictureRegion.region)
    )
    for (image_id, sha256), group in groupby(rows, key=itemgetter(0, 1)):
        yield image_id, sha256, tuple(_region(*row[2:]) for row in group)


def _seen(
    connection: Connection, composition: Composition, image_ids: Sequence[int]
) -> dict[int, tuple[str, bytes, tuple[int, ...]]]:
    """Mark, sha256 and the regions with a vector, by picture."""
    marks = (Embedding.image_id, Embedding.source_fingerprint, Embedding.image_sha256)
    rows = connection.execute(
        select(*marks, func.array_agg(aggregate_order_by(Embedding.region, Embedding.region)))
        .where(Embedding.model_version_id == composition.model_version_id, among(Embedding.image_id, image_ids))
        .group_by(*marks)
    )
    return {image_id: (mark, sha256, tuple(numbers)) for image_id, mark, sha256, numbers in rows}


def pictures_of_other_garments(composition: Composition, item_ids: Sequence[str] | None) -> Iterator[int]:
    """Ids of pictures that have a vector of another garment than their item's category asks for by now, streamed.

    The tables tell: no picture is read.

    Args:
        composition: of the encoder.
        item_ids: only pictures of these items.
    """
    same_picture = and_(
        PictureRegion.image_id == Embedding.image_id,
        PictureRegion.image_sha256 == Embedding.image_sha256,
        PictureRegion.detector_version_id == composition.detector_version_id,
    )
    query = (
        select(Embedding.image_id, Embedding.region, Item.category, *_REGION)
        .join(PictureRegion, same_picture)
        .join(ItemImage, ItemImage.image_id == Embedding.image_id)
        .join(Item, Item.item_id == ItemImage.item_id)
        .where(Embedding.model_version_id == composition.model_version_id)
        .order_by(Embedding.image_id, Embedding.region, PictureRegion.region)
    )
    if item_ids is not None:
        query = query.where(among(ItemImage.item_id, item_ids))
    with connect() as connection, connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}) as result:
        for (image_id, number, category), rows in groupby(result, key=itemgetter(0, 1, 2)):
            found = [_region(*row[3:]) for row in rows]
            if composition.wanted(found, category) != (number,):
                yield image_id


def regions_of_bytes(
    connection: Connection, composition: Composition, sha256s: Sequence[bytes]
) -> dict[bytes, tuple[FoundRegion, ...]]:
    """What the detector found before in pictures with these bytes, wherever they stand; region 0 first."""
    first = (
        select(PictureRegion.image_sha256, PictureRegion.image_id)
        .where(
            PictureRegion.detector_version_id == composition.detector_version_id,
            among(PictureRegion.image_sha256, sha256s),
        )
        .ext(distinct_on(PictureRegion.image_sha256))
        .order_by(PictureRegion.image_sha256, PictureRegion.image_id)
        .subquery()
    )
    of_first = and_(
        PictureRegion.image_sha256 == first.c.image_sha256,
        PictureRegion.image_id == first.c.image_id,
        PictureRegion.detector_version_id == composition.detector_version_id,
    )
    rows = connection.execute(
        select(PictureRegion.image_sha256, *_REGION)
        .join(first, of_first)
        .order_by(PictureRegion.image_sha256, PictureRegion.region)
    )
    return {sha256: tuple(_region(*row[1:]) for row in group) for sha256, group in groupby(rows, key=itemgetter(0))}


def vectors_of_regions(
    connection: Connection, composition: Composition, sha256s: Sequence[bytes], precision: str | None = None
) -> dict[VectorKey, bytes]:
    """Vectors that the encoder made in ``precision`` of regions of pictures with these bytes, wherever they stand."""
    same_region = and_(
        PictureRegion.detector_version_id == composition.detector_version_id,
        PictureRegion.image_id == Embedding.image_id,
        PictureRegion.region == Embedding.region,
        PictureRegion.image_sha256 == Embedding.image_sha256,
    )
    rows = connection.execute(
        select(Embedding.image_sha256, Embedding.vector, *_REGION)
        .join(PictureRegion, same_region)
        .where(
            Embedding.model_version_id == composition.model_version_id,
            among(Embedding.image_sha256, sha256s),
            Embedding.precision.is_not_distinct_from(precision),
        )
    )
    return {key_of(row[0], _region(*row[2:])): row[1] for row in rows}


def write_region_outcomes(
    connection: Connection,
    composition: Composition,
    outcomes: Iterable[RegionOutcome],
    precision: str | None = None,
) -> int:
    """Write what was found and its vectors, and take out what is out of date, in the caller's transaction.

    Pictures that left the catalogue meanwhile are skipped. An image_id must not occur twice. What the detector found in
    a picture's bytes is written once: where another worker wrote it first, that stays, since vectors of other encoders
    go by its numbers, and these vectors get them too.

    Args:
        connection: to the database.
        composition: of the encoder whose vectors they are.
        outcomes: of the pipeline.
        precision: that the vectors were computed in; None where nobody knows.

    Returns:
        How many vectors were written.
    """
    embedded: dict[int, EmbeddedRegions] = {}
    touched: list[Touched] = []
    for outcome in outcomes:
        if isinstance(outcome, EmbeddedRegions):
            embedded[outcome.image_id] = outcome
        elif isinstance(outcome, Touched):
            touched.append(outcome)
    write_fingerprints(connection, composition.model_version_id, touched)
    if not embedded:
        return 0
    now = datetime.now(UTC)
    existing = [embedded[image_id] for image_id in lock_pictures(connection, list(embedded))]
    first = _stored_before(connection, composition, [one for one in existing if one.found is not None])
    _write_found(connection, composition, [one for one in existing if one.found and one.image_id not in first], now)
    numbered = [
        replace(one, vectors=renumbered(one.vectors, one.found, first[one.image_id]))
        if one.found and one.image_id in first
        else one
        for one in existing
    ]
    # A picture whose vectors are all of something else is left as it was: the next refresh looks at it again.
    return _write_vectors(connection, composition, [one for one in numbered if one.vectors], now, precision)


def _stored_before(
    connection: Connection, composition: Composition, news: Sequence[EmbeddedRegions]
) -> dict[int, tuple[FoundRegion, ...]]:
    """What others stored of the same pictures and bytes, by picture; nobody stores more until the commit."""
    if not news:
        return {}
    take_lock(connection, f"regions found by {composition.detector_version_id}")
    sha256s = {one.image_id: one.sha256 for one in news}
    return {
        image_id: regions
        for image_id, sha256, regions in _found(connection, composition, list(sha256s))
        if sha256 == sha256s[image_id]
    }


def _write_found(
    connection: Connection, composition: Composition, news: Sequence[EmbeddedRegions], now: datetime
) -> None:
    if not news:
        return
    rows = (
        (composition.detector_version_id, one.image_id, number, one.sha256, [*region.box], region.label,
         region.score, None if region.colour is None else [*region.colour], now)
        for one in news
        for number, region in enumerate(one.found or ())
    )  # fmt: skip
    copy_upsert(connection, PictureRegion.__table__, _COLUMNS, rows, key=_KEY)  # type: ignore[arg-type] # declared as FromClause
    counts = _table("counts", [(one.image_id, len(one.found or ())) for one in news])
    connection.execute(
        delete(PictureRegion).where(
            PictureRegion.detector_version_id == composition.detector_version_id,
            PictureRegion.image_id == counts.c.image_id,
            PictureRegion.region >= counts.c.region,
        )
    )


def _write_vectors(
    connection: Connection,
    composition: Composition,
    news: Sequence[EmbeddedRegions],
    now: datetime,
    precision: str | None,
) -> int:
    kept = _table("kept", [(one.image_id, number) for one in news for number in one.vectors])
    connection.execute(
        delete(Embedding).where(
            Embedding.model_version_id == composition.model_version_id,
            among(Embedding.image_id, [one.image_id for one in news]),
            row_of(Embedding.image_id, Embedding.region).not_in(select(kept.c.image_id, kept.c.region)),
        )
    )
    return upsert_vectors(
        connection,
        (
            # No pixels: the detector's region 0 tells them.
            (
                composition.model_version_id,
                one.image_id,
                number,
                one.sha256,
                one.fingerprint,
                vector,
                now,
                precision,
                None,
            )
            for one in news
            for number, vector in sorted(one.vectors.items())
        ),
    )


def _table(name: str, pairs: Sequence[tuple[int, int]]) -> Any:
    """(image_id, region) pairs as a table of one statement."""
    return (
        func.unnest(
            bindparam(f"{name}_ids", [image_id for image_id, _ in pairs], ARRAY(BigInteger)),
            bindparam(f"{name}_regions", [region for _, region in pairs], ARRAY(SmallInteger)),
        )
        .table_valued(column("image_id", BigInteger), column("region", SmallInteger), name=name)
        .render_derived()
    )


def _region(
    box: Sequence[float], label: str | None, score: float | None, colour: Sequence[float] | None
) -> FoundRegion:
    lab = None if colour is None else (colour[0], colour[1], colour[2])
    return FoundRegion(single_box(box), label, score, lab)
