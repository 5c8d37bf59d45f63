"""COPY whose rows fail, and lists longer than a statement has room for parameters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import func, select, text

from shopvision.catalogue.tables import Item
from shopvision.database import among, connect, copy_rows
from shopvision.errors import UserError

pytestmark = pytest.mark.usefixtures("database")


def test_a_long_message_out_of_the_rows_reaches_the_caller_and_not_the_server() -> None:
    def rows() -> Iterator[tuple[int]]:
        yield (1,)
        raise UserError("x" * 20_000)

    with connect() as connection:
        connection.execute(text("CREATE TEMPORARY TABLE copied (number int8)"))
        savepoint = connection.begin_nested()
        with pytest.raises(UserError, match=r"^x{20000}$"):
            copy_rows(connection, "copied", [("number", "int8")], rows())
        savepoint.rollback()
        assert connection.scalar(text("SELECT count(*) FROM copied")) == 0  # the connection lives


def test_a_list_may_be_longer_than_a_statement_has_parameters() -> None:
    with connect() as connection:
        connection.execute(text("INSERT INTO items (item_id, content_hash) VALUES ('7', ''), ('x', '')"))
        wanted = among(Item.item_id, map(str, range(70_000)))
        assert connection.scalars(select(Item.item_id).where(wanted)).all() == ["7"]
        both = select(func.count()).where(wanted, among(Item.item_id, ["7", "x"]))
        assert connection.scalar(both) == 1
