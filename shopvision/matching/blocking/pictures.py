"""Items that look alike, from the catalogue's published index, and items that have the very same picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from shopvision.database import connect
from shopvision.errors import UserError
from shopvision.index.generation import Generation
from shopvision.matching.blocking.inverted import Found
from shopvision.matching.blocking.rows import ItemRows, Rows
from shopvision.matching.blocking.vectors import neighbours
from shopvision.matching.options import BlockingOptions

_VERSION = "SELECT model_version_id FROM model_versions WHERE name || ':' || tag = :spec"

# As the active encoder of the catalogue saw them; an index on version and digest serves the grouping.
_SHARED = """
    SELECT seen.image_sha256, count(DISTINCT image.item_id) AS items,
           (array_agg(DISTINCT image.item_id))[1 : :limit] AS item_ids
    FROM embeddings AS seen JOIN item_images AS image ON image.image_id = seen.image_id
    WHERE seen.model_version_id = (SELECT model_version_id FROM model_roles WHERE role = 'catalogue_encoder')
    GROUP BY seen.image_sha256 HAVING count(DISTINCT image.item_id) > 1
    """

_PICTURES = """
    SELECT image.item_id, seen.vector
    FROM item_images AS image JOIN embeddings AS seen ON seen.image_id = image.image_id
    WHERE seen.model_version_id = :version AND image.item_id = ANY(:ids) AND seen.image_sha256 <> ALL(:common)
    ORDER BY image.item_id, image.image_id
    """


@dataclass(frozen=True)
class SharedPictures:
    """Pictures, by their bytes, that several items have.

    Attributes:
        rows, groups: which rows have which picture, by row.
        common: sha256 of those that more items share than are evidence (a placeholder, a size chart).
    """

    rows: Rows
    groups: NDArray[np.uint64]
    common: list[bytes]


def shared_pictures(connection: Connection, rows: ItemRows, limit: int) -> SharedPictures:
    """Pictures that two items to ``limit`` items share, and those that more do."""
    found, groups, common = [np.empty(0, np.int32)], [np.empty(0, np.uint64)], []
    query = text(_SHARED).execution_options(yield_per=1_000)
    for number, (sha256, items, item_ids) in enumerate(connection.execute(query, {"limit": limit})):
        if items > limit:
            common.append(bytes(sha256))
            continue
        members = rows.find(item_ids)
        found.append(members[members >= 0])
        groups.append(np.full(len(found[-1]), number, np.uint64))
    of_row, of_group = np.concatenate(found), np.concatenate(groups)
    order = np.argsort(of_row, kind="stable")
    return SharedPictures(of_row[order], of_group[order], common)


class CataloguePictures:
    """The nearest pictures of other items in one generation of the catalogue's index."""

    def __init__(
        self, generation: Generation, rows: ItemRows, options: BlockingOptions, common: Sequence[bytes]
    ) -> None:
        """``common``: digests of pictures that say nothing, and are not looked up.

        Raises:
            UserError: the database does not know the model version that the index was made with.
        """
        self._generation, self._rows, self._options, self._common = generation, rows, options, list(common)
        with connect() as connection:
            version = connection.scalar(text(_VERSION), {"spec": generation.model})
        if version is None:
            raise UserError(
                f"The index was made with {generation.model!r}, which this database does not know: refresh embeddings."
            )
        self._version = version
        categories = rows.categories()
        self._some_have_none = bool((categories.roots < 0).any())
        self._wanted = (options.neighbours + 1) * max(1, -(-generation.live // max(1, len(rows))))

    def find(self, rows: Rows) -> list[Found]:
        """The nearest rows of ``rows`` by any of their pictures."""
        parameters = {"version": self._version, "ids": [self._rows.item_id(int(row)) for row in rows]}
        with connect() as connection:
            pictures = connection.execute(text(_PICTURES), {**parameters, "common": self._common}).all()
        if not pictures:
            return []
        owners = self._rows.find(picture.item_id for picture in pictures)
        vectors = np.frombuffer(b"".join(picture.vector for picture in pictures), "<f2").astype(np.float32)
        vectors = vectors.reshape(len(pictures), -1)
        categories = self._rows.categories()
        roots = categories.roots[owners]
        found = [Found("picture", owners[:0], owners[:0], np.empty(0, np.float32))]
        for root in np.unique(roots):
            chosen = np.flatnonzero(roots == root)
            found += self._search(owners[chosen], vectors[chosen], int(root))
        everything = Found(
            "picture",
            np.concatenate([one.query for one in found]),
            np.concatenate([one.found for one in found]),
            np.concatenate([one.similarity for one in found]),
        )
        return [neighbours(everything, self._options.neighbours, categories)]

    def _search(self, owners: Rows, vectors: NDArray[np.float32], root: int) -> Iterable[Found]:
        """What each picture is alike enough to, among items that may be compared with root category ``root``."""
        names: list[str | None] = [None] if root < 0 else [self._rows.categories().names[root]]
        if root >= 0 and self._some_have_none:
            names.append("")
        for name in names:
            near = self._generation.nearest(vectors, self._wanted, name)
            query, place = np.nonzero((near.pictures >= 0) & (near.scores >= self._options.min_similarity))
            pictures, of_picture = np.unique(near.pictures[query, place], return_inverse=True)
            rows = self._rows.find(self._generation.item_ids(pictures))[of_picture]
            known = rows >= 0  # an item may have been deleted since the index was published
            yield Found("picture", owners[query[known]], rows[known], near.scores[query, place][known])
