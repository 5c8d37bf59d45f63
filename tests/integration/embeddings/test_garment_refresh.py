"""A refresh with a composed encoder on real Postgres: what is found, embedded, kept, replaced and left alone."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import delete, select, text

from shopvision import models
from shopvision.catalogue.tables import Item
from shopvision.database import connect
from shopvision.embeddings.publishing import publish_index
from shopvision.errors import ItemError, UserError
from shopvision.fashion.detection.regions import Region
from shopvision.fashion.tables import PictureRegion
from shopvision.index.tables import IndexChange
from tasks.refresh_embeddings import RefreshParams
from tests.conftest import Run
from tests.garment_pictures import BAG, COLOURS, DRESS, SHOES, SIZE, Finder, MeanColour, direction, picture
from tests.integration.embeddings.garment_shop import KIND, GarmentShop

OUTFIT = picture(bag=BAG, dress=DRESS, shoes=SHOES)


@pytest.fixture
def shop(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> GarmentShop:
    folder = tmp_path / "pictures"
    folder.mkdir()
    set_environment(SHOPVISION_IMAGE_ROOTS=str(folder), SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri())
    shop = GarmentShop(folder, {})
    monkeypatch.setattr(models, "load", lambda spec: shop.encoders[spec])
    shop.add_version("finder", "fashion_detector")
    models.activate("catalogue_encoder", shop.add_version("plain", "image_encoder"))
    return shop


def seen(label: str) -> list[float]:
    return direction(*COLOURS[label]).tolist()


def changed_pictures() -> list[int]:
    with connect() as connection:
        found = list(connection.scalars(select(IndexChange.image_id).order_by(IndexChange.image_id)))
        connection.execute(delete(IndexChange))
    return found


def test_what_was_found_is_stored_and_the_garment_of_the_category_is_embedded(
    shop: GarmentShop, command_line: Run
) -> None:
    finder = Finder()
    model = shop.compose("main", finder, MeanColour())
    shop.put("boot", "Shoes/Boots", boot=OUTFIT)
    shop.put("tote", "Bags", tote=picture(note=1, bag=BAG, dress=DRESS))
    shop.put("sky", "Bags", sky=picture(note=2))
    keys, result = shop.refresh(model)
    assert (len(keys), result.done, result.skipped, result.failures) == (3, 3, 0, [])
    assert result.counters == {"embedded": 3, "regions": 3, "detected": 3, "detector_seconds": 0}
    vectors = shop.vectors(model)
    assert (vectors["boot"], vectors["tote"]) == ({3: seen("shoes")}, {1: seen("bag")})
    assert list(vectors["sky"]) == [0]
    whole, bag, dress, shoes = shop.regions("boot")
    assert tuple(whole[:4]) == (0, None, None, [0, 0, *SIZE])
    assert [(row.region, row.label, row.box) for row in (bag, dress, shoes)] == [
        (1, "bag", list(BAG)), (2, "dress", list(DRESS)), (3, "shoes", list(SHOES)),
    ]  # fmt: skip
    assert [row.score for row in (bag, dress, shoes)] == pytest.approx([0.9, 0.8, 0.7])
    assert bag.colour[1] > 50 > 0 > dress.colour[1]  # red, green
    assert [row.region for row in shop.regions("sky")] == [0]
    status, out, _ = command_line("catalogue", "show", "boot", "--json")
    (vector,) = json.loads(out)["vectors"]
    assert (status, vector["model"], vector["region"], vector["box"]) == (0, model, 3, list(SHOES))
    assert "shoes (0.70) at 60,125,40,32" in command_line("catalogue", "show", "boot")[1]
    assert "the whole picture" in command_line("catalogue", "show", "sky")[1]


def test_only_what_changed_is_done_again(shop: GarmentShop) -> None:
    finder, eye = Finder(), MeanColour()
    model = shop.compose("main", finder, eye)
    for number in range(3):
        shop.put(f"item {number}", "Shoes", **{f"p{number}": picture(note=number, bag=BAG, shoes=SHOES)})
    shop.refresh(model)
    finder.looked.clear()
    eye.batches.clear()
    changed_pictures()
    _, again = shop.refresh(model)
    assert (again.done, again.skipped) == (3, 3)
    os.utime(shop.folder / "p0.png", (1, 1))
    _, touched = shop.refresh(model)
    assert (touched.skipped, changed_pictures()) == (3, [])
    assert shop.refresh(model, verify=False)[0] == []
    assert (finder.looked, eye.batches) == ([], [])
    (shop.folder / "p1.png").write_bytes(picture(note=9, shoes=SHOES))
    _, changed = shop.refresh(model)
    assert (changed.counters["embedded"], finder.looked, eye.batches, changed_pictures()) == (1, [1], [1], [2])
    assert [row.label for row in shop.regions("item 1")] == [None, "shoes"]  # the bag is gone
    assert shop.vectors(model)["item 1"] == {1: seen("shoes")}


def test_another_category_means_another_garment_and_the_tables_tell(shop: GarmentShop) -> None:
    """Also without looking at sources; the vector of the former garment goes, and the index hears of it."""
    finder, eye = Finder(), MeanColour()
    model = shop.compose("main", finder, eye)
    for name in ("a", "b"):
        shop.put(name, "Shoes", **{name: picture(note=ord(name), bag=BAG, shoes=SHOES)})
    shop.refresh(model)
    assert shop.vectors(model)["a"] == {2: seen("shoes")}
    with connect() as connection:
        connection.execute(text("UPDATE items SET category = 'Bags' WHERE item_id = 'a'"))
    changed_pictures()
    finder.looked.clear()
    keys, result = shop.refresh(model, verify=False)
    assert (keys, result.counters["embedded"], finder.looked) == (["1"], 1, [])
    assert shop.vectors(model) == {"a": {1: seen("bag")}, "b": {2: seen("shoes")}}
    assert changed_pictures() == [1]
    with connect() as connection:
        connection.execute(text("UPDATE items SET category = 'Shoes/High' WHERE item_id = 'a'"))
        connection.execute(text("UPDATE items SET category = 'Shoes/Low' WHERE item_id = 'b'"))
    keys, result = shop.refresh(model)
    assert (len(keys), result.skipped) == (2, 1)
    assert shop.vectors(model)["a"] == {2: seen("shoes")}


def test_garments_are_not_looked_for_again_when_only_the_encoder_changed(shop: GarmentShop) -> None:
    finder, eye = Finder(), MeanColour()
    first = shop.compose("first", finder, eye)
    shop.put("a", "Shoes", a=OUTFIT)
    shop.put("b", "Shoes", b=picture(note=4))
    shop.refresh(first)
    assert sum(finder.looked) == 2
    other, other_eye = Finder(), MeanColour()
    second = shop.compose("second", other, other_eye, crop="all", margin=0.1)
    _, result = shop.refresh(second)
    assert (other.looked, result.counters["detected"], result.counters["regions"]) == ([], 0, 4)
    assert {item: list(found) for item, found in shop.vectors(second).items()} == {"a": [1, 2, 3], "b": [0]}
    assert list(shop.vectors(first)["a"]) == [3]
    (shop.folder / "a.png").write_bytes(picture(note=5, shoes=SHOES))
    shop.refresh(second)
    assert (other.looked, list(shop.vectors(second)["a"])) == ([1], [1])  # two of three vectors went
    assert list(shop.vectors(first)["a"]) == [3]  # until its own refresh, which looks anew or takes what is stored
    finder.looked.clear()
    shop.refresh(first)
    assert (finder.looked, shop.vectors(first)["a"]) == ([], {1: seen("shoes")})


def test_equal_bytes_are_done_once_in_any_job_but_each_category_gets_its_garment(shop: GarmentShop) -> None:
    finder, eye = Finder(), MeanColour()
    model = shop.compose("main", finder, eye)
    shop.put("shoe", "Shoes", one=OUTFIT)
    shop.refresh(model)
    shop.put("same shoe", "Shoes", two=OUTFIT)
    shop.put("bag", "Bags", three=OUTFIT)
    finder.looked.clear()
    eye.batches.clear()
    _, result = shop.refresh(model)
    assert (result.counters["embedded"], finder.looked, eye.batches) == (2, [], [1])
    vectors = shop.vectors(model)
    assert vectors["same shoe"] == vectors["shoe"] == {3: seen("shoes")}
    assert vectors["bag"] == {1: seen("bag")}
    assert shop.regions("bag") == shop.regions("shoe")


def find(**boxes: tuple[float, float, float, float]) -> tuple[Region, ...]:
    """What a detector found, the best first."""
    return tuple(Region(box, label, 0.9 - place / 100) for place, (label, box) in enumerate(boxes.items()))


def test_regions_keep_their_numbers_when_two_encoders_look_at_once(shop: GarmentShop) -> None:
    """Both run the one detector before either has written; what the second to write found is not quite the same."""
    width = SIZE[0]
    first = shop.compose("first", Finder(answers={width: find(bag=BAG, dress=DRESS, shoes=SHOES)}), MeanColour())
    moved = {"shoes": (61.0, 125.0, 101.0, 157.0), "bag": (10.0, 11.0, 50.0, 51.0)}
    second = shop.compose("second", Finder(answers={width: find(**moved)}), MeanColour(), crop="all")
    shop.put("boot", "Shoes", boot=OUTFIT)
    waiting = [first]

    def meanwhile() -> bool:
        while waiting:
            shop.refresh(waiting.pop())
        return False

    shop.refresh(second, should_stop=meanwhile)
    assert [(row.label, row.box) for row in shop.regions("boot")[1:]] == [
        ("bag", list(BAG)), ("dress", list(DRESS)), ("shoes", list(SHOES)),
    ]  # fmt: skip
    assert shop.vectors(first)["boot"] == {3: seen("shoes")}
    assert list(shop.vectors(second)["boot"]) == [1, 3]
    for number, label in ((1, "bag"), (3, "shoes")):
        assert shop.vectors(second)["boot"][number] == pytest.approx(seen(label), abs=0.1)
    # A garment that only the second look saw is missed once, and found by the next refresh.
    _, again = shop.refresh(second)
    assert (again.counters["detected"], list(shop.vectors(second)["boot"])) == (0, [1, 2, 3])


def test_of_two_writers_at_once_the_second_waits_and_takes_the_first_ones_numbers(shop: GarmentShop) -> None:
    width = SIZE[0]
    shop.put("boot", "Shoes", boot=OUTFIT)
    results = {}
    for name, boxes in (("first", {"bag": BAG, "shoes": SHOES}), ("second", {"shoes": SHOES, "bag": BAG})):
        finder = Finder(answers={width: find(**boxes)})
        pinned = KIND.pin(RefreshParams(model=shop.compose(name, finder, MeanColour()), publish=False))
        context: Any = SimpleNamespace(
            job_id=uuid.uuid4(), round=1, begun=None, should_stop=lambda: False, next_keys=lambda: None
        )
        results[name] = KIND.run(pinned, list(KIND.split(pinned, context)), context).write

    def write_second() -> None:
        with connect() as connection:
            assert results["second"] is not None
            results["second"](connection)

    with ThreadPoolExecutor(1) as pool:
        with connect() as connection:
            assert results["first"] is not None
            results["first"](connection)
            waits = pool.submit(write_second)
            asking = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            while not connection.scalar(asking):
                assert not waits.done()
        waits.result()
    assert [row.label for row in shop.regions("boot")] == [None, "bag", "shoes"]
    assert shop.vectors("first")["boot"] == shop.vectors("second")["boot"] == {2: seen("shoes")}


def test_everything_is_embedded_anew_and_what_was_found_stays(shop: GarmentShop) -> None:
    finder, eye = Finder(), MeanColour()
    model = shop.compose("main", finder, eye)
    shop.put("a", "Shoes", a=OUTFIT)
    shop.refresh(model)
    _, result = shop.refresh(model, scope="all")
    assert (result.counters["embedded"], sum(finder.looked), sum(eye.batches)) == (1, 1, 2)


def test_faults_are_those_of_single_pictures_and_whole_pictures_go_as_ever(shop: GarmentShop) -> None:
    finder = Finder(answers={90: ItemError("bad_boxes", "no finite boxes")})
    model = shop.compose("main", finder, MeanColour())
    shop.put("bad", "Shoes", bad=picture((90, 90)))
    shop.put("text", "Shoes", text=b"no picture")
    shop.put("banner", "Shoes", banner=picture((640, 20)))
    _, result = shop.refresh(model)
    assert sorted((one.key, one.code) for one in result.failures) == [("1", "bad_boxes"), ("2", "text")]
    assert list(shop.vectors(model)["banner"]) == [0]
    assert shop.regions("bad") == []
    whole = shop.compose("whole", Finder(), MeanColour(), crop="whole")
    _, result = shop.refresh(whole)
    assert (result.counters, list(shop.vectors(whole)["bad"])) == ({"embedded": 2}, [0])


def test_a_job_that_is_stopped_hands_back_what_is_left(shop: GarmentShop) -> None:
    model = shop.compose("main", Finder(), MeanColour(batch_size=1))
    for number in range(12):
        shop.put(f"{number:02}", "Shoes", **{f"p{number}": picture(note=number, shoes=SHOES)})
    keys, result = shop.refresh(model, should_stop=lambda: True)
    assert result.done == len(shop.vectors(model)) > 0
    assert len(result.remaining) == len(keys) - result.done > 0


def test_pictures_that_left_meanwhile_are_skipped(shop: GarmentShop) -> None:
    model = shop.compose("main", Finder(), MeanColour())
    shop.put("a", "Shoes", a=OUTFIT)
    shop.put("b", "Shoes", b=picture(note=3, shoes=SHOES))

    def leave() -> bool:
        with connect() as connection:
            connection.execute(delete(Item).where(Item.item_id == "a"))
        return False

    shop.refresh(model, should_stop=leave)
    assert list(shop.vectors(model)) == ["b"]
    with connect() as connection:
        assert set(connection.scalars(select(PictureRegion.image_id))) == {2}


def test_search_moves_over_by_pictures_and_not_by_vectors(shop: GarmentShop) -> None:
    """Three garments of one picture are no three pictures."""
    shop.encoders["plain:1"] = MeanColour()
    for number in range(3):
        shop.put(f"{number}", "Shoes", **{f"p{number}": picture(note=number, bag=BAG, dress=DRESS, shoes=SHOES)})
    shop.refresh("plain:1")
    assert publish_index("shop", models.find("plain:1"))["published"] is True
    model = shop.compose("garments", Finder(), MeanColour(), crop="all")
    shop.refresh(model, item_ids=["0"])
    report = publish_index("shop", models.find(model))
    assert report["published"] is False
    assert "66.7% fewer pictures" in report["reason"]
    shop.refresh(model)
    report = publish_index("shop", models.find(model))
    assert (report["published"], report["counts"]["live"]) == (True, 9)


def test_a_detector_that_the_registry_does_not_hold_is_named_before_work_begins(shop: GarmentShop) -> None:
    model = shop.compose("main", Finder(), MeanColour())
    with connect() as connection:
        connection.execute(text("DELETE FROM model_versions WHERE name = 'finder'"))
    with pytest.raises(UserError, match="main:1 finds garments with the detector finder:1, which the registry does"):
        shop.refresh(model)
