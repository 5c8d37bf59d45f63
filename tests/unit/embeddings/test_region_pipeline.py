"""The pipeline for garments with a door and models made for the purpose."""

from __future__ import annotations

import hashlib
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shopvision.embeddings.region_pipeline import RegionPipeline
from shopvision.embeddings.region_tasks import EmbeddedRegions, RegionOutcome, RegionTask, key_of
from shopvision.errors import ItemError, TransientError
from shopvision.fashion.composition.found import FoundRegion
from shopvision.images import task_reading
from shopvision.images.outcome import Failed, Touched, Unchanged
from tests.garment_pictures import BAG, COLOURS, DRESS, SHOES, SIZE, Finder, MeanColour, composed, direction, picture

OUTFIT = picture(bag=BAG, dress=DRESS, shoes=SHOES)
NOTHING = picture()
CLASSES = {"Shoes": "shoes", "Bags": "bag"}


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Door:
    """Pictures from a dictionary; a value that is an exception is raised."""

    def __init__(self, sources: dict[str, Any], delay: float = 0.0) -> None:
        self.sources, self.delay, self.limits = sources, delay, None
        self.fetched: list[str] = []

    def fetch_changed(self, uri: str, known: str) -> SimpleNamespace | None:
        return None if known == f"mark of {uri}" else self.fetch(uri)

    def fetch(self, uri: str) -> SimpleNamespace:
        time.sleep(self.delay)
        self.fetched.append(uri)
        data = self.sources[uri] if uri in self.sources else picture(note=int(uri) % 256, bag=BAG, shoes=SHOES)
        if isinstance(data, BaseException):
            raise data
        return SimpleNamespace(data=data, sha256=sha256(data), fingerprint=f"mark of {uri}")


def run(door: Door, tasks: list[RegionTask], encoder: Any = None, **known: Any) -> dict[int, RegionOutcome]:
    pipeline = RegionPipeline(encoder or composed(classes=CLASSES), door, threads=3, **known)
    outcomes = [outcome for found in pipeline.stream(tasks) for outcome in found]
    assert sorted(outcome.image_id for outcome in outcomes) == sorted(task.image_id for task in tasks)
    return {outcome.image_id: outcome for outcome in outcomes}


def colours_of(outcome: RegionOutcome) -> dict[int, list[float]]:
    assert isinstance(outcome, EmbeddedRegions)
    return {number: np.frombuffer(vector, "<f2").tolist() for number, vector in outcome.vectors.items()}


def colour(label: str) -> list[float]:
    return direction(*COLOURS[label]).tolist()


def test_the_garment_of_the_category_gets_the_vector_and_all_that_was_found_is_told() -> None:
    found = run(Door({"outfit": OUTFIT}), [RegionTask(1, "outfit", category="Shoes/Boots")])
    outcome = found[1]
    assert isinstance(outcome, EmbeddedRegions)
    assert colours_of(outcome) == {3: colour("shoes")}
    assert (outcome.sha256, outcome.fingerprint) == (sha256(OUTFIT), "mark of outfit")
    assert outcome.found is not None
    assert [(one.box, one.label) for one in outcome.found] == [
        ((0, 0, *SIZE), None), (BAG, "bag"), (DRESS, "dress"), (SHOES, "shoes"),
    ]  # fmt: skip
    assert [one.score for one in outcome.found] == [None, 0.9, 0.8, 0.7]
    lightness, redness, _ = outcome.found[1].colour or (0, 0, 0)
    assert 35 < lightness < 50 < redness


@pytest.mark.parametrize(
    ("category", "crop", "expected"),
    [
        ("Bags", "main", {1: "bag"}),
        (None, "main", {2: "dress"}),  # the largest
        ("Shoes", "all", {1: "bag", 2: "dress", 3: "shoes"}),
    ],
)
def test_policies(category: str | None, crop: str, expected: dict[int, str]) -> None:
    encoder = composed(classes=CLASSES, crop=crop)
    found = run(Door({"outfit": OUTFIT}), [RegionTask(1, "outfit", category=category)], encoder)
    assert colours_of(found[1]) == {number: colour(label) for number, label in expected.items()}


@pytest.mark.parametrize("crop", ["main", "all"])
def test_a_picture_without_a_garment_is_embedded_whole(crop: str) -> None:
    found = run(Door({"sky": NOTHING}), [RegionTask(1, "sky")], composed(crop=crop))
    assert list(colours_of(found[1])) == [0]
    assert found[1].found == (FoundRegion((0, 0, *SIZE), colour=found[1].found[0].colour),)


def test_a_banner_that_no_detector_can_read_is_embedded_whole() -> None:
    finder = Finder()
    found = run(Door({"banner": picture((640, 24))}), [RegionTask(1, "banner")], composed(finder))
    assert list(colours_of(found[1])) == [0]
    assert finder.looked == []


def test_what_is_wrong_concerns_one_picture() -> None:
    finder = Finder(answers={90: ItemError("bad_boxes", "no finite boxes")})
    door = Door({"bad": picture((90, 90)), "gone": ItemError("not_found", "gone: no"), "outfit": OUTFIT})
    tasks = [RegionTask(1, "bad"), RegionTask(2, "gone"), RegionTask(3, "outfit"), RegionTask(4, "bad")]
    found = run(door, tasks, composed(finder))
    assert found[1] == Failed(1, "bad_boxes", "no finite boxes")
    assert found[4] == Failed(4, "bad_boxes", "no finite boxes")
    assert found[2] == Failed(2, "not_found", "gone: no")
    assert isinstance(found[3], EmbeddedRegions)


def test_a_garment_without_a_vector_fails_the_picture_only_where_no_other_has_one() -> None:
    class Blind(MeanColour):
        def encode(self, batch: np.ndarray) -> np.ndarray:
            vectors = super().encode(batch)
            vectors[vectors[:, 2] > 0.9] = np.nan  # shoes
            return vectors

    door = Door({"outfit": OUTFIT, "pair": picture(shoes=SHOES)})
    found = run(door, [RegionTask(1, "outfit"), RegionTask(2, "pair")], composed(eye=Blind(), crop="all"))
    assert colours_of(found[1]) == {1: colour("bag"), 2: colour("dress")}
    assert found[2] == Failed(2, "bad_vector", "The model gives this picture no finite vector.")


def test_equal_bytes_are_looked_at_once_and_each_category_gets_its_garment() -> None:
    finder, eye = Finder(), MeanColour()
    door = Door({"here": OUTFIT, "there": OUTFIT})
    tasks = [
        RegionTask(1, "here", category="Shoes"),
        RegionTask(2, "there", category="Shoes"),
        RegionTask(3, "here", category="Bags"),
        RegionTask(4, "there"),
    ]
    found = run(door, tasks, composed(finder, eye, classes=CLASSES))
    assert (sum(finder.looked), sum(eye.batches), sorted(door.fetched)) == (1, 3, ["here", "there"])
    assert [list(colours_of(found[number])) for number in (1, 2, 3, 4)] == [[3], [3], [1], [2]]


def test_what_one_task_knows_serves_the_others_of_its_address_also_once_it_is_pruned() -> None:
    finder = Finder()
    stored = (FoundRegion((0.0, 0.0, 120.0, 160.0)), FoundRegion(tuple(map(float, SHOES)), "shoes", 0.9))
    tasks = [
        RegionTask(1, "outfit", "old mark", sha256(OUTFIT), found=stored, found_sha256=sha256(OUTFIT)),
        RegionTask(2, "outfit"),
    ]
    found = run(Door({"outfit": OUTFIT}), tasks, composed(finder), known_regions=lambda _: {})
    assert found[1] == Touched(1, "mark of outfit")
    assert colours_of(found[2]) == {1: colour("shoes")}
    assert finder.looked == []


def test_somebody_may_stop_it_after_each_batch_of_crops() -> None:
    eye = MeanColour()
    encoder = composed(eye=eye, crop="all")
    tasks = [RegionTask(number, str(number)) for number in range(16)]
    seen = [len(eye.batches) for _ in RegionPipeline(encoder, Door({}), threads=3).stream(tasks)]
    assert len(eye.batches) == 32 // encoder.batch_size > 3
    assert max(np.diff(seen)) == 1


def test_what_is_known_is_not_done_again() -> None:
    finder, eye = Finder(), MeanColour()
    encoder = composed(finder, eye, classes=CLASSES)
    found = (FoundRegion((0.0, 0.0, 120.0, 160.0)), FoundRegion((10.0, 10.0, 50.0, 50.0), "shoes", 0.9))
    tasks = [
        RegionTask(1, "1", "mark of 1", b"any"),
        RegionTask(2, "outfit", "old mark", sha256(OUTFIT)),
        RegionTask(3, "stored", category="Shoes", found=found, found_sha256=sha256(NOTHING)),
        RegionTask(4, "elsewhere", category="Shoes"),
        RegionTask(5, "changed", category="Shoes", found=found, found_sha256=b"other bytes"),
    ]
    door = Door({"outfit": OUTFIT, "stored": NOTHING, "elsewhere": OUTFIT, "changed": picture(shoes=SHOES)})
    asked: list[Any] = []

    def known_regions(sha256s: Any) -> Any:
        return {one: found for one in sha256s if one == sha256(OUTFIT)}

    def known_vectors(sha256s: Any) -> Any:
        asked.extend(sha256s)
        return {key_of(sha256(OUTFIT), found[1]): b"kept"}

    outcomes = run(door, tasks, encoder, known_regions=known_regions, known_vectors=known_vectors)
    assert outcomes[1] == Unchanged(1)
    assert outcomes[2] == Touched(2, "mark of outfit")
    assert isinstance(outcomes[3], EmbeddedRegions)
    assert outcomes[3].found is None  # stored already
    assert list(outcomes[3].vectors) == [1]
    assert outcomes[4] == EmbeddedRegions(4, sha256(OUTFIT), "mark of elsewhere", {1: b"kept"}, found)
    assert colours_of(outcomes[5]) == {1: colour("shoes")}
    assert (sum(finder.looked), sum(eye.batches)) == (1, 2)
    assert set(asked) == {sha256(NOTHING), sha256(OUTFIT)}  # of new bytes nobody has a vector


def test_where_two_pictures_of_the_same_bytes_were_numbered_differently_one_way_is_stored_again() -> None:
    whole, bag = FoundRegion((0.0, 0.0, 120.0, 160.0)), FoundRegion((10.0, 10.0, 50.0, 50.0), "bag", 0.9)
    shoes = FoundRegion((60.0, 125.0, 100.0, 157.0), "shoes", 0.9)
    stored = {1: (whole, bag, shoes), 2: (whole, shoes, bag)}
    tasks = [
        RegionTask(number, f"place {number}", category="Shoes", found=found, found_sha256=sha256(OUTFIT))
        for number, found in stored.items()
    ]
    outcomes = run(Door({"place 1": OUTFIT, "place 2": OUTFIT}), tasks)
    for number, outcome in outcomes.items():
        assert isinstance(outcome, EmbeddedRegions)
        numbering = outcome.found or stored[number]
        assert [numbering[place].label for place in outcome.vectors] == ["shoes"]
    assert sum(outcome.found is None for outcome in outcomes.values()) >= 1


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_encoder_gets_full_batches_of_many_pictures(batch_size: int) -> None:
    eye = MeanColour(batch_size=batch_size)
    found = run(Door({}), [RegionTask(number, str(number)) for number in range(11)], composed(eye=eye, crop="all"))
    assert eye.batches == [batch_size] * (22 // batch_size) + [22 % batch_size] * (22 % batch_size > 0)
    for outcome in found.values():
        assert colours_of(outcome) == {1: colour("bag"), 2: colour("shoes")}


def test_crops_do_not_wait_for_slow_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_reading, "PATIENCE_SECONDS", 0.05)
    stream = RegionPipeline(composed(), Door({}, delay=0.2), threads=1).stream(
        [RegionTask(number, str(number)) for number in range(3)]
    )
    lists = list(stream)
    assert [] in lists
    assert sum(map(len, lists)) == 3
    assert max(map(len, lists)) == 1


def assert_threads_end() -> None:
    deadline = time.monotonic() + 30
    while any(thread.name.startswith(("pictures-", "crops")) for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "threads are still running"
        time.sleep(0.01)


def test_waiting_pictures_are_bounded_and_closing_stops_everything() -> None:
    door = Door({}, delay=0.001)
    stream = RegionPipeline(composed(), door, threads=4).stream([RegionTask(n, str(n)) for n in range(5000)])
    assert len(next(stream)) > 0
    time.sleep(0.3)  # nobody consumes: the readers must come to rest
    read = len(door.fetched)
    assert read <= 4 + 2 * 4 + 4 + 4  # two batches of the detector, twice as many ahead, one for each thread, in hand
    time.sleep(0.1)
    assert len(door.fetched) == read
    stream.close()
    assert_threads_end()


def test_what_concerns_the_whole_job_is_raised() -> None:
    door = Door({"away": TransientError("S3 is away")})
    with pytest.raises(TransientError, match="S3 is away"):
        run(door, [RegionTask(n, str(n)) for n in range(9)] + [RegionTask(99, "away")])
    assert_threads_end()


def test_large_pictures_are_kept_small_and_boxes_are_those_of_the_full_scale() -> None:
    """5 times the size that the detector wants."""
    large = {name: tuple(5 * side for side in box) for name, box in (("bag", BAG), ("shoes", SHOES))}
    finder = Finder()
    encoder = composed(finder, classes=CLASSES)
    found = run(Door({"large": picture((600, 800), **large)}), [RegionTask(1, "large", category="Bags")], encoder)
    outcome = found[1]
    assert isinstance(outcome, EmbeddedRegions)
    assert outcome.found is not None
    assert outcome.found[1].box == large["bag"]
    assert colours_of(outcome) == {1: colour("bag")}
    assert finder.widths == [120]
