"""A knowledge graph in numbers: entities, relations, and triples (head, relation, tail) of them.

Entities of a catalogue are called ``/item/ID`` and ``/value/TEXT``, as in the published graph of CCKS 2022's items
(sunzeyeah/item-alignment). A value is one entity whatever keys it stands under.

Letters in shapes: n triples, E entities, R relations.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.graph.facts import item_facts, value_name
from shopvision.graph.triples import read_rows
from shopvision.items.item import Item
from shopvision.items.text_normalisation import attribute_key

ITEM, VALUE = "/item/", "/value/"
FEWEST = 10
"""Triples that a graph must have, so that some can be held out."""

Statement = tuple[str, str, str]
"""(head, relation, tail), by name."""


@dataclass(frozen=True)
class KnowledgeGraph:
    """A graph.

    Attributes:
        entities: E names.
        relations: R names, the most frequent first.
        triples: (n, 3) int64 numbers of head, relation and tail; no two are equal.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    triples: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.triples)

    @classmethod
    def of_statements(cls, statements: Iterable[Statement]) -> KnowledgeGraph:
        """What ``statements`` say, each once.

        Raises:
            UserError: they are too few to learn from.
        """
        said = list(dict.fromkeys(statements))
        if len(said) < FEWEST:
            raise UserError(
                f"The graph has {len(said)} triples: give {FEWEST} or more, some hundred to learn anything."
            )
        often = Counter(relation for _, relation, _ in said)
        relations = {
            name: row for row, (name, _) in enumerate(sorted(often.items(), key=lambda one: (-one[1], one[0])))
        }
        entities: dict[str, int] = {}
        triples = np.array(
            [
                (
                    entities.setdefault(head, len(entities)),
                    relations[relation],
                    entities.setdefault(tail, len(entities)),
                )
                for head, relation, tail in said
            ],
            np.int64,
        )
        return cls(tuple(entities), tuple(relations), triples)

    def fingerprint(self) -> str:
        """sha256 over names and triples."""
        digest = hashlib.sha256("\n".join((*self.entities, "", *self.relations)).encode(errors="surrogatepass"))
        digest.update(np.ascontiguousarray(self.triples).tobytes())
        return digest.hexdigest()


def item_statements(items: Iterable[Item], fewest: int = 1) -> list[Statement]:
    """What items say of themselves: a triple for every value of every key.

    Args:
        items: of a catalogue.
        fewest: values that fewer items have are left out: nothing can be learnt of how they relate.
    """
    facts = [(item.item_id, fact) for item in items for fact in item_facts(item)]
    often = Counter(fact for _, fact in facts)
    return [(ITEM + item, key, VALUE + value) for item, (key, value) in facts if often[key, value] >= fewest]


def file_statements(path: Path) -> list[Statement]:
    """The triples of a file (JSONL, CSV, Parquet): ids of items, keys and values as ``head``, ``relation``, ``tail``.

    What is named ``/item/...`` or ``/value/...`` is taken as it is, on either side.

    Raises:
        UserError: the file cannot be read, or a row is broken; the message names its line.
    """
    return [
        (
            head if head.startswith((ITEM, VALUE)) else ITEM + head,
            attribute_key(relation),
            tail if tail.startswith((ITEM, VALUE)) else VALUE + value_name(tail),
        )
        for _, (head, relation, tail) in read_rows(path)
    ]


def hold_out(triples: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """(n,) which triples to measure on: drawn, but for what would be all that is said of an entity or a relation.

    Args:
        triples: (n, 3).
        share: of all, one at least; fewer where the graph is so thin that no more can be spared.
        seed: of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(triples))
    drawn = triples[order]
    spared = np.ones(len(triples), np.bool_)
    for names in (drawn[:, [0, 2]].ravel(), np.repeat(drawn[:, 1], 2)):
        spared[np.unique(names, return_index=True)[1] // 2] = False
    held = np.zeros(len(triples), np.bool_)
    held[order[np.flatnonzero(spared)[: max(1, round(share * len(triples)))]]] = True
    return held


def triple_keys(triples: NDArray[np.int64], entities: int, relations: int) -> NDArray[np.int64]:
    """(n,) one number for each triple, sorted as head, relation, tail are.

    Raises:
        UserError: the graph is so large that there are not enough numbers.
    """
    if entities * entities * relations > np.iinfo(np.int64).max:
        raise UserError(f"{entities:,} entities and {relations:,} relations are too many: leave out rare values.")
    keys: NDArray[np.int64] = (triples[:, 0] * relations + triples[:, 1]) * entities + triples[:, 2]
    return keys
