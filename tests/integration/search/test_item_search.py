"""From a query picture or item to items, over a published index; a tiny encoder stands in for the model."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from shopvision.database import connect
from shopvision.errors import ItemError, UserError
from shopvision.images.preprocessing import Preprocessing
from shopvision.index.publish import publish
from shopvision.index.reader import IndexReader
from shopvision.search import CatalogueSearch, search_item
from shopvision.storage import open_store
from tests.integration.index.catalogue import add_items, embed, make_model

COLOURS = {0: (250, 0, 0), 1: (230, 20, 10), 2: (0, 250, 0), 3: (10, 230, 20), 4: (0, 0, 250), 5: (240, 10, 30)}


class MeanColour:
    """Encodes a picture as the direction of its mean colour."""

    preprocessing = Preprocessing(size=(8, 8))

    def encode(self, batch: np.ndarray) -> np.ndarray:
        colours = batch.astype(np.float32).mean(axis=(1, 2))
        return colours / np.linalg.norm(colours, axis=1, keepdims=True)


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), COLOURS[number]).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def search(database: None, tmp_path: Path, set_environment: Callable[..., None]) -> CatalogueSearch:
    """Six items in five categories; item-0 has a second, green picture (image 100)."""
    set_environment(SHOPVISION_OBJECT_STORE=f"file://{tmp_path}/store")
    model = make_model()
    add_items(0, 6)
    pixels = np.array([np.full((4, 4, 3), colour, np.uint8) for colour in COLOURS.values()])
    vectors = MeanColour().encode(pixels).astype(np.float16)
    embed(model, range(6), vectors)
    with connect() as connection:
        connection.execute(
            text(
                "INSERT INTO item_images (image_id, item_id, position, uri) VALUES (100, 'item-0', 1, 'file:///g.jpg')"
            )
        )
    embed(model, [100], vectors[2:3])
    publish("catalogue", model)
    asked = []

    def encoder_of(spec: str) -> MeanColour:
        asked.append(spec)
        assert spec == "toy:1"
        return MeanColour()

    return CatalogueSearch(IndexReader(open_store(), "catalogue", tmp_path / "reader"), encoder_of)


def test_a_picture_finds_items_each_with_its_best_picture(search: CatalogueSearch) -> None:
    result = search.by_image(picture(2), 3)
    assert (result.model, result.generation.startswith("indexes/catalogue/generations/toy@1/")) == ("toy:1", True)
    assert {item.item_id for item in result.items[:2]} == {"item-0", "item-2"}
    assert {item.image_id for item in result.items[:2]} == {100, 2}
    assert result.items[2].item_id == "item-3"
    assert result.items[0].score == pytest.approx(1, abs=2e-3)


def test_a_picture_is_given_as_bytes_or_by_its_place(search: CatalogueSearch, tmp_path: Path) -> None:
    file = tmp_path / "green.png"
    file.write_bytes(picture(2))
    assert search.by_image(file, 3) == search.by_image(str(file), 3) == search.by_image(picture(2), 3)


def test_an_item_finds_others_by_any_of_its_pictures_but_not_itself(search: CatalogueSearch) -> None:
    found = [item.item_id for item in search.by_item("item-0", 4).items]
    assert sorted(found) == ["item-1", "item-2", "item-3", "item-5"]
    assert found[0] == "item-2"
    assert len(search.by_item("item-0", 100).items) == 5


def test_the_category_comes_first_and_others_fill_up(search: CatalogueSearch) -> None:
    soft = search.by_image(picture(0), 4, "Men/Bottoms")
    assert soft.items[0].item_id == "item-2"
    assert [item.in_category for item in soft.items] == [True, False, False, False]
    assert soft.items[1].item_id == "item-0"
    hard = search.by_image(picture(0), 4, "Men/Bottoms", soft=False)
    assert [item.item_id for item in hard.items] == ["item-2"]
    assert len(search.by_image(picture(0), 3, "No/Such").items) == 3
    assert search.by_image(picture(0), 3, "No/Such", soft=False).items == []


def test_wrong_questions_are_answered_with_one_line(search: CatalogueSearch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Item 'nope' has no picture in the index"):
        search.by_item("nope")
    with pytest.raises(ItemError, match="No such file"):
        search.by_image(tmp_path / "absent.jpg")
    with pytest.raises(ItemError, match="leads out of the allowed folders"):
        search.by_image("file:///etc/hostname")
    with pytest.raises(UserError, match="k is 0"):
        search.by_image(picture(0), 0)
    with pytest.raises(ItemError):
        search.by_image(b"not a picture")


def test_the_module_functions_use_the_index_of_the_settings(search: CatalogueSearch) -> None:
    assert search_item("item-4", 2).items == search.by_item("item-4", 2).items


def test_a_catalogue_without_an_index_says_what_to_do(database: None, tmp_path: Path) -> None:
    reader = IndexReader(open_store(f"file://{tmp_path}/store"), "catalogue", tmp_path)
    with pytest.raises(UserError, match="never published"):
        CatalogueSearch(reader, lambda spec: MeanColour()).by_item("item-1")
