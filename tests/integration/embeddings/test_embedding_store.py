"""Tasks and outcomes on real Postgres."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, insert, select, text
from sqlalchemy.exc import OperationalError

from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect
from shopvision.embeddings.store import select_tasks, vectors_of_bytes, write_outcomes
from shopvision.images.outcome import Embedded, Failed, ImageTask, Touched, Unchanged
from shopvision.index.tables import Embedding
from shopvision.models.tables import ModelVersion

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def model() -> int:
    """A model version and pictures 1 to 4, and another model version that has seen picture 1."""
    with connect() as connection:
        for tag in ("a", "b"):
            connection.execute(insert(ModelVersion).values(name="m", tag=tag, card={}))
        connection.execute(insert(Item).values(item_id="i", content_hash=b""))
        for number in range(1, 5):
            connection.execute(insert(ItemImage).values(item_id="i", position=number, uri=f"file:///{number}"))
        write_outcomes(connection, 2, [Embedded(1, b"other", "other", b"\0\0")])
    return 1


def stored() -> dict[int, tuple[bytes, str, bytes]]:
    with connect() as connection:
        rows = connection.execute(
            select(Embedding.image_id, Embedding.image_sha256, Embedding.source_fingerprint, Embedding.vector).where(
                Embedding.model_version_id == 1
            )
        )
        return {row[0]: tuple(row[1:]) for row in rows}


def test_tasks_carry_what_this_model_knows(model: int) -> None:
    with connect() as connection:
        write_outcomes(connection, model, [Embedded(3, b"sha", "mark", b"\1\0")])
        assert select_tasks(connection, model, [4, 3, 1, 77]) == [
            ImageTask(1, "file:///1"),
            ImageTask(3, "file:///3", "mark", b"sha"),
            ImageTask(4, "file:///4"),
        ]
        assert select_tasks(connection, model, []) == []


def test_outcomes_are_upserted_and_touched_marks_moved(model: int) -> None:
    with connect() as connection:
        assert write_outcomes(connection, model, [Embedded(n, b"s1", "m1", b"\1\0") for n in (2, 1)]) == 2
    with connect() as connection:
        embedded = [Embedded(2, b"s2", "m2", b"\2\0"), Embedded(3, b"s3", "m3", b"\3\0")]
        written = write_outcomes(connection, model, [Touched(1, "m2"), *embedded, Unchanged(4), Failed(5, "x", "y")])
    assert written == 2
    assert stored() == {1: (b"s1", "m2", b"\1\0"), 2: (b"s2", "m2", b"\2\0"), 3: (b"s3", "m3", b"\3\0")}
    with connect() as connection:
        other = connection.execute(
            text("SELECT image_id, source_fingerprint FROM embeddings WHERE model_version_id = 2")
        ).all()
    assert other == [(1, "other")]


def test_pictures_that_left_meanwhile_are_skipped(model: int) -> None:
    with connect() as connection:
        connection.execute(delete(ItemImage).where(ItemImage.image_id == 2))
    with connect() as connection:
        written = write_outcomes(
            connection, model, [Embedded(1, b"s", "m", b"\1\0"), Embedded(2, b"s", "m", b"\1\0"), Touched(88, "m")]
        )
    assert written == 1
    assert set(stored()) == {1}


def test_a_second_write_in_one_transaction_works(model: int) -> None:
    with connect() as connection:
        write_outcomes(connection, model, [Embedded(1, b"s", "m", b"\1\0")])
        write_outcomes(connection, model, [Embedded(1, b"t", "m", b"\1\0")])
    assert stored()[1][0] == b"t"


def test_the_picture_stays_until_the_writer_commits(model: int) -> None:
    with connect() as writer:
        write_outcomes(writer, model, [Embedded(1, b"s", "m", b"\1\0")])
        with connect() as other:
            other.execute(text("SET LOCAL lock_timeout = '200ms'"))
            with pytest.raises(OperationalError, match="lock timeout"):
                other.execute(delete(ItemImage).where(ItemImage.image_id == 1))
            other.rollback()


def test_vectors_are_found_by_the_pictures_bytes(model: int) -> None:
    with connect() as connection:
        write_outcomes(
            connection,
            model,
            [Embedded(1, b"s", "m", b"\1\0"), Embedded(2, b"s", "m", b"\1\0"), Embedded(3, b"t", "m", b"\2\0")],
        )
        assert vectors_of_bytes(connection, model, [b"s", b"t", b"other"]) == {b"s": b"\1\0", b"t": b"\2\0"}
        assert vectors_of_bytes(connection, model, []) == {}
