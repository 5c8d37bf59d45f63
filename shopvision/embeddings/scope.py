"""Which pictures a refresh looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import aliased

from shopvision.catalogue.known_ids import require_items
from shopvision.catalogue.tables import ItemImage
from shopvision.database import among, connect
from shopvision.embeddings.composition import composition_of
from shopvision.index.names import CATALOGUE_ROLE
from shopvision.index.tables import Embedding
from shopvision.models.tables import ModelRole

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

ROWS_AT_ONCE = 10_000
WHOLE = 0


def images_in_scope(
    ref: ModelVersionRef, *, item_ids: Sequence[str] | None = None, only_unseen: bool = False
) -> Iterator[int]:
    """Ids of the pictures to look at, streamed.

    Args:
        ref: the model version that will look.
        item_ids: only pictures of these items.
        only_unseen: only pictures that this model version has no vector of, or has one of another garment than the
            picture's item asks for by now.

    Raises:
        UserError: one of ``item_ids`` is not in the catalogue.
    """
    known_items = None if item_ids is None else require_items(item_ids)
    query = select(ItemImage.image_id).order_by(ItemImage.image_id)
    if known_items is not None:
        query = query.where(among(ItemImage.item_id, known_items))
    if only_unseen:
        seen = select(Embedding.image_id).where(
            Embedding.model_version_id == ref.model_version_id, Embedding.image_id == ItemImage.image_id
        )
        query = query.where(~seen.exists())
    with connect() as connection, connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}) as result:
        yield from result.scalars()
    composition = composition_of(ref) if only_unseen else None
    if composition is not None and composition.goes_by_category:
        from shopvision.embeddings.region_store import pictures_of_other_garments

        yield from pictures_of_other_garments(composition, known_items)


def images_seen_newer(ref: ModelVersionRef, *, item_ids: Sequence[str] | None = None) -> Iterator[int]:
    """Ids of the pictures of which the catalogue's encoder has seen other bytes since ``ref`` looked, streamed.

    So that one model a night that looks at the sources suffices for all of them.
    """
    own, seen = aliased(Embedding), aliased(Embedding)
    query = (
        select(own.image_id)
        .join(seen, (seen.image_id == own.image_id) & (seen.embedded_at > own.embedded_at))
        .join(ModelRole, (ModelRole.model_version_id == seen.model_version_id) & (ModelRole.role == CATALOGUE_ROLE))
        .where(own.model_version_id == ref.model_version_id, own.region == WHOLE, seen.image_sha256 != own.image_sha256)
        .distinct()
    )
    if item_ids is not None:
        query = query.join(ItemImage, ItemImage.image_id == own.image_id).where(among(ItemImage.item_id, item_ids))
    with connect() as connection, connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}) as result:
        yield from result.scalars()
