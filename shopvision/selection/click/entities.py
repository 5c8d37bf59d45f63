"""What several items share: brands, categories, collections, values of attributes, sights; and which count most.

A shop's own catalogue has them all (``entities_of``); others come from a file (``read_entities``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.errors import ItemError, UserError
from shopvision.items.item import Item
from shopvision.items.record_parsing import picture_address, picture_root, record_id

Order = Literal["counts", "frequency"]

NAMED = "entity"  # the kind of those that a source only names
PICTURES_EACH = 10  # published: a sight's ten first pictures
LIST_SEPARATOR = "|"
COUNT_WEIGHTS = (1, 5, 3)  # published: sights come in the order of c0 + 5 c1 + 3 c2, the largest first
COUNT_KEYS = ("n0", "n1", "n2")
NO_ENTITIES = {"currency"}  # says what a price means


class EntityKey(NamedTuple):
    """What an entity is known by: ``brand`` and ``Puma`` are another one than ``collection`` and ``Puma``."""

    kind: str
    name: str


@dataclass(frozen=True)
class EntityFacts:
    """An entity before any model has seen it.

    Attributes:
        key: kind and name.
        entity_id: of the source; the name where it has none.
        pictures: addresses of at most ``PICTURES_EACH`` pictures.
        counts: how many pictures a source counts, in three classes of its own; zeros where it does not.
        frequency: how many items belong to it.
    """

    key: EntityKey
    entity_id: str = ""
    pictures: tuple[str, ...] = ()
    counts: tuple[int, int, int] = (0, 0, 0)
    frequency: int = 0

    @property
    def weight(self) -> int:
        """The published order goes by it."""
        return sum(weight * count for weight, count in zip(COUNT_WEIGHTS, self.counts, strict=True))


@dataclass(frozen=True)
class EntityTable:
    """Entities by key; one that is not there is known by its name alone."""

    facts: Mapping[EntityKey, EntityFacts] = field(default_factory=dict)

    def get(self, key: EntityKey) -> EntityFacts:
        """What is known of an entity."""
        return self.facts.get(key) or EntityFacts(key, key.name)

    def ordered(self, keys: Iterable[EntityKey], order: Order) -> list[EntityFacts]:
        """The entities of an item, the most telling first; equal ones stay in the order of the source.

        Args:
            keys: of the item; repeated ones count once.
            order: ``counts``, the published rule: by pictures counted, ``c0 + 5 c1 + 3 c2``; or ``frequency``: by how
                many items belong to it. Unknown entities come last.
        """
        facts = [self.get(key) for key in dict.fromkeys(keys)]
        if order == "counts":
            return sorted(facts, key=lambda one: -one.weight)
        return sorted(facts, key=lambda one: -one.frequency)

    def merged(self, other: EntityTable) -> EntityTable:
        """Both; what ``other`` says of an entity counts, but for how many items belong to it."""
        facts = dict(self.facts)
        for key, one in other.facts.items():
            facts[key] = replace(one, frequency=self.get(key).frequency + one.frequency)
        return EntityTable(facts)


def entities_of(item: Item) -> tuple[EntityKey, ...]:
    """The entities that an item of a catalogue belongs to: its brand, its category, every value of its attributes."""
    found = [EntityKey("brand", item.brand), EntityKey("category", item.category)]
    found += [
        EntityKey(key, value) for key, values in item.attributes.items() if key not in NO_ENTITIES for value in values
    ]
    return tuple(dict.fromkeys(EntityKey(kind, name.strip()) for kind, name in found if name.strip()))


def entities_of_items(items: Iterable[Item]) -> EntityTable:
    """The entities of a catalogue, with the leading pictures of the first items of each, and how many items it has."""
    pictures: dict[EntityKey, list[str]] = {}
    frequency: dict[EntityKey, int] = {}
    for item in items:
        for key in entities_of(item):
            frequency[key] = frequency.get(key, 0) + 1
            of_entity = pictures.setdefault(key, [])
            if item.picture and len(of_entity) < PICTURES_EACH:
                of_entity.append(item.picture)
    return EntityTable(
        {
            key: EntityFacts(key, key.name, tuple(pictures[key]), (count, 0, 0), count)
            for key, count in frequency.items()
        }
    )


def read_entities(path: Path, *, images: str | None = None) -> EntityTable:
    """The entities of a file.

    ``.jsonl``, ``.csv`` or ``.parquet``: ``name``, and if known ``id``, ``kind``, ``pictures`` (a list, or joined by
    ``|``) and the counts ``n0``, ``n1``, ``n2``. Or ``.json``: name -> the three counts, as the published table.

    Args:
        path: the file.
        images: what relative pictures start from; the file's own folder where it is None.

    Raises:
        UserError: the file cannot be read, an entity has no name, or is described twice.
    """
    if path.suffix == ".json":
        return EntityTable(_published_counts(path))
    root = picture_root(str(path), images)
    facts: dict[EntityKey, EntityFacts] = {}
    with open_source(str(path), own_exports=True) as source:
        for line, record in source.records:
            try:
                _keep(_entity(record, root), facts)
            except ItemError as error:
                raise UserError(f"{path}: line {line}: {error.message}.") from None
    return EntityTable(facts)


def _keep(one: EntityFacts, facts: dict[EntityKey, EntityFacts]) -> None:
    if facts.setdefault(one.key, one) != one:
        raise ItemError("contradiction", f"{one.key.kind} {one.key.name!r} was described otherwise before; keep one")


def _published_counts(path: Path) -> dict[EntityKey, EntityFacts]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): give name -> [n0, n1, n2].") from None
    facts = {}
    for name, counts in table.items() if isinstance(table, dict) else [(path.name, None)]:
        key = EntityKey(NAMED, name.strip())
        facts[key] = EntityFacts(key, name.strip(), counts=_counts(counts, f"{path}: {name!r}"))
    return facts


def _counts(values: Any, what: str) -> tuple[int, int, int]:
    try:
        first, second, third = (int(value) for value in values)
    except (TypeError, ValueError):
        raise UserError(f"{what} has no three counts: give name -> [n0, n1, n2].") from None
    return first, second, third


def _entity(record: dict[str, Any] | RecordError, root: Any) -> EntityFacts:
    if isinstance(record, RecordError):
        raise ItemError("broken_record", str(record))
    name = str(record.get("name") or "").strip()
    if not name:
        raise ItemError("broken_record", "no name; every entity needs one")
    key = EntityKey(str(record.get("kind") or NAMED).strip(), name)
    given = [record.get(count) or 0 for count in COUNT_KEYS]
    try:
        counts = _counts(given, name)
    except UserError:
        raise ItemError("broken_record", f"{', '.join(COUNT_KEYS)} are {given}; write whole numbers") from None
    pictures = as_list(record.get("pictures"))[:PICTURES_EACH]
    addresses = tuple(picture_address(picture, "pictures", root) for picture in pictures)
    return EntityFacts(key, record_id(record) or name, addresses, counts)


def as_list(value: Any) -> Sequence[Any]:
    """A cell that holds several: a list, or texts joined by ``|``; nothing is an empty list."""
    if value is None or value == "":
        return []
    if isinstance(value, (list, tuple)):
        return value
    return [part.strip() for part in str(value).split(LIST_SEPARATOR) if part.strip()]
