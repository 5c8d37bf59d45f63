"""An exhibition table on disk (CSV, also gzipped, or Parquet) as batches of our columns.

==========================  ==========  ==============================================================================
column                                  meaning
==========================  ==========  ==============================================================================
``exhibit_id``              required    the plan; its ``exhibit_*`` texts are the same in all its rows
``prod_id``                 required    the product; its picture is ``<prod_id>.jpg`` where ``image`` says nothing
``exhibit_name``            required    slot name of the plan's topic
``exhibit_page_title``                  slot desc
``exhibit_startdate``                   slot date, YYYY-MM-DD, or a moment (see ``shopvision.selection.plan_dates``)
``exhibit_cat1`` .. ``4``               slots cat1 to cat4
``exhibit_kwds``                        slot kwds, separated by commas
``prod_name``                           the product's own name
``prod_text``                           slot desc of the product
``prod_opendate``                       slot date
``prod_cat1`` .. ``4``                  slots cat1 to cat4
``prod_page_title``                     slot kwds
``image``                               path below the picture folder, or an address (file:///, s3://, https://)
any numeric column          required    the label: ``ctr``, ``prod_review_cnt``, a sales count
==========================  ==========  ==============================================================================

The older names ``plan_*`` are taken for ``exhibit_*``. Other columns are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet
from pydantic import BaseModel, create_model

from shopvision.catalogue.column_mapping import Mapping as ColumnMapping
from shopvision.catalogue.source_files import columns_of_csv
from shopvision.errors import UserError
from shopvision.selection.plan_dates import DAY_CHARACTERS, day_of

EXHIBITION_SLOTS = {
    "name": "exhibit_name",
    "desc": "exhibit_page_title",
    "date": "exhibit_startdate",
    **{f"cat{depth}": f"exhibit_cat{depth}" for depth in (1, 2, 3, 4)},
    "kwds": "exhibit_kwds",
}
PRODUCT_SLOTS = {
    "name": "prod_name",
    "desc": "prod_text",
    "date": "prod_opendate",
    **{f"cat{depth}": f"prod_cat{depth}" for depth in (1, 2, 3, 4)},
    "kwds": "prod_page_title",
}
KEYS = ("exhibit_id", "prod_id")
REQUIRED = (*KEYS, "exhibit_name")
OURS = (*KEYS, *EXHIBITION_SLOTS.values(), *PRODUCT_SLOTS.values(), "image")
NAMES = {*KEYS, "image"}
DATES = {EXHIBITION_SLOTS["date"], PRODUCT_SLOTS["date"]}
LIKE_ENOUGH = 0.85  # similarity from which a column that we do not know is taken for a misspelt one

PARQUET_BATCH_ROWS = 65_536
CSV_BLOCK_BYTES = 4 * 2**20  # also the longest row

ExhibitionRow = create_model("ExhibitionRow", **dict.fromkeys(OURS, (str, "")))  # type: ignore[call-overload]  # a dict
"""The fields that a mapping file may name."""


@dataclass(frozen=True)
class ExhibitionTable:
    """An opened table.

    Attributes:
        columns: our column -> theirs, of those that are there.
        label: their column that holds the labels; None where every row has the label 1.
        unused: their columns that nothing is read from.
    """

    path: Path
    columns: Mapping[str, str]
    label: str | None
    unused: tuple[str, ...]
    delimiter: str = ""

    def batches(self) -> Iterator[dict[str, Any]]:
        """Our column -> Arrow array, a batch of rows at a time: raw texts, stripped ids, ``label`` in float64.

        Raises:
            UserError: the file is damaged, a label is no number, an id is absent, or an id column holds fractions.
        """
        first_row = 1
        try:
            for batch in self._parquet() if self.path.suffix == ".parquet" else self._csv():
                yield self._ours(batch, first_row)
                first_row += batch.num_rows
        except (pa.ArrowException, OSError, EOFError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{self.path}: cannot be read beyond row {first_row} ({reason}). Correct it.") from None

    def _parquet(self) -> Iterator[Any]:
        with parquet.ParquetFile(self.path) as file:
            yield from file.iter_batches(PARQUET_BATCH_ROWS, columns=[*self.columns.values(), *self._labels])

    def _csv(self) -> Iterator[Any]:
        wanted = list(dict.fromkeys([*self.columns.values(), *self._labels]))
        types = {name: pa.string() for name in self.columns.values()} | dict.fromkeys(self._labels, pa.float64())
        yield from arrow_csv.open_csv(
            self.path,
            arrow_csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
            arrow_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            arrow_csv.ConvertOptions(column_types=types, include_columns=wanted, strings_can_be_null=False),
        )

    def _ours(self, batch: Any, first_row: int) -> dict[str, Any]:
        result = {ours: self._text(ours, batch.column(theirs)) for ours, theirs in self.columns.items()}
        for key in KEYS:
            absent = pc.index(pc.equal(result[key], ""), value=True).as_py()
            if absent >= 0:
                raise UserError(
                    f"{self.path}: row {first_row + absent} has no {self.columns[key]}; every row needs it."
                )
        result["label"] = pa.array(np.ones(batch.num_rows)) if self.label is None else self._label(batch)
        return result

    def _text(self, ours: str, column: Any) -> Any:
        if ours in KEYS and pa.types.is_floating(column.type):
            raise UserError(f"{self.path}: {self.columns[ours]} holds numbers with fractions. Write ids as text.")
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = pc.binary_join(column, ",")
        texts = pc.fill_null(column.cast(pa.string()), "")
        if ours in DATES:
            return _days(pc.utf8_trim_whitespace(texts))
        return pc.utf8_trim_whitespace(texts) if ours in NAMES else texts

    @property
    def _labels(self) -> tuple[str, ...]:
        return () if self.label is None else (self.label,)

    def _label(self, batch: Any) -> Any:
        try:
            return batch.column(self.label).cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise UserError(f"{self.path}: {self.label} is not numeric. Name another column as the label.") from None


def _days(texts: Any) -> Any:
    """Moments as days; each distinct text is looked at once."""
    if not len(texts) or pc.max(pc.utf8_length(texts)).as_py() <= DAY_CHARACTERS:
        return texts
    distinct = texts.dictionary_encode()
    return pa.array(map(day_of, distinct.dictionary.to_pylist()), pa.string()).take(distinct.indices)


def open_table(path: Path, label: str | None, columns: Mapping[str, str] | None = None) -> ExhibitionTable:
    """Look at the header and settle which column is what.

    Args:
        path: ``.csv``, ``.csv.gz`` or ``.parquet``.
        label: the numeric column that holds the labels, under their name; None gives every row the label 1.
        columns: our column -> theirs, for foreign tables.

    Raises:
        UserError: no such file, unknown format, no header, a column is missing, misspelt or mapped wrongly.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file. Check the path.")
    delimiter = ""
    if path.suffix == ".parquet":
        header = _parquet_header(path)
    elif path.suffix == ".csv" or path.suffixes[-2:] == [".csv", ".gz"]:
        header, delimiter = columns_of_csv(path)
    else:
        raise UserError(f"{path}: unknown format. Name it .csv, .csv.gz or .parquet.")
    chosen = _settled(path, header, label, dict(columns or {}))
    unused = tuple(name for name in header if name not in {*chosen.values(), label, "id"})
    return ExhibitionTable(path, chosen, label, unused, delimiter)


def load_column_map(path: Path, row: type[BaseModel] = ExhibitionRow) -> dict[str, str]:
    """Our column -> theirs, from the ``[columns]`` of a TOML file as ``catalogue import --map`` takes it.

    Args:
        path: of the file.
        row: whose fields are our columns.

    Raises:
        UserError: the file is missing or not TOML, a column is none of ours, or another section is given.
    """
    mapping = ColumnMapping.load(path, row)
    if mapping.constants or mapping.image_prefix:
        raise UserError(f"--map {path}: it takes only [columns] with our column = their column.")
    return {ours: theirs for ours, theirs in mapping.columns.items() if isinstance(theirs, str)}


def _settled(path: Path, header: list[str], label: str | None, mapped: dict[str, str]) -> dict[str, str]:
    for ours, theirs in mapped.items():
        if ours not in OURS:
            raise UserError(f"{path}: the mapping names {ours}, which is no column of ours. Ours: {', '.join(OURS)}.")
        if theirs not in header:
            raise UserError(f"{path}: {ours} is mapped to {theirs}, which is not there.{_near(theirs, header)}")
    chosen = dict(mapped)
    for ours in OURS:
        older = ours.replace("exhibit_", "plan_", 1)
        there = next((name for name in (ours, older) if name in header), None)
        if ours not in chosen and there is not None:
            chosen[ours] = there
    if label is not None and label not in header:
        raise UserError(f"{path}: there is no label column {label}.{_near(label, header)}")
    free = [name for name in header if name not in {*chosen.values(), label}]
    for ours in OURS:
        if ours in chosen:
            continue
        near = get_close_matches(ours, free, n=1, cutoff=LIKE_ENOUGH)
        if near:
            raise UserError(f"{path}: unknown column {near[0]}; did you mean {ours}? Rename it, or map it with --map.")
        if ours in REQUIRED:
            raise UserError(
                f"{path}: the column {ours} is missing. Rename the one that holds it, or map it with --map "
                f"({ours} = THEIRS). There are: {', '.join(header)}."
            )
    return chosen


def _near(name: str, header: list[str]) -> str:
    near = get_close_matches(name, header, n=1)
    return f" Did you mean {near[0]}?" if near else f" There are: {', '.join(header)}."


def _parquet_header(path: Path) -> list[str]:
    try:
        return list(parquet.read_schema(path).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not a Parquet file ({str(error).splitlines()[0]}). Write it again.") from None
