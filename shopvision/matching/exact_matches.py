"""What two items have exactly, beside what a model thinks of them: a picture of equal bytes, a product's code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy import text

from shopvision.database import connect
from shopvision.items.identifiers import identifiers
from shopvision.items.item import Item
from shopvision.matching.options import BlockingOptions
from shopvision.matching.store import PairIds

PICTURE, CODE = "picture", "code"
SHARED_BY = BlockingOptions.rare_value_limit  # a picture that more items show is a placeholder or a size chart

# As the active encoder of the catalogue saw pictures; where it looks at garments, each row says so once more.
_PICTURES = """
    SELECT DISTINCT image.item_id, seen.image_sha256 FROM item_images AS image
    JOIN embeddings AS seen ON seen.image_id = image.image_id
    WHERE image.item_id = ANY(CAST(:ids AS text[])) AND seen.model_version_id = (
        SELECT model_version_id FROM model_roles WHERE role = 'catalogue_encoder')
    """
_COMMON = """
    SELECT seen.image_sha256 FROM embeddings AS seen JOIN item_images AS image ON image.image_id = seen.image_id
    WHERE seen.image_sha256 = ANY(CAST(:pictures AS bytea[])) AND seen.model_version_id = (
        SELECT model_version_id FROM model_roles WHERE role = 'catalogue_encoder')
    GROUP BY seen.image_sha256 HAVING count(DISTINCT image.item_id) > :limit
    """


def exact_matches(items: Mapping[str, Item], pairs: Sequence[PairIds]) -> dict[PairIds, tuple[str, ...]]:
    """What pairs have exactly: some of ``PICTURE`` and ``CODE``; pairs that have nothing are missing.

    Args:
        items: of all pairs, by id.
        pairs: ids of two items each.
    """
    ids = sorted({item_id for pair in pairs for item_id in pair})
    codes = {item_id: identifiers(items[item_id]) for item_id in ids}
    pictures = _pictures(ids)
    nothing: frozenset[bytes] = frozenset()
    found: dict[PairIds, tuple[str, ...]] = {}
    for pair in pairs:
        left, right = pair
        what = [PICTURE] if pictures.get(left, nothing) & pictures.get(right, nothing) else []
        what += [CODE] if codes[left] & codes[right] else []
        if what:
            found[pair] = tuple(what)
    return found


def _pictures(item_ids: Sequence[str]) -> dict[str, frozenset[bytes]]:
    """sha256 of the pictures of items, of those that several of them have, without what very many items show."""
    with connect() as connection:
        rows = [
            (row.item_id, bytes(row.image_sha256)) for row in connection.execute(text(_PICTURES), {"ids": item_ids})
        ]
        shared = [sha256 for sha256, items in Counter(sha256 for _, sha256 in rows).items() if items > 1]
        if not shared:
            return {}
        common = connection.scalars(text(_COMMON), {"pictures": shared, "limit": SHARED_BY})
        evidence = set(shared) - {bytes(sha256) for sha256 in common}
    pictures: dict[str, set[bytes]] = {}
    for item_id, sha256 in rows:
        if sha256 in evidence:
            pictures.setdefault(item_id, set()).add(sha256)
    return {item_id: frozenset(several) for item_id, several in pictures.items()}
