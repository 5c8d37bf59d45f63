"""What recall models learn from and are measured on: texts, and the pictures that show what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.record_texts import RecordError
from shopvision.catalogue.source_files import open_source
from shopvision.errors import ItemError, UserError
from shopvision.items.item import Item
from shopvision.items.record_parsing import item_from_record, picture_address, picture_root, pictures_of, record_id
from shopvision.items.text_normalisation import normalise
from shopvision.selection.recall.texts import TextForm, other_texts, recall_text
from shopvision.training.parting import common_folder, components, draw


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its pictures.

    Attributes:
        text: what is asked for, when it is measured.
        pictures: addresses of those that show it, one at least.
        others: further texts of the same, which training may ask for as well.
        category: for steps of one category; empty where it is unknown.
        item: that it was made of, if it was one.
    """

    text: str
    pictures: tuple[str, ...]
    others: tuple[str, ...] = ()
    category: str = ""
    item: Item | None = None

    @property
    def bound(self) -> tuple[str, ...]:
        """What must not be on two sides of a split."""
        return (f"text {self.text}", *(f"picture {picture}" for picture in self.pictures))


@dataclass(frozen=True)
class RecallData:
    """Examples in the order of their file, no two with one text.

    Attributes:
        examples: of the data.
        left_out: how many rows had no text or no picture.
    """

    examples: tuple[Example, ...]
    left_out: int = 0

    def texts(self) -> tuple[str, ...]:
        """Every text, once."""
        return tuple(dict.fromkeys(text for one in self.examples for text in (one.text, *one.others)))

    def pictures(self) -> tuple[str, ...]:
        """Every picture, once."""
        return tuple(dict.fromkeys(picture for one in self.examples for picture in one.pictures))

    def items(self) -> Iterator[Item]:
        """The items that examples were made of."""
        return (one.item for one in self.examples if one.item is not None)

    def with_examples(self, examples: Iterable[Example]) -> RecallData:
        """Others in their place."""
        return replace(self, examples=tuple(examples))

    def readable(self, pictures: Collection[str]) -> RecallData:
        """What can be shown by these pictures alone."""
        kept = (
            replace(one, pictures=tuple(picture for picture in one.pictures if picture in pictures))
            for one in self.examples
        )
        return self.with_examples(one for one in kept if one.pictures)

    def fingerprint(self) -> str:
        """Sha256 of what the examples say, wherever their pictures lie."""
        told = [
            [one.text, list(one.others), one.category, [picture.rpartition("/")[2] for picture in one.pictures]]
            for one in self.examples
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def read_pairs(path: Path, images: str | None = None) -> RecallData:
    """The data of a file of pairs (JSONL, CSV, Parquet) with the fields ``text``, ``picture`` and maybe ``category``.

    Rows of one text are one example with several pictures; a picture may show several texts.

    Args:
        path: the file.
        images: what relative pictures start from; the file's own folder where it is None.

    Raises:
        UserError: the file cannot be read, or a row is broken; the message names its line.
    """

    def example(record: Mapping[str, Any], root: PictureRoot) -> Example | None:
        text, picture = normalise(str(record.get("text") or "")), record.get("picture")
        if not text or not picture:
            return None
        category = str(record.get("category") or "")
        return Example(text, (picture_address(picture, "picture", root),), category=category)

    return _read(path, images, example, wanted="text and picture")


def read_items(path: Path, images: str | None = None, *, form: TextForm = "name") -> RecallData:
    """The data of items, as the catalogue imports them, with all their ``images``.

    Args:
        path: the file.
        images: what relative pictures start from; the file's own folder where it is None.
        form: what is asked for; the other forms are further texts.

    Raises:
        UserError: the file cannot be read, or an item is broken; the message names its line.
    """

    def example(record: Mapping[str, Any], root: PictureRoot) -> Example | None:
        item = item_from_record(record, record_id(record), root)
        text, pictures = recall_text(item, form), pictures_of(record, item, root)
        if not text or not pictures:
            return None
        return Example(text, pictures, other_texts(item, form), item.category_path or item.category, item)

    return _read(path, images, example, wanted="title and images")


def _read(
    path: Path,
    images: str | None,
    example: Callable[[Mapping[str, Any], PictureRoot], Example | None],
    *,
    wanted: str,
) -> RecallData:
    location = str(path)
    root = picture_root(location, images)
    by_text: dict[str, Example] = {}
    left_out = 0
    with open_source(location, own_exports=True) as source:
        for line, record in source.records:
            try:
                found = None if isinstance(record, RecordError) else example(record, root)
            except ItemError as error:
                raise UserError(f"{location}: line {line}: {error.message}.") from None
            if isinstance(record, RecordError):
                raise UserError(f"{location}: line {line}: {record}.")
            if found is None:
                left_out += 1
            else:
                by_text[found.text] = _merged(by_text.get(found.text), found)
    if not by_text:
        raise UserError(f"{location} has no row with {wanted}: name a file that has them.")
    return RecallData(tuple(by_text.values()), left_out)


def _merged(known: Example | None, found: Example) -> Example:
    if known is None:
        return found
    pictures = tuple(dict.fromkeys((*known.pictures, *found.pictures)))
    return replace(known, pictures=pictures, others=tuple(dict.fromkeys((*known.others, *found.others))))


def split(data: RecallData, share: float, seed: int) -> tuple[RecallData, RecallData]:
    """The training data, and ``share`` of the texts for validation; no text and no picture is in both.

    A side depends on content and seed, not on the order of the file or the folder that holds the pictures.

    Args:
        data: to be parted.
        share: of validation.
        seed: of the draw.

    Raises:
        UserError: too much hangs together.
    """
    numbers = components([one.bound for one in data.examples])
    members: dict[int, list[Example]] = {}
    for number, one in zip(numbers, data.examples, strict=True):
        members.setdefault(number, []).append(one)
    folder = common_folder(data.pictures())

    def drawn(number: int) -> bytes:
        return draw(min(key.replace(folder, "") for one in members[number] for key in one.bound), seed)

    wanted, chosen, size = round(share * len(data.examples)), set[int](), 0
    for number in sorted(members, key=drawn):
        if size + len(members[number]) <= wanted:
            chosen.add(number)
            size += len(members[number])
    if size < max(1, wanted / 2) or size == len(data.examples):
        raise UserError(
            f"{len(data.examples):,} texts hang together in {len(members):,} groups by their pictures, and cannot be "
            f"parted with a share of {share:g}: add some, or name a file for data.valid."
        )
    sides: list[list[Example]] = [[], []]
    for number, one in zip(numbers, data.examples, strict=True):
        sides[number in chosen].append(one)
    return data.with_examples(sides[0]), RecallData(tuple(sides[1]))


def require_apart(train: RecallData, valid: RecallData) -> None:
    """Refuse to measure on what was trained on.

    Raises:
        UserError: names what both have.
    """
    sides = [{key for one in data.examples for key in one.bound} for data in (train, valid)]
    if both := sides[0] & sides[1]:
        raise UserError(
            f"The {min(both)} is in training and validation ({len(both):,} such): what is measured would be what was "
            "learnt by heart. Remove it from one of the files."
        )


def right_pictures(data: RecallData, pictures: Sequence[str], contents: Sequence[int]) -> list[list[int]]:
    """For each example the rows of ``pictures`` that show it: its own, and those of the same bytes.

    Args:
        data: n examples.
        pictures: addresses.
        contents: of the pictures, equal for equal bytes.
    """
    rows_of: dict[int, list[int]] = {}
    for row, content in enumerate(contents):
        rows_of.setdefault(content, []).append(row)
    content_of = dict(zip(pictures, contents, strict=True))
    return [sorted({row for one in example.pictures for row in rows_of[content_of[one]]}) for example in data.examples]
