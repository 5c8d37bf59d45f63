"""Ids that somebody names: known or not, however many, whatever is in them."""

from __future__ import annotations

import pytest

from shopvision.catalogue import delete_items, delete_plans, upsert_items, upsert_plans
from shopvision.catalogue.known_ids import require_items, require_plans
from shopvision.database import connect
from shopvision.errors import UserError

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def _shop(database: None) -> None:
    with connect() as connection:
        upsert_items(connection, [{"item_id": name, "images": []} for name in "abc"])
        upsert_plans(connection, [{"plan_id": "p", "name": "Sale"}])


def test_known_ids_come_once_in_their_order() -> None:
    assert require_items(["b", "a", "b"]) == ["b", "a"]
    assert require_plans(["p"]) == ["p"]
    assert require_items([]) == []


@pytest.mark.parametrize("unknown", ["d", "a\0", "\udce9", "x" * 20_000])
def test_an_unknown_id_is_named_whatever_is_in_it(unknown: str) -> None:
    with pytest.raises(UserError, match=r"^Item '.{1,84}' and 1 more is not in the catalogue: import it first"):
        require_items(["a", unknown, "e"])
    with pytest.raises(UserError, match=r"^Plan '.{1,84}' is not in the catalogue"):
        require_plans([unknown])


def test_more_ids_than_a_statement_has_parameters() -> None:
    with pytest.raises(UserError, match="Item '0' and 69999 more is not in the catalogue"):
        require_items([*"abc", *map(str, range(70_000))])


@pytest.mark.parametrize("wrong", ["a\0", "\udce9", "x" * 201])
def test_ids_to_delete_that_can_be_none_are_refused(wrong: str) -> None:
    for delete in (delete_items, delete_plans):
        with (
            pytest.raises(UserError, match=r"can be none of the catalogue's: .* Nothing was deleted"),
            connect() as one,
        ):
            delete(one, ["a", wrong])
    assert require_items(["a"]) == ["a"]
