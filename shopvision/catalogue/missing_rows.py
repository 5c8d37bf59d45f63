"""What a file lacks of what is stored, and whether deleting it would be a guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from shopvision.catalogue.row_upserts import Target
from shopvision.database import get_engine

# More than a tenth of a shop seldom leaves within a day; a broken export, or a quote that took rows into a cell, does.
MAX_SHARE = 0.1
KEYS_AT_ONCE = 5_000


@dataclass(frozen=True)
class MissingRows:
    """Keys that are stored and not in the file, sorted, and how many are stored."""

    keys: list[str]
    stored: int


def reason_to_keep_all(*, rows: int, refused: int, nameless: int, key: str, force: bool) -> str | None:
    """Why nothing should be deleted after a file of ``rows`` rows; None where nothing speaks against it.

    Args:
        rows: read.
        refused: of them.
        nameless: of the refused ones those without a readable key.
        key: what the key is called.
        force: whether many refused rows are no reason.
    """
    if rows == refused:
        return "the file holds no good row"
    if nameless:
        return f"{nameless} refused rows have no readable {key}, and might be any of the stored ones"
    if refused > rows * MAX_SHARE and not force:
        return f"{refused:,} of {rows:,} rows were refused; give --force if the others are all there is"
    return None


def find_missing(target: Target, are_in_file: Callable[[Sequence[str]], Sequence[bool]]) -> MissingRows:
    """The stored keys that the file lacks."""
    stored, missing = 0, []
    with get_engine().connect() as connection:
        result = connection.execution_options(yield_per=KEYS_AT_ONCE).execute(text(target.keys))
        for partition in result.scalars().partitions():
            keys = list(partition)
            stored += len(keys)
            missing += [key for key, is_there in zip(keys, are_in_file(keys), strict=True) if not is_there]
    return MissingRows(sorted(missing), stored)


def reason_to_keep_missing(missing: MissingRows, table: str, *, force: bool) -> str | None:
    """Why the missing rows should stay; None where nothing speaks against deleting them."""
    if len(missing.keys) > missing.stored * MAX_SHARE and not force:
        gone = f"{len(missing.keys):,} of {missing.stored:,} {table}"
        return f"{gone} are not in the file; give --force if that is right"
    return None
