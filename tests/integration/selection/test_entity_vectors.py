"""Entities of the catalogue as a model version sees them: computed once, kept, and read by whoever ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import insert, select, text

from shopvision.catalogue import upsert_items
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.database.named_lock import try_lock
from shopvision.index.tables import Embedding
from shopvision.items.item import Item
from shopvision.models.tables import ModelVersion
from shopvision.selection.click.entity_store import CatalogueEntities, refresh_entity_vectors
from shopvision.selection.prune import prune
from tests.integration.selection.conftest import add_model

pytestmark = pytest.mark.usefixtures("database")

D = 3


class Names:
    """A name is its length; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        return np.array([[len(name), 0, 1] for name in texts], np.float32)


def item(item_id: str, brand: str, *colours: str, pictures: int = 1) -> dict[str, object]:
    return {
        "item_id": item_id, "brand": brand, "category": "Shoes",
        "attributes": [{"key": "colour", "value": colour} for colour in colours],
        "images": [f"https://shop.example/{item_id}-{number}.jpg" for number in range(pictures)],
    }  # fmt: skip


def shop() -> int:
    """Three items, the leading pictures of two of which are embedded; gives the id of the model version."""
    add_model("recall", "image_recall")
    with connect() as connection:
        upsert_items(connection, [item("a", "Puma", "red", pictures=2), item("b", "Puma"), item("c", "Nike", "red")])
        version = connection.scalars(select(ModelVersion.model_version_id)).one()
        rows = connection.execute(select(ItemImage.item_id, ItemImage.position, ItemImage.image_id))
        images = {(item_id, position): image_id for item_id, position, image_id in rows}
        for place, vector in {("a", 0): (1, 0, 0), ("a", 1): (0, 1, 0), ("c", 0): (0, 0, 1)}.items():
            values = {"image_sha256": b"x", "source_fingerprint": "x", "vector": np.array(vector, "<f2").tobytes()}
            connection.execute(
                insert(Embedding).values(model_version_id=version, image_id=images[place], region=0, **values)
            )
    return int(version)


def test_means_names_and_frequencies_are_kept_and_only_changes_written() -> None:
    version, names = shop(), Names()
    assert refresh_entity_vectors(version, D, names) == {"entities": 4, "written": 4}
    assert sorted(names.asked) == ["Nike", "Puma", "Shoes", "red"]
    assert refresh_entity_vectors(version, D, names) == {"entities": 4, "written": 0}
    assert len(names.asked) == 4
    reader = CatalogueEntities(version, D, names)
    puma = Item("a", brand="Puma", category="Shoes", attributes={"colour": ("red",)})
    with connect() as connection:
        (found,) = reader.of(connection, [puma])
    # Shoes have three items; Puma and red two each, in the item's own order.
    assert [(one.kind, one.name) for one in found] == [("category", "Shoes"), ("brand", "Puma"), ("colour", "red")]
    # Of Puma's leading pictures one is embedded; of red's both are.
    np.testing.assert_allclose(found[0].pictures, (0.5, 0, 0.5))
    np.testing.assert_allclose(found[1].pictures, (1, 0, 0))
    np.testing.assert_allclose(found[2].pictures, (0.5, 0, 0.5))
    np.testing.assert_allclose(found[0].name_vector, (5, 0, 1))
    with connect() as connection:
        upsert_items(connection, [item("d", "Nike", "blue")])
    assert refresh_entity_vectors(version, D, names) == {"entities": 5, "written": 3}  # Nike, blue, Shoes


def test_an_entity_that_came_since_is_known_by_its_name() -> None:
    version, names = shop(), Names()
    reader = CatalogueEntities(version, D, names)
    with connect() as connection:
        found = reader.of(connection, [Item("x", brand="Fila"), Item("y"), Item("z", brand="Fila")])
        again = CatalogueEntities(version, D, names).of(connection, [Item("x", brand="Fila")])
    assert [[one.name for one in of_item] for of_item in found] == [["Fila"], [], ["Fila"]]
    assert names.asked == ["Fila"]
    np.testing.assert_array_equal(found[0][0].pictures, np.zeros(D))
    np.testing.assert_array_equal(again[0][0].name_vector, (4, 0, 1))


def test_two_refreshes_do_not_get_in_each_others_way() -> None:
    version = shop()
    with connect() as other:
        assert try_lock(other, f"entity vectors {version}")
        assert refresh_entity_vectors(version, D, Names()) == {"entities": 0, "written": 0}
    assert refresh_entity_vectors(version, D, Names(), should_stop=lambda: True)["written"] == 0


def test_vectors_of_versions_that_serve_nothing_are_pruned() -> None:
    version = shop()
    refresh_entity_vectors(version, D, Names())
    assert prune()["entity_vectors"] == 0
    with connect() as connection:
        connection.execute(text("UPDATE entity_vectors SET computed_at = now() - interval '10 years'"))
    assert prune()["entity_vectors"] == 4
