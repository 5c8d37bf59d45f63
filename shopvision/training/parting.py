"""What the splits of trainings have in common: draws that no order of a file changes, and what hangs together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterable, Sequence


def draw(name: str, seed: int) -> bytes:
    """What puts a thing into an order that depends on its name and the seed alone."""
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def components(bound: Sequence[Iterable[Hashable]]) -> list[int]:
    """For each of n things the number of its component: the place of the first thing of it.

    Args:
        bound: of each thing, what binds it to others that have it too, over any chain of others.
    """
    parent = list(range(len(bound)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[Hashable, int] = {}
    for place, keys in enumerate(bound):
        for key in keys:
            one, other = root(first.setdefault(key, place)), root(place)
            parent[max(one, other)] = min(one, other)
    return [root(place) for place in range(len(bound))]


def common_folder(uris: Sequence[str]) -> str:
    """What all addresses begin with, up to a ``/`` and with it; empty where they have no folder in common."""
    folder, slash, _ = os.path.commonprefix(uris).rpartition("/")  # noqa: RUF071 - cut at a slash, and addresses are no paths
    return folder + slash
