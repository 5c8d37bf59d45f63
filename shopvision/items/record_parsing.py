"""Items from records as files hold them, under the names of the catalogue, of CCKS 2022 and of common tables."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shopvision.catalogue.picture_addresses import PictureRoot, picture_uri
from shopvision.errors import ItemError
from shopvision.items.attribute_strings import BETWEEN_KEY_AND_VALUE, merge_attributes, parse_attributes
from shopvision.items.item import Box, Item

ID_KEYS = ("item_id", "id")
# Our field -> the keys it may have; the first that is not empty counts.
TEXT_KEYS = {
    "title": ("title", "name"),
    "category": ("category", "cate_name", "cate_id"),
    "brand": ("brand",),
    "price": ("price",),
    "description": ("description",),
    "industry": ("industry_name",),
    "category_path": ("cate_name_path", "cate_id_path"),
    "source": ("source",),
}
ATTRIBUTE_KEYS = ("attributes", "sku_attributes", "item_pvs", "sku_pvs")
PICTURE_KEYS = ("picture", "image", "image_url", "item_image_name", "images")
PLAIN_NUMBER = re.compile(r"[0-9]+\.[0-9]+")  # 52.0 and 52 are one price


def record_id(record: Mapping[str, Any], keys: Iterable[str] = ID_KEYS, *, code: str = "broken_record") -> str:
    """The first id that is there, as text; empty where there is none.

    Raises:
        ItemError: ``code``: the number 1.0 is no id. Whether it was 1 once, as a table makes of a column with gaps, or
            is another item than 1, nobody can tell; the texts 1 and 1.0 are two ids.
    """
    for key in keys:
        value = record.get(key)
        if isinstance(value, float):
            raise ItemError(code, f"{key} is the number {value!r}; write ids as text or as whole numbers")
        if value is not None and not isinstance(value, (dict, list)) and (text := str(value).strip()):
            return text
    return ""


def picture_root(location: str, images: str | None) -> PictureRoot:
    """What relative pictures start from: ``images``, or where that is None the folder of the file at ``location``.

    Raises:
        UserError: there is no such folder.
    """
    if images is not None or "://" in location:
        return PictureRoot.parse(images or location.rpartition("/")[0])
    folder = Path(location).resolve().parent
    return PictureRoot(folder.as_uri().rstrip("/") + "/", folder)


def item_from_record(record: Mapping[str, Any], item_id: str, root: PictureRoot | None = None) -> Item:
    """An item from a JSON object or the cells of a row.

    Attributes are those under ``attributes`` and ``sku_attributes`` (lists of ``{key, value}``, or key -> value or
    values) and ``item_pvs`` and ``sku_pvs`` (attribute strings; the others may be such strings too), and the currency,
    which says what a price means. Other keys are none: a counter of the stock would make another item of it every day.
    ``regions`` are boxes in the leading picture, ``[left, top, right, bottom]`` in shares of it.

    Args:
        root: where relative pictures start from; without one only full addresses are taken.

    Raises:
        ItemError: ``broken_attributes``, or ``broken_record``: a field is of another kind than expected.
    """
    texts = {field: _first_text(record, keys) for field, keys in TEXT_KEYS.items()}
    if PLAIN_NUMBER.fullmatch(texts["price"]):
        texts["price"] = texts["price"].rstrip("0").rstrip(".")
    given = [pair for key in ATTRIBUTE_KEYS for pair in _attributes(key, record.get(key))]
    attributes = merge_attributes(given, _flat({"currency": record.get("currency")}))
    picture = _picture(record, root)
    return Item(item_id, **texts, attributes=attributes, picture=picture, regions=_regions(record.get("regions")))


def _first_text(record: Mapping[str, Any], keys: Iterable[str]) -> str:
    for key in keys:
        value = record.get(key)
        if isinstance(value, str):
            if text := value.strip():
                return text
            continue
        if isinstance(value, (list, tuple)) and key == "category":
            value = "/".join(map(str, value))
        elif isinstance(value, (dict, list, tuple)):
            raise ItemError("broken_record", f"{key} is no text; write it as one text")
        if value is not None and (text := str(value).strip()):
            return text
    return ""


def _attributes(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return parse_attributes(value)
    if isinstance(value, Mapping):
        return _flat(value)
    if value is None:
        return []
    pairs = []
    if not isinstance(value, (list, tuple)):
        raise ItemError("broken_record", f"{name} is neither a list of {{key, value}} nor an attribute string")
    for entry in value:
        if not isinstance(entry, Mapping) or set(entry) < {"key", "value"}:
            raise ItemError(
                "broken_record",
                f"{name} holds {str(entry)[:60]!r}; write {{key, value}}, or a string key{BETWEEN_KEY_AND_VALUE}value",
            )
        pairs += _flat({str(entry["key"]): entry["value"]})
    return pairs


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(key, value) of texts, numbers and lists of them; all else, marks of yes and no too, is no attribute."""
    pairs = []
    for key, value in values.items():
        for single in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(single, (str, int, float)) and not isinstance(single, bool):
                text = str(single).strip()
                if text and key.strip():
                    pairs.append((key.strip(), text))
    return pairs


def _picture(record: Mapping[str, Any], root: PictureRoot | None) -> str:
    """The address of the leading picture."""
    for key in PICTURE_KEYS:
        value = record.get(key)
        if isinstance(value, (list, tuple)):
            value = value[0] if value else None
        if not value:
            continue
        return picture_address(value, key, root)
    return ""


def _regions(value: Any) -> tuple[Box, ...]:
    boxes: list[Box] = []
    for given in value or ():
        numbers = given if isinstance(given, (list, tuple)) else ()
        box = tuple(float(number) for number in numbers if isinstance(number, (int, float)))
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ItemError(
                "broken_record",
                f"regions holds {str(given)[:60]!r}; write [left, top, right, bottom] in shares of the picture, 0 to 1",
            )
        boxes.append(box)
    return tuple(boxes)


def pictures_of(record: Mapping[str, Any], item: Item, root: PictureRoot | None) -> tuple[str, ...]:
    """The addresses of all pictures of a record, each once, the leading one first.

    Args:
        record: as given to ``item_from_record``.
        item: what that made of it.
        root: where relative pictures start from.

    Raises:
        ItemError: see ``picture_address``.
    """
    given = record.get("images")
    further = given if isinstance(given, (list, tuple)) else ()
    leading = [item.picture] if item.picture else []
    return tuple(dict.fromkeys([*leading, *(picture_address(picture, "images", root) for picture in further)]))


def picture_address(picture: Any, key: str, root: PictureRoot | None) -> str:
    """The address of one picture, which a record holds under ``key``: an address, a path, or ``{uri}`` or ``{file}``.

    Raises:
        ItemError: ``broken_record``: it is nothing of these, or leads out of ``root``.
    """
    if isinstance(picture, str):
        picture = {"uri": picture} if "://" in picture else {"file": picture}
    if not isinstance(picture, Mapping):
        raise ItemError("broken_record", f"{key} holds no address and no file name; write one of them")
    uri, file = picture.get("uri"), picture.get("file")
    if key == "item_image_name" and file and root is not None:
        file = posixpath.join("item_images", file)
    try:
        return picture_uri(uri, file, root)
    except ValueError as error:
        raise ItemError("broken_record", f"{key}: {error}") from None
