"""Items that look alike, from the catalogue's published index, and items that have the very same picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, text

from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.fashion.composition.indexed import routes_of
from shopvision.index.generation import Generation
from shopvision.matching.blocking.inverted import Found, KeyCounts
from shopvision.matching.blocking.keys import Keys
from shopvision.matching.blocking.near_items import NearItems
from shopvision.matching.blocking.rows import ItemRows, Rows
from shopvision.matching.options import BlockingOptions

_VERSION = "SELECT model_version_id FROM model_versions WHERE name || ':' || tag = :spec"

# As the active encoder of the catalogue saw them; an index on version and digest serves the grouping.
_SHARED = """
    SELECT seen.image_sha256, count(DISTINCT image.item_id) AS items,
           (array_agg(DISTINCT image.item_id))[1 : :limit] AS item_ids
    FROM embeddings AS seen JOIN item_images AS image ON image.image_id = seen.image_id
    WHERE seen.model_version_id = (SELECT model_version_id FROM model_roles WHERE role = 'catalogue_encoder') {which}
    GROUP BY seen.image_sha256 HAVING count(DISTINCT image.item_id) > 1
    """
_OF_ITEMS = """
    AND seen.image_sha256 IN (
        SELECT mine.image_sha256 FROM item_images AS own JOIN embeddings AS mine ON mine.image_id = own.image_id
        WHERE own.item_id = ANY(CAST(:ids AS text[])) AND mine.model_version_id = (
            SELECT model_version_id FROM model_roles WHERE role = 'catalogue_encoder'))
    """

_PICTURES = """
    SELECT image.item_id, seen.vector
    FROM item_images AS image JOIN embeddings AS seen ON seen.image_id = image.image_id
    WHERE seen.model_version_id = :version AND image.item_id = ANY(:ids) AND seen.image_sha256 <> ALL(:common)
    ORDER BY image.item_id, image.image_id, seen.region
    """


@dataclass(frozen=True)
class SharedPicture:
    """A picture, by its bytes, that several items have; at most as many ids as are asked for."""

    sha256: bytes
    items: int
    item_ids: list[str]


def shared_pictures(
    connection: Connection, limit: int, item_ids: Sequence[str] | None = None
) -> Iterator[SharedPicture]:
    """Pictures that several items have, streamed.

    Args:
        limit: how many ids of a picture's items are given at most.
        item_ids: only pictures of these items.
    """
    query = text(_SHARED.format(which="" if item_ids is None else _OF_ITEMS))
    values = {"limit": limit} if item_ids is None else {"limit": limit, "ids": list(item_ids)}
    with connection.execute(query, values, execution_options={"yield_per": 1_000}) as result:
        for row in result:
            yield SharedPicture(bytes(row.image_sha256), row.items, row.item_ids)


@dataclass(frozen=True)
class PictureKeys:
    """Shared pictures as keys of rows.

    Attributes:
        rows, keys: which rows have which picture, by row.
        counts: how many items have each.
        common: sha256 of those that more items share than are evidence (a placeholder, a size chart).
    """

    rows: Rows
    keys: Keys
    counts: KeyCounts
    common: list[bytes]

    @classmethod
    def of(cls, pictures: Iterable[SharedPicture], rows: ItemRows, limit: int, total: int) -> PictureKeys:
        """Those of at most ``limit`` items count; of the items some may have no row."""
        found, keys, items, common = [np.empty(0, np.int32)], [], [], []
        for picture in pictures:
            if picture.items > limit:
                common.append(picture.sha256)
                continue
            members = rows.find(picture.item_ids)
            found.append(members[members >= 0])
            keys.append(int.from_bytes(picture.sha256[:8].ljust(8, b"\0"), "little"))
            items.append(picture.items)
        distinct, of_picture = np.array(keys, np.uint64), np.repeat(keys, list(map(len, found[1:])))
        ascending = np.argsort(distinct)
        counts = KeyCounts(distinct[ascending], np.array(items, np.int64)[ascending], total)
        of_row = np.concatenate(found)
        order = np.argsort(of_row, kind="stable")
        return cls(of_row[order], of_picture.astype(np.uint64)[order], counts, common)


class CataloguePictures:
    """The nearest pictures of other items in one generation of the catalogue's index."""

    def __init__(
        self, generation: Generation, options: BlockingOptions, *, items: int, common: Sequence[bytes],
        some_have_none: bool = True,
    ) -> None:  # fmt: skip
        """What is the same for every item.

        Args:
            items: how many the catalogue has.
            common: digests of pictures that say nothing, and are not looked up.
            some_have_none: whether there may be items without a category, which go with any.

        Raises:
            UserError: the database does not know the model version that the index was made with.
        """
        self._generation, self._options, self._common = generation, options, list(common)
        self._some_have_none = some_have_none
        with connect() as connection:
            version = connection.scalar(text(_VERSION), {"spec": generation.model})
        if version is None:
            raise UserError(
                f"The index was made with {generation.model!r}, which this database does not know: refresh embeddings."
            )
        self._version = version
        self._routes = routes_of(generation.model)
        self._wanted = (options.neighbours + 1) * max(1, -(-generation.live // max(1, items)))

    def near(self, item_ids: Sequence[str], roots: Sequence[str]) -> NearItems:
        """The nearest items of these by any of their pictures.

        Args:
            item_ids: to look up.
            roots: the root category of each, empty where it has none.
        """
        root_of = dict(zip(item_ids, roots, strict=True))
        values = {"version": self._version, "ids": list(item_ids), "common": self._common}
        with connect() as connection:
            pictures = connection.execute(text(_PICTURES), values).all()
        result = NearItems("picture")
        if not pictures:
            return result
        vectors = np.frombuffer(b"".join(picture.vector for picture in pictures), "<f2").astype(np.float32)
        vectors = vectors.reshape(len(pictures), -1)
        names = np.array([root_of[picture.item_id] for picture in pictures])
        for name in np.unique(names):
            chosen = np.flatnonzero(names == name)
            for category in self._categories(str(name)):
                near = self._generation.nearest(vectors[chosen], self._wanted, category)
                cosines = self._routes.similarity(near.scores)
                is_near = self._routes.within(near.scores) & (cosines >= self._options.min_similarity)
                query, place = np.nonzero((near.pictures >= 0) & is_near)
                distinct, of_picture = np.unique(near.pictures[query, place], return_inverse=True)
                ids = np.array(list(self._generation.item_ids(distinct)), object)
                result.queries += [pictures[picture].item_id for picture in chosen[query].tolist()]
                result.found += ids[of_picture].tolist()
                result.similarity += cosines[query, place].tolist()
        return result

    def _categories(self, root: str) -> list[str | None]:
        """What an item of a root category may be compared with."""
        if not root:
            return [None]
        return [root, ""] if self._some_have_none else [root]


class PictureFinder:
    """The nearest pictures of the index, by rows."""

    def __init__(self, pictures: CataloguePictures, rows: ItemRows, options: BlockingOptions) -> None:
        self._pictures, self._rows, self._options = pictures, rows, options

    def find(self, rows: Rows) -> list[Found]:
        """The nearest rows of ``rows`` by any of their pictures."""
        item_ids = [self._rows.item_id(row) for row in rows.tolist()]
        near = self._pictures.near(item_ids, self._rows.categories().root_names(rows))
        return [near.in_rows(self._rows, self._options.neighbours)]
