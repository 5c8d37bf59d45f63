"""Whose trouble an error of the database is, by SQLSTATE and not by the drivers' classes."""

from __future__ import annotations

import re

import psycopg
import pytest
from psycopg.errors import lookup
from sqlalchemy.exc import DBAPIError

from shopvision.database import Fault, explain, fault_of, is_passing
from shopvision.errors import UserError


def wrapped(cause: psycopg.Error, *, statement: str | None = "SELECT 1", broken: bool = False) -> BaseException:
    """As SQLAlchemy raises it; without a statement where connecting failed."""
    return DBAPIError.instance(statement, {}, cause, psycopg.Error, connection_invalidated=broken)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        *((state, Fault.PASSING) for state in ("08000", "08006", "57P01", "57P02", "57P03", "40001", "40P01", "53300")),
        *((state, Fault.SERVER) for state in ("53100", "53200", "57014", "42P01", "42501", "58030", "XX001")),
        *((state, Fault.REQUEST) for state in ("54000", "22003", "22P02", "23505", "23503")),
    ],
)  # fmt: skip
def test_the_state_decides_whoever_wrapped_it(state: str, fault: Fault) -> None:
    error = lookup(state)("words")
    assert fault_of(error) is fault
    assert fault_of(wrapped(error)) is fault
    assert is_passing(error) is (fault is Fault.PASSING)
    assert "words" in explain(wrapped(error))


def test_without_a_state_a_broken_connection_passes_and_what_the_driver_refuses_does_not() -> None:
    assert fault_of(psycopg.OperationalError("server closed the connection")) is Fault.PASSING
    assert fault_of(wrapped(psycopg.OperationalError("connection refused"), statement=None)) is Fault.PASSING
    assert fault_of(wrapped(psycopg.OperationalError("server closed the connection"), broken=True)) is Fault.PASSING
    too_many = psycopg.OperationalError("number of parameters must be between 0 and 65535")
    assert fault_of(wrapped(too_many)) is Fault.REQUEST
    assert fault_of(psycopg.DataError("text fields cannot contain NUL")) is Fault.REQUEST


def test_other_errors_are_none_of_the_databases() -> None:
    assert fault_of(UserError("wrong")) is None
    assert not is_passing(OSError("disk"))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("53100", "disk is full .*free space there"),
        ("42P01", "run `shopvision migrate`"),
        ("40P01", "busy or restarting .*try again"),
        ("57014", "The database refuses"),
    ],
)
def test_a_person_reads_one_line(state: str, words: str) -> None:
    error = lookup(state)("could not extend file\nHINT: " + "x" * 20_000)
    assert re.search(words, explain(error))
    assert len(explain(lookup(state)("x" * 20_000))) < 700
    assert "\n" not in explain(error)
