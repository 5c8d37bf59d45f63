"""What the selection job reads in Postgres: items, their pictures, and the vectors of candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from shopvision.database import connect, snapshot
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item import Item
from shopvision.selection.picture_vectors import MARK, OWN, SEEN, StoredVector, read_vectors

# The vectors of the recall model tell which bytes were seen; those of a ranker's own tower follow them.
_PICTURES = f"""
    SELECT image.item_id, string_agg({MARK}, ''::bytea ORDER BY image.image_id) AS marks,
           array_agg(image.image_id ORDER BY image.position, image.image_id) AS ids
    FROM item_images AS image {OWN} LEFT {SEEN}
    """  # noqa: S608 - our own fragments
_INPUT_HASH = "sha256(item.content_hash || convert_to(:options, 'UTF8') || coalesce(pictures.marks, ''::bytea))"
_STATE = """
    LEFT JOIN image_selection_states AS state ON state.item_id = item.item_id
        AND state.model_version_id = :model AND state.recall_version_id = :vectors
    """

# An item without pictures has nothing to choose from, unless the library is looked at; but what it had is to go.
_IN_SCOPE = f"""
    SELECT item.item_id FROM items AS item
    LEFT JOIN ({_PICTURES} GROUP BY image.item_id) AS pictures ON pictures.item_id = item.item_id
    {_STATE}
    WHERE (:library OR pictures.item_id IS NOT NULL OR state.top_image_id IS NOT NULL)
        AND (:everything OR state.input_hash IS DISTINCT FROM {_INPUT_HASH})
    ORDER BY item.item_id
    """  # noqa: S608 - our own fragments

_ITEMS = f"""
    SELECT item.item_id, item.content_hash, now() AS read_at, {_INPUT_HASH} AS input_hash, pictures.ids
    FROM items AS item
    LEFT JOIN ({_PICTURES} WHERE image.item_id = ANY(:item_ids) GROUP BY image.item_id) AS pictures
        ON pictures.item_id = item.item_id
    WHERE item.item_id = ANY(:item_ids) ORDER BY item.item_id
    """  # noqa: S608 - our own fragments


@dataclass(frozen=True)
class Scope:
    """What a selection depends on beside the item: the models, and the job's parameters.

    Attributes:
        model: version of what orders the pictures: an image_ranker, or the recall model.
        recall: version of the recall model.
        vectors: version of the model whose vectors of pictures a ranker reads; often the recall model.
        top_k: pictures kept.
        nearly_same: of pictures that are nearer than this cosine one is kept.
        library: what the pictures found in the library depend on beside an item; empty where none are looked for.
    """

    model: int
    recall: int
    vectors: int
    top_k: int = 10
    nearly_same: float = 0.98
    library: str = ""

    @property
    def has_ranker(self) -> bool:
        """Whether something else than the recall model orders the pictures."""
        return self.model != self.recall

    def sql(self, **values: Any) -> dict[str, Any]:
        """Parameters of the statements of this module."""
        options = f"{self.top_k} {self.nearly_same:.6g} {self.library}"
        return {"model": self.model, "vectors": self.recall, "options": options, **values}


@dataclass(frozen=True)
class ItemRow:
    """An item as it was at ``read_at``.

    Attributes:
        item: its texts.
        content_hash: of its record.
        input_hash: sha256 over all that the selection depends on.
        image_ids: its pictures, the leading one first.
    """

    item: Item
    read_at: datetime
    content_hash: bytes
    input_hash: bytes
    image_ids: list[int]


@dataclass(frozen=True)
class Inputs:
    """Items with the vectors of their candidates, all of one moment.

    Attributes:
        items: by id; those that left the catalogue are missing.
        recall: image_id -> vector of the recall model.
        ranker: image_id -> vector that the ranker reads; the same where that is the recall model's.
    """

    items: dict[str, ItemRow]
    recall: dict[int, StoredVector]
    ranker: dict[int, StoredVector]


def items_to_select(scope: Scope, *, everything: bool) -> Iterator[str]:
    """Ids of every item, or of those whose inputs differ from what was last selected from; streamed."""
    values = scope.sql(library=bool(scope.library), everything=everything)
    with (
        connect() as connection,
        connection.execute(text(_IN_SCOPE), values, execution_options={"yield_per": 5000}) as rows,
    ):
        yield from rows.scalars()


def read_items(scope: Scope, item_ids: Sequence[str]) -> dict[str, ItemRow]:
    """The items that still exist, by id."""
    return read_inputs(scope, item_ids, ()).items


def read_inputs(scope: Scope, item_ids: Sequence[str], found: Sequence[int]) -> Inputs:
    """Items, and the vectors of their own pictures and of those that were found in the library."""
    with snapshot() as connection:
        rows = connection.execute(text(_ITEMS), scope.sql(item_ids=list(item_ids))).all()
        items = items_from_catalogue(connection, [row.item_id for row in rows])
        by_id = {
            row.item_id: ItemRow(
                items[row.item_id], row.read_at, bytes(row.content_hash), bytes(row.input_hash), row.ids or []
            )
            for row in rows
        }
        wanted = sorted({*found, *(image_id for one in by_id.values() for image_id in one.image_ids)})
        recall = read_vectors(connection, scope.recall, wanted)
        ranker = recall if scope.vectors == scope.recall else read_vectors(connection, scope.vectors, wanted)
    return Inputs(by_id, recall, ranker)
