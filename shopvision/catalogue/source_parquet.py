"""Parquet as a stream of records: its values as a person would have written them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from shopvision.catalogue.record_texts import RecordError, normalised_or_error
from shopvision.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 2_000


class ParquetRecords:
    """Iterates over (row number from 1 on, record); empty cells, and NaN, are left out of their record.

    Attributes:
        fraction_read: how much of the file has been read (0 to 1).
    """

    def __init__(self, location: str, raw: BinaryIO) -> None:
        """``location`` is what the user calls the file that ``raw`` is."""
        self.fraction_read = 0.0
        self._location = location
        self._raw = raw

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any] | RecordError]]:
        """Read the file.

        Raises:
            UserError: it is no Parquet, names a column twice, or is damaged.
        """
        import pyarrow as pa
        from pyarrow import parquet

        try:
            file = parquet.ParquetFile(self._raw)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self._location}: not a Parquet file ({_first_line(error)}). Write it again.") from None
        names = file.schema_arrow.names
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise UserError(f"{self._location}: the columns {', '.join(repeated)} occur twice. Name each column once.")
        total = max(file.metadata.num_rows, 1)
        read = 0
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                columns = [_values(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    read += 1
                    self.fraction_read = read / total
                    yield read, _record(names, values)
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{self._location}: cannot be read beyond row {read} ({_first_line(error)}). The rows before it may be "
                "in; repeat the import with a whole file."
            ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _record(names: list[str], values: tuple[Any, ...]) -> dict[str, Any] | RecordError:
    record = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    for name, value in record.items():
        if isinstance(value, RecordError):
            return RecordError(f"{name}: {value}")
    return normalised_or_error(record)


def _values(column: pa.Array[Any]) -> list[Any]:
    """Python's values; None for empty cells and NaN, a ``RecordError`` for what Python has no value for."""
    import pyarrow as pa

    if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
        # 19.9 in 32 bits is 19.899999618530273 in 64: the shortest text that means it is what was meant.
        column = column.cast(pa.string()).cast(pa.float64())
    wanted = _in_microseconds(column.type)
    if wanted != column.type:
        column = column.cast(wanted, safe=False)
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        values = [_value(scalar) for scalar in column]
    return [_without_nan(value) for value in values] if _may_hold_nan(column.type) else values


def _value(scalar: pa.Scalar[Any]) -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return RecordError(f"a {scalar.type} that cannot be read ({_first_line(error)}); correct it")


def _in_microseconds(of: pa.DataType) -> pa.DataType:
    """The type with what is counted in nanoseconds, which Python's moments are not, in microseconds."""
    import pyarrow as pa

    kinds = pa.types
    if kinds.is_timestamp(of) and of.unit == "ns":
        return pa.timestamp("us", of.tz)
    if kinds.is_time64(of) and of.unit == "ns":
        return pa.time64("us")
    if kinds.is_duration(of) and of.unit == "ns":
        return pa.duration("us")
    if kinds.is_list(of) or kinds.is_large_list(of):
        make = pa.list_ if kinds.is_list(of) else pa.large_list
        return make(of.value_field.with_type(_in_microseconds(of.value_type)))
    if kinds.is_struct(of):
        return pa.struct([field.with_type(_in_microseconds(field.type)) for field in of])
    return of


def _may_hold_nan(of: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(of) or pa.types.is_nested(of))


def _without_nan(value: Any) -> Any:
    """Data frames write NaN where there is no value."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return value
