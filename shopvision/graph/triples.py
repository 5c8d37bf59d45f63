"""What a shop's catalogue says of its items, as triples: head text, relation, tail text or picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.errors import ItemError, UserError
from shopvision.graph.relations import RELATIONS, Relation
from shopvision.items.item import Item
from shopvision.items.record_parsing import picture_address, picture_root
from shopvision.items.text_normalisation import attribute_key, normalise

TailKind = Literal["text", "picture"]
_FIELDS = ("head", "relation", "tail")


@dataclass(frozen=True, slots=True)
class Triple:
    """One statement: ``("Runner 3", "has_category", "Shoes")``.

    Attributes:
        head: a text.
        relation: between the two.
        tail: a text, or of ``has_picture`` the address of a picture.
    """

    head: str
    relation: Relation
    tail: str

    @property
    def tail_kind(self) -> TailKind:
        """Which tower reads the tail."""
        return "picture" if self.relation == "has_picture" else "text"


def catalogue_triples(items: Iterable[Item]) -> Iterator[Triple]:
    """What items say of themselves, each statement once.

    =================  =======================  ==========================================================
    relation           head                     tail
    =================  =======================  ==========================================================
    ``has_category``   title                    the finest name of its category path
    ``of_brand``       title                    brand
    ``has_attribute``  title                    ``key value``, for each value of each attribute
    ``has_picture``    title                    address of its leading picture
    ``has_title``      the category's name      title: what the items of a category are called
    =================  =======================  ==========================================================

    Args:
        items: those without a title say nothing.
    """
    seen: set[Triple] = set()
    for item in items:
        title = normalise(item.title)
        if not title:
            continue
        category = _finest(item.category_path or item.category)
        statements: list[tuple[str, Relation, str]] = [
            (title, "has_category", category),
            (title, "of_brand", normalise(item.brand)),
            *(
                (title, "has_attribute", f"{normalise(key)} {normalise(value)}" if normalise(value) else "")
                for key, values in item.attributes.items()
                if attribute_key(key) != "currency"  # says what a price means
                for value in values
            ),
            (title, "has_picture", item.picture),
            (category, "has_title", title),
        ]
        for head, relation, tail in statements:
            triple = Triple(head, relation, tail)
            if head and tail and triple not in seen:
                seen.add(triple)
                yield triple


def read_triples(path: Path, images: str | None = None) -> list[Triple]:
    """The triples of a file (JSONL, CSV, Parquet) with the fields ``head``, ``relation`` and ``tail``.

    Args:
        path: the file.
        images: what relative pictures start from; the file's own folder where it is None.

    Raises:
        UserError: the file cannot be read, or a row is broken; the message names its line.
    """
    root = picture_root(str(path), images)
    triples: dict[Triple, None] = {}
    for line, texts in read_rows(path):
        try:
            triples[_triple(*texts, root)] = None
        except ItemError as error:
            raise _at(path, line, error) from None
    if not triples:
        raise UserError(f"{path} has no triple: give rows with {', '.join(_FIELDS)}.")
    return list(triples)


def read_rows(path: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """The rows of a file with the fields ``head``, ``relation`` and ``tail``, whatever the relations are called.

    Yields:
        Line, and the three texts without blanks around them.

    Raises:
        UserError: see ``read_triples``.
    """
    with open_source(str(path), own_exports=True) as source:
        for line, record in source.records:
            try:
                yield line, _texts(record)
            except ItemError as error:
                raise _at(path, line, error) from None


def _at(path: Path, line: int, error: ItemError) -> UserError:
    return UserError(f"{path}: line {line}: {error.message}.")


def _texts(record: Mapping[str, Any] | RecordError) -> tuple[str, str, str]:
    if isinstance(record, RecordError):
        raise ItemError("broken_record", str(record))
    texts = []
    for field in _FIELDS:
        value = record.get(field)
        if not isinstance(value, str) or not value.strip():
            raise ItemError("broken_record", f"no {field}; every triple has {', '.join(_FIELDS)}")
        texts.append(value.strip())
    head, relation, tail = texts
    return head, relation, tail


def _triple(head: str, called: str, tail: str, root: PictureRoot) -> Triple:
    relation = next((known for known in RELATIONS if known == called), None)
    if relation is None:
        raise ItemError("broken_record", f"no relation {called!r}; there are {', '.join(RELATIONS)}")
    is_picture = relation == "has_picture"
    return Triple(normalise(head), relation, picture_address(tail, "tail", root) if is_picture else normalise(tail))


def _finest(category: str) -> str:
    """``"Women/Tops/Tees"`` and ``"Women > Tops > Tees"`` -> ``Tees``."""
    return normalise(category.replace(">", "/").rpartition("/")[2])
