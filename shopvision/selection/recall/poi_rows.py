"""The published recall protocol's file: places (POIs), and the pictures that people took of them.

No header, seven fields separated by commas: id, name, address of a picture, its rank among those of the place, width,
height, and a number that says how well known the place is. The pictures themselves lie in one folder, each named
``<id>_<anything>.jpg`` (or png).
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shopvision.errors import UserError

FIELDS = ("poi_id", "poi_name", "image_url", "rank_number", "width", "height", "extend")
_NUMBERS = FIELDS[3:]
PICTURE_ENDINGS = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True, slots=True)
class PoiRow:
    """A picture of a place.

    Attributes:
        poi_id: of the place.
        name: of the place; several may share one.
        url: of the picture, as published; it may be dead.
        rank: among the pictures of the place, from 1.
        size: width and height, pixels.
        extend: how well known the place is.
    """

    poi_id: str
    name: str
    url: str
    rank: int
    size: tuple[int, int]
    extend: int


@dataclass(frozen=True)
class PoiRows:
    """A whole file."""

    rows: tuple[PoiRow, ...]

    def names(self) -> dict[tuple[str, str], None]:
        """Every (id, name), in the order of the file."""
        return dict.fromkeys((row.poi_id, row.name) for row in self.rows)

    def shared_names(self) -> dict[str, tuple[str, ...]]:
        """Names that several places have, and whose they are."""
        ids: dict[str, list[str]] = {}
        for poi_id, name in self.names():
            ids.setdefault(name, []).append(poi_id)
        return {name: tuple(of) for name, of in ids.items() if len(of) > 1}

    def shared_urls(self) -> dict[str, tuple[str, ...]]:
        """Addresses of pictures that stand under several places, and whose they are."""
        ids: dict[str, dict[str, None]] = {}
        for row in self.rows:
            ids.setdefault(row.url, {})[row.poi_id] = None
        return {url: tuple(of) for url, of in ids.items() if len(of) > 1}

    def pictures_a_place(self) -> Counter[int]:
        """How many places have how many pictures."""
        return Counter(Counter(row.poi_id for row in self.rows).values())


def read_poi_rows(path: Path) -> PoiRows:
    """The rows of a file.

    Raises:
        UserError: the file cannot be read, or a row is broken; the message names its line.
    """
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, cells in enumerate(csv.reader(file), 1):
                if cells:
                    rows.append(_row(cells, f"{path}: line {number}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read ({reason}): name the file of places and pictures, in UTF-8.") from None
    if not rows:
        raise UserError(f"{path} has no rows: name the file of places and pictures.")
    return PoiRows(tuple(rows))


def _row(cells: list[str], where: str) -> PoiRow:
    if len(cells) != len(FIELDS):
        raise UserError(f"{where}: {len(cells)} fields, not {len(FIELDS)}: {', '.join(FIELDS)}.")
    texts = dict(zip(FIELDS, map(str.strip, cells), strict=True))
    if not texts["poi_id"] or not texts["poi_name"]:
        raise UserError(f"{where}: a place without id or name: give it both.")
    numbers = {}
    for field in _NUMBERS:
        if not texts[field].isdecimal():
            raise UserError(f"{where}: {field} is '{texts[field]}': write a whole number.")
        numbers[field] = int(texts[field])
    return PoiRow(
        texts["poi_id"],
        texts["poi_name"],
        texts["image_url"],
        numbers["rank_number"],
        (numbers["width"], numbers["height"]),
        numbers["extend"],
    )


def pictures_of_places(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each place, by its id, which is what stands before the first underscore of a file's name.

    Raises:
        UserError: there is no such folder, or no such picture in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: name the one with the places' pictures.")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        poi_id, underscore, _ = path.stem.partition("_")
        if underscore and path.suffix.lower() in PICTURE_ENDINGS:
            found.setdefault(poi_id, []).append(path)
    if not found:
        raise UserError(f"{folder} holds no picture named <poi_id>_<anything>.jpg or .png: rename them.")
    return found
