"""Posts as files and services give them: a photo, and the products that are tagged in it.

A record has ``post_id``, ``photo`` (an address, or a path that starts from the file's folder) and ``products``, a list
of objects with ``product_id``, ``thumbnail`` and perhaps ``title``; in a cell of a CSV file the list is JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from shopvision.catalogue.lines_by_key import LinesByKey
from shopvision.catalogue.picture_addresses import PictureRoot, picture_uri
from shopvision.catalogue.record_schema import MAX_ID_CHARACTERS
from shopvision.catalogue.record_texts import RecordError, composed
from shopvision.catalogue.source_files import open_source
from shopvision.errors import ItemError
from shopvision.items.record_parsing import picture_root, record_id

MAX_PRODUCTS = 1_000  # tagged in one post
POST_KEYS, PRODUCT_KEYS = ("post_id", "id"), ("product_id", "item_id", "id")


@dataclass(frozen=True, slots=True)
class TaggedProduct:
    """A product in a post; ``thumbnail`` is the address of its picture, None where it has none."""

    product_id: str
    thumbnail: str | None
    title: str = ""


@dataclass(frozen=True, slots=True)
class SocialPost:
    """A post.

    Attributes:
        post_id: its id at the service that it comes from.
        photo: address of its photo.
        products: tagged in it, none twice.
    """

    post_id: str
    photo: str
    products: tuple[TaggedProduct, ...]

    def content_hash(self) -> bytes:
        """Equal where nothing changed that pairs are made of."""
        parts = [self.photo, [[one.product_id, one.thumbnail] for one in self.products]]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).digest()


@contextmanager
def opened_posts(location: str, images: str | None) -> Iterator[Iterator[tuple[int, SocialPost | ItemError]]]:
    """The posts of a file (JSONL, CSV or Parquet, also .gz): line numbers, and posts or why a line is none.

    Args:
        location: a path or ``s3://bucket/key``.
        images: what relative pictures start from; the file's own folder where it is None.

    Raises:
        UserError: the file is missing, of unknown format, or damaged; or there is no such folder of pictures.
    """
    root = picture_root(location, images)
    with open_source(location, own_exports=True) as source:
        yield _posts(location, source.records, root)


def _posts(
    location: str, records: Iterator[tuple[int, dict[str, Any] | RecordError]], root: PictureRoot
) -> Iterator[tuple[int, SocialPost | ItemError]]:
    seen = LinesByKey()
    for line, record in records:
        try:
            post = post_from_record(record, root)
            (before,) = seen.lines([post.post_id])
            if before:
                raise _broken(f"post {post.post_id[:80]!r} stands in line {before} too; keep one of them")
            seen.add([post.post_id], [line])
        except ItemError as error:
            yield line, ItemError(error.code, f"Row {line} of {location}: {error.message}.")
        else:
            yield line, post


def post_from_record(record: Mapping[str, Any] | RecordError, root: PictureRoot | None = None) -> SocialPost:
    """A post from a JSON object or the cells of a row.

    Args:
        record: see the module.
        root: what relative pictures start from; without one only full addresses are taken.

    Raises:
        ItemError: ``broken_row``; the message names the field and the mend.
    """
    if isinstance(record, RecordError):
        raise _broken(str(record))
    post_id = _id(record, POST_KEYS)
    photo = _address(record.get("photo"), "photo", root)
    if photo is None:
        raise _broken("no photo; give the address of the post's photo")
    products: dict[str, TaggedProduct] = {}
    for number, one in enumerate(_list(record.get("products")), 1):
        product = _product(one, number, root)
        if products.setdefault(product.product_id, product) != product:
            raise _broken(f"product {product.product_id[:80]!r} is tagged twice, in two ways; keep one of them")
    return SocialPost(post_id, photo, tuple(products.values()))


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            # What is escaped in a cell was none of the row's texts yet.
            value = composed(from_json(value, allow_inf_nan=False)) if value.strip() else []
        except RecordError as error:
            raise _broken(f"products: {error}") from None
        except ValueError:
            value = 0
    if value is None:
        return []
    if not isinstance(value, list):
        raise _broken("products is no list; write [{product_id, thumbnail, title}, ...]")
    if len(value) > MAX_PRODUCTS:
        raise _broken(f"{len(value):,} products; a post has {MAX_PRODUCTS:,} at most")
    return value


def _product(value: Any, number: int, root: PictureRoot | None) -> TaggedProduct:
    if not isinstance(value, Mapping):
        raise _broken(f"product {number} is {repr(value)[:60]}; write {{product_id, thumbnail, title}}")
    try:
        title = value.get("title")
        return TaggedProduct(
            _id(value, PRODUCT_KEYS),
            _address(value.get("thumbnail"), "thumbnail", root),
            title.strip() if isinstance(title, str) else "",
        )
    except ItemError as error:
        raise _broken(f"product {number}: {error.message}") from None


def _id(record: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    found = record_id(record, keys, code="broken_row")
    if not found:
        raise _broken(f"no {keys[0]}; give one")
    if len(found) > MAX_ID_CHARACTERS:
        raise _broken(f"{keys[0]} has {len(found)} characters; ids have {MAX_ID_CHARACTERS} at most")
    return found


def _address(value: Any, name: str, root: PictureRoot | None) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise _broken(f"{name} is no text; write the picture's address or path")
    try:
        return picture_uri(value, None, root) if "://" in value else picture_uri(None, value, root)
    except ValueError as error:
        raise _broken(f"{name}: {error}") from None


def _broken(message: str) -> ItemError:
    return ItemError("broken_row", message)
