"""The items of a blocking run as row numbers, so that millions of them fit in memory: 28 bytes each beside the id."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.matching.options import Within

Rows = NDArray[np.int32]
_LOOKUP = 50_000
_SEPARATORS = re.compile(r"->|[/>]")  # between the parts of a category path


def digest(text: str) -> int:
    """64 bits of a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


class ItemRows:
    """Ids and categories by row number; rows are numbered in the order items are added.

    Ids are found again by 64-bit digests: among ten million of them the chance of two alike is one in 400,000.
    """

    def __init__(self, within: Within) -> None:
        self._within = within
        self._text = bytearray()
        self._ends = array("q", [0])
        self._digests = array("Q")
        self._codes = array("i")
        self._paths: dict[str, int] = {}
        self._sorted: tuple[NDArray[np.uint64], Rows] | None = None
        self._categories: Categories | None = None

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, item_id: str, category: str) -> None:
        """Add the next row."""
        self._text += item_id.encode(errors="surrogatepass")
        self._ends.append(len(self._text))
        self._digests.append(digest(item_id))
        self._codes.append(self._paths.setdefault(_scope(category, self._within), len(self._paths)))

    def item_id(self, row: int) -> str:
        """The id of a row."""
        return self._text[self._ends[row] : self._ends[row + 1]].decode(errors="surrogatepass")

    def find(self, item_ids: Iterable[str]) -> Rows:
        """The row of each id, in their order; -1 where there is none.

        Raises:
            UserError: an id was added twice.
        """
        ascending, order = self._lookup()
        wanted = np.fromiter(map(digest, item_ids), np.uint64)
        if not len(ascending):
            return np.full(len(wanted), -1, np.int32)
        places = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
        return np.where(ascending[places] == wanted, order[places], np.int32(-1)).astype(np.int32)

    def _lookup(self) -> tuple[NDArray[np.uint64], Rows]:
        """Digests ascending, and their rows."""
        if self._sorted is None:
            digests = np.frombuffer(self._digests, np.uint64)
            order = np.argsort(digests, kind="stable").astype(np.int32)
            ascending = digests[order]
            twice = np.flatnonzero(ascending[1:] == ascending[:-1])
            if len(twice):
                raise UserError(f"Item {self.item_id(int(order[twice[0]]))!r} is given twice: ids must be unique.")
            self._sorted = ascending, order
        return self._sorted

    def all_of(self, item_ids: Iterable[str] | None) -> Rows:
        """Rows of these ids, ascending and distinct; every row for ``None``. Unknown ids are passed over.

        Raises:
            UserError: an id was added twice.
        """
        self._lookup()
        if item_ids is None:
            return np.arange(len(self), dtype=np.int32)
        wanted, ids = np.zeros(len(self), np.bool_), iter(item_ids)
        while part := list(islice(ids, _LOOKUP)):
            rows = self.find(part)
            wanted[rows[rows >= 0]] = True
        return np.flatnonzero(wanted).astype(np.int32)

    def categories(self) -> Categories:
        """Which rows may be compared, once all are added."""
        if self._categories is None:
            self._categories = Categories(np.frombuffer(self._codes, np.int32), list(self._paths))
        return self._categories


class Categories:
    """Which rows may be compared: those where one's path begins with the other's. An empty path goes with any.

    Attributes:
        roots: number of the first part of each row's path, -1 for an empty path; shape (rows,).
        names: first part by number.
    """

    def __init__(self, codes: NDArray[np.int32], paths: Sequence[str]) -> None:
        # In this order a path is followed by all that lies below it, so "begins with" is a range of numbers.
        order = sorted(range(len(paths)), key=lambda code: f"{paths[code]}/")
        ascending = [f"{paths[code]}/" for code in order]
        number = np.empty(len(paths), np.int32)
        number[order] = np.arange(len(paths))
        self._end = np.array([_end_of(ascending, place) for place in range(len(ascending))], np.int32)
        self._none = np.array([path == "/" for path in ascending], np.bool_)
        self._number = number[codes] if len(codes) else codes
        firsts = [path.partition("/")[0] for path in ascending]
        self.names = sorted(set(firsts) - {""})
        by_name = {name: place for place, name in enumerate(self.names)} | {"": -1}
        roots = np.array([by_name[first] for first in firsts], np.int32)
        self.roots = roots[self._number] if len(codes) else codes

    def root_names(self, rows: Rows) -> list[str]:
        """The first part of each row's path, empty for an empty path."""
        return [self.names[root] if root >= 0 else "" for root in self.roots[rows].tolist()]

    def compatible(self, left: Rows, right: Rows) -> NDArray[np.bool_]:
        """Whether rows ``left[i]`` and ``right[i]`` may be compared."""
        a, b = self._number[left], self._number[right]
        below = ((a <= b) & (b < self._end[a])) | ((b <= a) & (a < self._end[b]))
        return np.asarray(below | self._none[a] | self._none[b])


def root_of(category: str, within: Within) -> str:
    """The first part of a category path, empty where there is none or where all items are compared."""
    return _scope(category, within).partition("/")[0]


def category_parts(category: str) -> list[str]:
    """The parts of a category path, whichever way they are separated."""
    return [part.strip() for part in _SEPARATORS.split(category) if part.strip()]


@lru_cache(maxsize=2**14)
def _scope(category: str, within: Within) -> str:
    path = "/".join(category_parts(category))
    if within == "any":
        return ""
    return path.partition("/")[0] if within == "root_category" else path


def _end_of(ascending: Sequence[str], place: int) -> int:
    """One past the last path below ``ascending[place]``."""
    end = place + 1
    while end < len(ascending) and ascending[end].startswith(ascending[place]):
        end += 1
    return end
