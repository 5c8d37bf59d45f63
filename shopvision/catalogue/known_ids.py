"""Whether the items and plans that somebody names are in the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute

from shopvision.catalogue.record_schema import MAX_ID_CHARACTERS
from shopvision.catalogue.record_texts import is_storable
from shopvision.catalogue.tables import Item, Plan
from shopvision.database import among, connect
from shopvision.errors import UserError

SHOWN_CHARACTERS = 80


def require_items(item_ids: Sequence[str]) -> list[str]:
    """The ids without repetitions, however many there are.

    Raises:
        UserError: an item is not in the catalogue.
    """
    return _require("Item", Item.item_id, item_ids)


def require_plans(plan_ids: Sequence[str]) -> list[str]:
    """The ids without repetitions, however many there are.

    Raises:
        UserError: a plan is not in the catalogue.
    """
    return _require("Plan", Plan.plan_id, plan_ids)


def could_be_id(text: str) -> bool:
    """Whether the catalogue would take ``text`` for an id. Of some others Postgres cannot even be asked."""
    return len(text) <= MAX_ID_CHARACTERS and is_storable(text)


def _require(what: str, column: InstrumentedAttribute[str], ids: Sequence[str]) -> list[str]:
    wanted = list(dict.fromkeys(ids))
    with connect() as connection:
        known = set(connection.scalars(select(column).where(among(column, list(filter(could_be_id, wanted))))))
    unknown = [one for one in wanted if one not in known]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        shown = unknown[0][:SHOWN_CHARACTERS]
        raise UserError(f"{what} {shown!r}{more} is not in the catalogue: import it first, or leave it out.")
    return wanted
