"""Candidates of a catalogue in real Postgres, with its published picture index."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, text, update

from shopvision.catalogue.tables import Item as ItemTable
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect, copy_rows
from shopvision.errors import JobError, UserError
from shopvision.fashion.composition.arguments import CompositionArguments
from shopvision.fashion.composition.routing import Routes
from shopvision.index.publish import publish
from shopvision.index.reader import IndexReader
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.matching.blocking import CandidatePair, candidate_pairs, pairs_of_items
from shopvision.matching.options import TEXT_SOURCES, BlockingOptions
from shopvision.matching.tables import ItemVector
from shopvision.models.tables import ModelRole, ModelVersion
from shopvision.storage import open_store
from tests.integration.index.catalogue import make_model

pytestmark = pytest.mark.usefixtures("database")

PICTURE_COLUMNS = [
    ("model_version_id", "int8"), ("image_id", "int8"), ("region", "int2"), ("image_sha256", "bytea"),
    ("source_fingerprint", "text"), ("vector", "bytea"),
]  # fmt: skip


def add_item(item_id: str, title: str = "", category: str | None = None, **attributes: str) -> None:
    listed = [{"key": key, "value": value} for key, value in attributes.items()]
    row = {"item_id": item_id, "title": title, "category": category, "attributes": listed, "content_hash": b""}
    with connect() as connection:
        connection.execute(insert(ItemTable).values(**row))


def add_pictures(model: Any, pictures: Sequence[tuple[Any, ...]]) -> None:
    """Each: item, sha256, direction of its vector, and of further regions' where it has some."""
    with connect() as connection:
        rows = []
        for number, (item_id, sha256, *directions) in enumerate(pictures):
            added = insert(ItemImage).values(item_id=item_id, position=number, uri=f"file:///{uuid.uuid4()}.jpg")
            image_id = connection.scalar(added.returning(ItemImage.image_id))
            for region, direction in enumerate(directions):
                vector = (np.asarray(direction, np.float32) / np.linalg.norm(direction)).astype("<f2")
                rows.append((model.model_version_id, image_id, region, sha256, "mark", vector.tobytes()))
        copy_rows(connection, "embeddings", PICTURE_COLUMNS, rows)


def add_vectors(model: Any, vectors: dict[str, Sequence[float]]) -> None:
    with connect() as connection:
        for item_id, vector in vectors.items():
            stored = np.asarray(vector, "<f2").tobytes()
            row = {"model_version_id": model.model_version_id, "item_id": item_id, "vector": stored, "input_hash": b""}
            connection.execute(insert(ItemVector).values(**row))


@pytest.fixture
def encoder() -> Any:
    """The model version that serves the catalogue's pictures."""
    model = make_model("encoder", "1")
    with connect() as connection:
        connection.execute(insert(ModelRole).values(role="catalogue_encoder", model_version_id=model.model_version_id))
    return model


@pytest.fixture
def reader(tmp_path: Path, set_environment: Any) -> IndexReader:
    set_environment(SHOPVISION_OBJECT_STORE=f"file://{tmp_path}/store")
    return IndexReader(open_store(), "shop", tmp_path / "reader")


def found(
    item_ids: Iterable[str] | None, options: BlockingOptions | None = None, **others: Any
) -> dict[tuple[str, str], tuple[str, ...]]:
    given = [pair for batch in candidate_pairs(item_ids, options or BlockingOptions(), **others) for pair in batch]
    assert len({(pair.left, pair.right) for pair in given}) == len(given)
    return {(pair.left, pair.right): pair.sources for pair in given}


def test_texts_of_the_catalogue_give_what_the_same_items_give_in_memory() -> None:
    names = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    generator = np.random.default_rng(0)
    for number in range(60):
        add_item(
            f"item-{number:02d}", " ".join(generator.choice(names, 4)), ["Men/A", "Women", None][number % 3],
            mpn=f"X-{number // 2 % 20:04d}",
        )  # fmt: skip
    with connect() as connection:
        items = items_from_catalogue(connection, [f"item-{number:02d}" for number in range(60)])
    in_memory = [pair for batch in pairs_of_items(items.values(), BlockingOptions()) for pair in batch]
    with_all: list[CandidatePair] = [pair for batch in candidate_pairs(None, BlockingOptions()) for pair in batch]
    assert with_all == in_memory
    assert {source for pair in with_all for source in pair.sources} == set(TEXT_SOURCES)


def test_due_items_only_and_unknown_ids_are_passed_over() -> None:
    for item_id in ("a", "b", "c", "d"):
        add_item(item_id, "same title")
    assert found(["c", "gone"]).keys() == {("a", "c"), ("b", "c"), ("c", "d")}
    assert found(["gone"]) == {}
    assert found(iter(["d", "a"])).keys() == {("a", "b"), ("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")}


def test_ids_are_ordered_by_code_point_whatever_the_database_sorts_by() -> None:
    for item_id in ("a", "B", "é", "Z", "\U0001f600"):
        add_item(item_id, "same title")
    assert all(left < right for left, right in found(None))
    assert len(found(None)) == 10


def test_equal_bytes_are_the_same_picture_unless_many_share_it(encoder: Any) -> None:
    for item_id in "abcdefgh":
        add_item(item_id, category="Women" if item_id == "d" else "Men")
    other = make_model("other", "1")
    add_pictures(encoder, [("a", b"one", [1, 0]), ("a", b"one", [1, 0]), ("b", b"one", [1, 0]), ("d", b"one", [1, 0])])
    add_pictures(encoder, [(item_id, b"placeholder", [0, 1]) for item_id in "abefgh"])
    add_pictures(other, [("g", b"ranker", [0, 1]), ("h", b"ranker", [0, 1])])
    assert found(None, BlockingOptions(rare_value_limit=5)) == {("a", "b"): ("same_picture",)}
    assert len(found(None, BlockingOptions(rare_value_limit=6))) == 15
    assert found(None, BlockingOptions(rare_value_limit=5, within="any")).keys() == {("a", "b"), ("a", "d"), ("b", "d")}
    assert found(None, BlockingOptions(sources=TEXT_SOURCES)) == {}


def test_near_pictures_come_from_the_published_index(encoder: Any, reader: IndexReader) -> None:
    categories = {"a": "Men/Tops", "b": "Men/Shoes", "c": None, "d": "Women", "e": "Men", "far": "Men", "gone": "Men"}
    for item_id, category in categories.items():
        add_item(item_id, category=category)
    add_pictures(
        encoder,
        [
            ("a", b"1", [1, 0, 0]),
            ("a", b"2", [1, 0.01, 0]),  # an item is not its own neighbour
            ("b", b"3", [1, 0.1, 0]),  # cosine 0.995: a copy
            ("c", b"4", [1, 0.6, 0]),  # 0.857
            ("d", b"5", [1, 0, 0]),
            ("e", b"6", [0, 0, 1]),
            ("e", b"7", [1, 0.9, 0]),  # 0.743 by another picture
            ("far", b"8", [-1, 0, 0]),
            ("gone", b"9", [1, 0, 0]),
        ],
    )
    publish("shop", encoder, open_store())
    with connect() as connection:
        connection.execute(text("DELETE FROM items WHERE item_id = 'gone'"))
    assert found(["a"], index_reader=reader) == {
        ("a", "b"): ("picture", "same_picture"),
        ("a", "c"): ("picture",),
        ("a", "e"): ("picture",),
    }
    assert found(["c"], index_reader=reader).keys() == {("a", "c"), ("b", "c"), ("c", "d"), ("c", "e")}
    assert found(["a"], BlockingOptions(within="category"), index_reader=reader).keys() == {("a", "c"), ("a", "e")}
    copies = BlockingOptions(sources=("same_picture",), within="any")
    assert found(["a"], copies, index_reader=reader).keys() == {("a", "b"), ("a", "d")}
    assert found(None, index_reader=reader).keys() >= found(["a"], index_reader=reader).keys()
    # Its only near picture is one that the catalogue is full of.
    assert ("a", "b") not in found(
        ["b"], BlockingOptions(rare_value_limit=2), index_reader=placeholder(reader, encoder)
    )


def test_items_are_near_by_any_region_of_a_picture(encoder: Any, reader: IndexReader) -> None:
    for item_id in ("a", "b", "far"):
        add_item(item_id, category="Men")
    add_pictures(
        encoder,
        [
            ("a", b"1", [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0.1, 0]),
            ("b", b"2", [0, 0, 1, 0], [0, 1, 0, 0.5], [0, 0, 1, 0.1]),
            ("far", b"3", [-1, 0, 0, 0], [0, 0, 0, -1]),
        ],
    )
    publish("shop", encoder, open_store())
    nearest = BlockingOptions(neighbours=1)
    assert found(["a"], nearest, index_reader=reader) == {("a", "b"): ("picture",)}
    assert found(None, nearest, index_reader=reader) == {("a", "b"): ("picture",)}


def test_a_composed_encoder_with_several_encoders_is_asked_for_cosines(encoder: Any, reader: IndexReader) -> None:
    """Its index scores are 0.3 cos + 0.7 within an encoder, and 0.3 cos between two, where that means nothing."""
    routes = Routes(("bag",))
    arguments = CompositionArguments(detector="finder:1", encoder="eye:1", by_class={"bag": "bags:1"})
    card = {"kind": "composed_encoder", "architecture": {"arguments": arguments.model_dump(mode="json")}}
    with connect() as connection:
        connection.execute(update(ModelVersion).values(card=card))
    pictures: dict[str, tuple[list[float], int]] = {
        "a": ([1, 0, 0], 1), "near": ([0.6, 0.8, 0], 1), "far": ([0, 0, 1], 1), "common": ([1, 0, 0], 0)
    }  # fmt: skip
    for item_id, (vector, route) in pictures.items():
        add_item(item_id)
        add_pictures(encoder, [(item_id, item_id.encode(), routes.extend(np.array([vector], np.float32), [route])[0])])
    publish("shop", encoder, open_store())
    given = [pair for batch in candidate_pairs(["a"], BlockingOptions(), index_reader=reader) for pair in batch]
    assert [(pair.left, pair.right, pair.sources) for pair in given] == [("a", "near", ("picture",))]
    assert given[0].similarity == pytest.approx(0.6, abs=0.005)


def placeholder(reader: IndexReader, encoder: Any) -> IndexReader:
    """Give b's picture to many others."""
    for number in range(3):
        add_item(f"empty-{number}", category="Men")
    add_pictures(encoder, [(f"empty-{number}", b"3", [1, 0.1, 0]) for number in range(3)])
    publish("shop", encoder, open_store())
    reader.refresh()
    return reader


def test_an_index_of_an_unknown_model_is_refused(encoder: Any, reader: IndexReader) -> None:
    add_item("a")
    with pytest.raises(UserError, match="never published"):
        found(None, index_reader=reader)
    add_pictures(encoder, [("a", b"1", [1, 0])])
    publish("shop", encoder, open_store())
    with connect() as connection:
        connection.execute(text("UPDATE model_versions SET tag = 'renamed'"))
    with pytest.raises(UserError, match="made with 'encoder:1', which this database does not know"):
        found(None, index_reader=reader)
    assert found(None, BlockingOptions(sources=TEXT_SOURCES), index_reader=reader) == {}


def test_near_texts_come_from_the_vectors_of_the_blocker() -> None:
    for item_id in ("a", "b", "c", "none", "zero", "new"):
        add_item(item_id)
    blocker, other = make_model("blocker", "1"), make_model("blocker", "2")
    # Lengths do not matter, only directions.
    add_vectors(blocker, {"a": [1, 0], "b": [30, 3], "c": [0, 0.5], "zero": [0, 0]})
    add_vectors(other, {"none": [1, 0], "a": [1, 0]})
    assert found(None, blocker=blocker) == {("a", "b"): ("text_vector",)}
    assert found(["a"], blocker=other) == {("a", "none"): ("text_vector",)}
    assert found(None) == {}
    assert found(None, blocker=SimpleNamespace(model_version_id=77)) == {}
    add_vectors(blocker, {"new": [1, 0, 0]})
    with pytest.raises(JobError, match=r"Item 'new' has a vector of 3 numbers, others have 2"):
        found(None, blocker=blocker)


def test_no_transaction_stays_open_while_pairs_are_given(encoder: Any) -> None:
    for item_id in ("a", "b"):
        add_item(item_id, "same title")
    batches = candidate_pairs(None, BlockingOptions())
    next(batches)
    with connect() as connection:
        others = connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"
            )
        )
    assert others == 0
