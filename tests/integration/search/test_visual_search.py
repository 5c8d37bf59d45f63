"""From a photo or an item to items, over a published index; models that see colours stand in for networks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from shopvision.catalogue import delete_items
from shopvision.database import connect
from shopvision.errors import ItemError, UserError
from shopvision.index.publish import publish
from shopvision.index.reader import IndexReader
from shopvision.search import GarmentChoice, PhotoFailure, PhotoResult, SearchOptions, VisualSearch, filters, finding
from shopvision.storage import open_store
from tests.integration.index.catalogue import embed
from tests.integration.search.conftest import load
from tests.integration.search.world import GARMENTS, ShopItem, fill, photo, png, vector

Shop = Callable[[list[ShopItem]], VisualSearch]

OUTFIT = photo({"top": (40, 10, 60, 50), "shoes": (20, 90, 30, 20)})


def item(item_id: str, colour: tuple[int, int, int], **fields: Any) -> ShopItem:
    return ShopItem(item_id, colour, fields)


WARDROBE = [
    item("tee", (220, 20, 20), title="Red tee", brand="Acme", category="Men/Tops", price=20, style="A"),
    item("tee-rose", (220, 55, 55), title="Rose tee", brand="Acme", category="Men/Tops", price=22, style="A"),
    item("shirt", (220, 80, 0), title="Rusty shirt", brand="Bolt", category="Women/Tops", price=40,
         attributes=[{"key": "Style:", "value": "B"}]),
    item("sneaker", (20, 20, 220), brand="bolt", category="Men/Shoes", price=Decimal("59.90"), currency="EUR"),
    item("boot", (70, 60, 220), brand="Acme", category="Men/Shoes", price=90),
    item("clutch", (20, 200, 20), category="Women/Bags"),
]  # fmt: skip


def ids(items: Any) -> list[str]:
    return [one.item_id for one in items]


def test_each_garment_finds_its_items(shop: Shop, finder: str) -> None:
    search = shop(WARDROBE)
    result = search.by_photo(OUTFIT, SearchOptions(k=2))
    assert (result.size, result.model, result.detector, result.notes) == ((160, 120), "toy:1", finder, ())
    assert result.generation.startswith("indexes/catalogue/generations/toy@1/")
    top, shoes = result.garments
    assert (top.number, top.label, top.score, top.box) == (1, "top", pytest.approx(0.9), (40.0, 10.0, 100.0, 60.0))
    assert (shoes.number, shoes.label, shoes.box) == (2, "shoes", (20.0, 90.0, 50.0, 110.0))
    assert ids(top.items) == ["tee", "tee-rose"]
    assert ids(shoes.items) == ["sneaker", "boot"]
    best = shoes.items[0]
    assert (best.brand, best.category, best.price, best.currency) == ("bolt", "Men/Shoes", Decimal("59.90"), "EUR")
    assert (best.score, best.region, best.fits, best.variants) == (pytest.approx(1, abs=2e-3), 0, True, ())
    assert set(result.seconds) == {"read", "detect", "embed", "index", "facts"}


def test_without_a_detector_the_whole_photo_is_searched_with(shop: Shop) -> None:
    search = shop(WARDROBE)
    result = search.by_photo(photo({"shoes": (0, 0, 160, 120)}), SearchOptions(k=1))
    assert result.notes == ("No model serves as fashion_detector. The whole photo was searched with.",)
    (whole,) = result.garments
    assert (whole.number, whole.label, whole.score, whole.box) == (0, None, None, (0.0, 0.0, 160.0, 120.0))
    assert ids(whole.items) == ["sneaker"]
    with pytest.raises(UserError, match="models activate fashion_detector NAME:TAG"):
        search.by_photo(OUTFIT, choice=GarmentChoice(label="shoes"))


def test_a_part_may_be_chosen_by_number_class_or_box(shop: Shop, finder: str) -> None:
    search, two = shop(WARDROBE), SearchOptions(k=2)
    by_number = search.by_photo(OUTFIT, two, GarmentChoice(number=2)).garments
    by_class = search.by_photo(OUTFIT, two, GarmentChoice(label="shoes")).garments
    assert by_number == by_class
    assert ids(by_class[0].items) == ["sneaker", "boot"]
    (box,) = search.by_photo(OUTFIT, two, GarmentChoice(box=(20.0, 90.0, 50.0, 110.0))).garments
    assert (box.number, box.items) == (0, by_class[0].items)
    assert search.by_photo(OUTFIT, two, GarmentChoice(label="bag")).notes == ("No bag was found, but top, shoes.",)
    with pytest.raises(UserError, match="finder:1 knows no class 'hat': it knows bag, shoes, top"):
        search.by_photo(OUTFIT, two, GarmentChoice(label="hat"))
    outside = GarmentChoice(box=(160.0, 0.0, 170.0, 9.0))
    for choice, code in ((GarmentChoice(number=3), "no_such_garment"), (outside, "empty_region")):
        with pytest.raises(ItemError) as raised:
            search.by_photo(OUTFIT, two, choice)
        assert raised.value.code == code


def test_photos_are_answered_in_their_order_and_bad_ones_are_told(shop: Shop, finder: str, tmp_path: Path) -> None:
    search = shop(WARDROBE)
    (tmp_path / "bag.png").write_bytes(photo({"bag": (10, 10, 60, 60)}))
    one_pixel = png(Image.new("RGB", (1, 1), GARMENTS["bag"]))
    narrow = png(Image.new("RGB", (3, 90), GARMENTS["top"]))
    black = png(Image.new("RGB", (9, 9), "black"))
    photos = [tmp_path / "bag.png", b"no picture", OUTFIT, str(tmp_path / "none.png"), one_pixel, narrow, black] * 3
    seen = []
    outcomes = list(
        search.by_photos(photos, SearchOptions(k=1), on_photo=lambda result, decoded: seen.append(decoded.size))
    )
    assert outcomes[:7] == outcomes[7:14] == outcomes[14:]
    bag, broken, outfit, missing, tiny, slim, nothing = outcomes[:7]
    assert isinstance(bag, PhotoResult)
    assert (bag.photo, ids(bag.garments[0].items)) == (str(tmp_path / "bag.png"), ["clutch"])
    assert isinstance(broken, PhotoFailure)
    assert (broken.photo, broken.code) == ("", "text")
    assert outfit == search.by_photo(OUTFIT, SearchOptions(k=1))
    assert (missing.photo, missing.code) == (str(tmp_path / "none.png"), "not_found")
    assert (tiny.size, ids(tiny.garments[0].items)) == ((1, 1), ["clutch"])
    assert slim.notes == ("The picture is too narrow for this detector. The whole photo was searched with.",)
    assert nothing.code == "bad_vector"
    assert seen == [(160, 120), (160, 120), (1, 1), (3, 90)] * 3


def test_the_best_variant_of_a_style_stands_for_it(shop: Shop, finder: str) -> None:
    search = shop(WARDROBE)
    (top,) = search.by_photo(OUTFIT, SearchOptions(k=2, collapse="style"), GarmentChoice(number=1)).garments
    assert [(one.item_id, one.style, one.variants) for one in top.items] == [
        ("tee", "A", ("tee-rose",)), ("shirt", "B", ())
    ]  # fmt: skip
    by_column = search.by_photo(OUTFIT, SearchOptions(k=3, collapse="category"), GarmentChoice(number=1)).garments[0]
    assert [one.category for one in by_column.items] == ["Men/Tops", "Women/Tops", "Men/Shoes"]
    (top,) = search.by_photo(OUTFIT, SearchOptions(k=2, collapse="stile"), GarmentChoice(number=1)).garments
    assert top.notes == ("None of these items has a value under 'stile': no variants were put together.",)


def test_enough_pictures_are_looked_at_where_most_are_variants(shop: Shop) -> None:
    many = [item(f"tee-{n:02}", (220, n, 20), style="A") for n in range(60)]
    search = shop([*many, item("boot", (20, 20, 220), style="B")])
    (whole,) = search.by_photo(photo({"top": (0, 0, 160, 120)}), SearchOptions(k=2, collapse="style")).garments
    assert (whole.items[0].style, ids(whole.items[1:])) == ("A", ["boot"])


def test_a_catalogue_of_few_styles_is_not_read_to_its_end(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "MOST_LOOKED_THROUGH", 16)
    monkeypatch.setattr(finding, "PICTURES_PER_ITEM", 1)
    search = shop([item(f"tee-{n:02}", (220, n, 20), style="A") for n in range(60)])
    (whole,) = search.by_photo(photo({"top": (0, 0, 160, 120)}), SearchOptions(k=2, collapse="style")).garments
    (shown,) = whole.items
    assert len(shown.variants) == 16 - 1


def test_nearly_equal_and_equal_pictures_are_shown_once(shop: Shop, finder: str) -> None:
    search = shop([*WARDROBE, item("copy", (220, 20, 20)), item("near", (220, 26, 20))])
    (top,) = search.by_photo(OUTFIT, SearchOptions(k=2), GarmentChoice(number=1)).garments
    assert (len(top.items), {*top.items[0].variants, top.items[0].item_id}) == (2, {"tee", "copy", "near"})
    (top,) = search.by_photo(OUTFIT, SearchOptions(k=3, nearly_same=1.0), GarmentChoice(number=1)).garments
    assert [len(one.variants) for one in top.items] == [1, 0, 0]
    assert ids(top.items[1:]) == ["near", "tee-rose"]


@pytest.mark.parametrize(("narrow", "walked"), [(20_000, 4096), (1, 4096), (1, 1)])
def test_what_fits_comes_first_and_others_fill_up(
    shop: Shop, finder: str, monkeypatch: pytest.MonkeyPatch, narrow: int, walked: int
) -> None:
    """Whether the pictures that fit are listed, or looked for among the nearest: the answer is the same."""
    monkeypatch.setattr(filters, "NARROW", narrow)
    monkeypatch.setattr(finding, "MOST_WALKED", walked)
    monkeypatch.setattr(finding, "PICTURES_PER_ITEM", 1)
    search, only = shop(WARDROBE), GarmentChoice(number=1)
    everything = ["tee", "tee-rose", "shirt", "boot", "clutch", "sneaker"]
    assert ids(search.by_photo(OUTFIT, SearchOptions(k=6), only).garments[0].items) == everything
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"brands": ("BOLT",)}, {"shirt", "sneaker"}),
        ({"category": "Men"}, {"tee", "tee-rose", "boot", "sneaker"}),
        ({"category": "Men/", "brands": ("Bolt",)}, {"sneaker"}),
        ({"price_from": Decimal(40), "price_to": Decimal("59.9")}, {"shirt", "sneaker"}),
        ({"price_to": Decimal(21)}, {"tee"}),
        ({"brands": ("None_",)}, set()),
    ]
    for wanted, fitting in cases:
        inside = [one for one in everything if one in fitting]
        others = [one for one in everything if one not in fitting]
        (soft,) = search.by_photo(OUTFIT, SearchOptions(k=5, **wanted), only).garments
        assert ids(soft.items) == (inside + others)[:5], wanted
        assert [one.fits for one in soft.items] == [one in fitting for one in ids(soft.items)]
        (hard,) = search.by_photo(OUTFIT, SearchOptions(k=5, soft=False, **wanted), only).garments
        assert ids(hard.items) == inside, wanted
    assert soft.notes == ("No item fits: brand None_. These are near, but do not fit.",)
    assert hard.notes == ("No item fits: brand None_.",)


def test_the_class_tells_categories_the_longer_path_first(shop: Shop) -> None:
    shop(WARDROBE)
    classes = (("Men", "shoes"), ("Men/Tops", "top"), ("Women/Tops", "top"))
    for label, fitting in (("shoes", {"sneaker", "boot"}), ("top", {"tee", "tee-rose", "shirt"}), ("bag", set())):
        one = filters.ItemFilter(label=label, classes=classes)
        with connect() as connection:
            found = connection.execute(
                text("SELECT item_id FROM item_images WHERE image_id = ANY(:ids)"),
                {"ids": (filters.AllowedPictures().of(one)).tolist()},
            )
            assert {row.item_id for row in found} == fitting


def test_a_model_that_knows_no_classes_and_keeps_no_regions_says_so(shop: Shop, finder: str) -> None:
    result = shop(WARDROBE).by_photo(OUTFIT, SearchOptions(k=1, by_class=True, colour=0.5))
    assert result.notes == (
        "toy:1 does not know which categories belong to a class: classes do not count.",
        "toy:1 keeps no regions of the catalogue's pictures: colours do not count.",
    )
    assert ids(result.garments[0].items) == ["tee"]


def test_an_item_finds_others_by_any_of_its_pictures_but_not_itself(shop: Shop, model: Any) -> None:
    search = shop(WARDROBE)
    with connect() as connection:
        connection.execute(
            text("INSERT INTO item_images (image_id, item_id, position, uri) OVERRIDING SYSTEM VALUE "
                 "VALUES (100, 'tee', 1, 'file:///g.jpg')")
        )  # fmt: skip
    embed(model, [100], vector((20, 200, 20))[None])
    publish("catalogue", model)
    result = search.by_item("tee", SearchOptions(k=3))
    assert ids(result.items) == ["clutch", "tee-rose", "shirt"]
    assert ids(search.by_item("tee", SearchOptions(k=3, brands=("bolt",))).items) == ["shirt", "sneaker", "clutch"]
    assert len(search.by_item("tee", SearchOptions(k=100)).items) == 5
    with pytest.raises(UserError, match="Item 'nope' has no picture in the index"):
        search.by_item("nope")
    with pytest.raises(UserError, match="no photographed class or colour"):
        search.by_item("tee", SearchOptions(colour=0.5))


def test_what_left_the_catalogue_is_not_shown(shop: Shop, finder: str) -> None:
    search = shop(WARDROBE)
    with connect() as connection:
        delete_items(connection, ["tee"])
    (top,) = search.by_photo(OUTFIT, SearchOptions(k=2), GarmentChoice(number=1)).garments
    assert ids(top.items) == ["tee-rose", "shirt"]


def test_before_anything_was_published(reader: IndexReader) -> None:
    with pytest.raises(UserError, match="never published"):
        VisualSearch(reader, load).by_photo(OUTFIT)
    with pytest.raises(UserError, match="never published"):
        VisualSearch(reader, load).by_item("tee")


def test_an_index_without_pictures(shop: Shop, model: Any, finder: str) -> None:
    search = shop(WARDROBE)
    with connect() as connection:
        delete_items(connection, ids(WARDROBE))
    publish("catalogue", model)
    result = search.by_photo(OUTFIT, SearchOptions(brands=("Acme",)))
    assert (result.garments[0].items, result.notes) == ((), ("The index holds no pictures.",))


def test_threads_share_a_search_while_current_moves(shop: Shop, model: Any, finder: str) -> None:
    """In even generations ``even`` is red and ``odd`` blue; in odd ones it is the other way round."""
    red, blue = GARMENTS["top"], GARMENTS["shoes"]
    search = shop([item("even", red), item("odd", blue)])
    numbers = {open_current(): 0}
    stop = Event()

    def ask(_: int) -> set[tuple[str, tuple[str, ...]]]:
        seen = set()
        while not stop.is_set():
            result = search.by_photo(OUTFIT, SearchOptions(k=1))
            seen.add((result.generation, tuple(one.items[0].item_id for one in result.garments)))
        return seen

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(8)]
        try:
            for number in range(1, 5):
                colours = (red, blue) if number % 2 == 0 else (blue, red)
                fill(model, [item("even", colours[0]), item("odd", colours[1])])
                publish("catalogue", model)
                numbers[open_current()] = number
        finally:
            stop.set()
        seen = set().union(*(one.result() for one in answers))
    assert {generation for generation, _ in seen} <= set(numbers)
    for generation, found in seen:
        assert found == (("even", "odd") if numbers[generation] % 2 == 0 else ("odd", "even"))


def open_current() -> str:
    from shopvision.index.current import read_current

    found = read_current(open_store(), "catalogue")
    assert found is not None
    return found[0].generation


def test_vectors_of_garments_that_are_not_finite(shop: Shop, finder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.integration.search.world import MeanColour

    search = shop(WARDROBE)
    encode = MeanColour.encode

    def with_a_hole(self: MeanColour, batch: np.ndarray) -> np.ndarray:
        vectors = encode(self, batch)
        vectors[0] = np.nan
        return vectors

    monkeypatch.setattr(MeanColour, "encode", with_a_hole)
    result = search.by_photo(OUTFIT, SearchOptions(k=1))
    assert result.notes == ("Garment 1 has no vector: the model gives none that is finite.",)
    assert [one.number for one in result.garments] == [2]
