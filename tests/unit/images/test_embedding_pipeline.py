"""The pipeline with a door and a model made for the purpose: every outcome, errors, memory, cancelling."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from shopvision.errors import ItemError, JobError, TransientError
from shopvision.images import task_reading
from shopvision.images.outcome import Embedded, Failed, ImageTask, Outcome, Touched, Unchanged
from shopvision.images.pipeline import EmbeddingPipeline
from shopvision.images.preprocessing import Preprocessing

PIXELS = 8 * 8
PREPROCESSING = Preprocessing(size=(8, 8), crop_fraction=1.0, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "png")
    return buffer.getvalue()


class Door:
    """Pictures from a dictionary; a value that is an exception is raised."""

    def __init__(self, sources: dict[str, bytes | BaseException], delay: float = 0.0) -> None:
        self.sources, self.delay = sources, delay
        self.limits = None
        self.fetched: list[str] = []

    def fingerprint(self, uri: str) -> str:
        return f"mark of {uri}"

    def fetch_changed(self, uri: str, known: str) -> SimpleNamespace | None:
        return None if known == self.fingerprint(uri) else self.fetch(uri)

    def fetch(self, uri: str) -> SimpleNamespace:
        time.sleep(self.delay)
        self.fetched.append(uri)
        data = self.sources[uri] if uri in self.sources else png((int(uri) % 251, int(uri) // 251, 7))
        if isinstance(data, BaseException):
            raise data
        return SimpleNamespace(data=data, sha256=hashlib.sha256(data).digest(), fingerprint=self.fingerprint(uri))


@dataclass
class MeanColour:
    """The mean colour, scaled to unit length, as a three-dimensional vector."""

    preprocessing: Preprocessing = PREPROCESSING
    batch_size: int = 4

    def __post_init__(self) -> None:
        self.batches: list[int] = []

    def encode(self, batch: np.ndarray) -> np.ndarray:
        self.batches.append(len(batch))
        colours = batch.mean(axis=(1, 2), dtype=np.float32)
        with np.errstate(invalid="ignore"):
            return colours / np.linalg.norm(colours, axis=1, keepdims=True)


def run(
    door: Door, tasks: list[ImageTask], encoder: MeanColour | None = None, batch_size: int = 4
) -> dict[int, Outcome]:
    pipeline = EmbeddingPipeline(encoder or MeanColour(), door, threads=3, batch_size=batch_size)
    outcomes = [outcome for found in pipeline.stream(tasks) for outcome in found]
    assert len(outcomes) == len({outcome.image_id for outcome in outcomes}) == len(tasks)
    return {outcome.image_id: outcome for outcome in outcomes}


def test_every_outcome() -> None:
    red, blue = png((200, 0, 0)), png((0, 0, 100))
    door = Door(
        {"red": red, "blue": blue, "same": red, "black": png((0, 0, 0)), "gone": ItemError("not_found", "gone: no")}
    )
    digest = hashlib.sha256(red).digest()
    found = run(
        door,
        [
            ImageTask(1, "red"),
            ImageTask(2, "blue", "old mark", digest),
            ImageTask(3, "same", "old mark", digest),
            ImageTask(4, "never read", "mark of never read", b"whatever"),
            ImageTask(5, "black"),
            ImageTask(6, "gone"),
        ],
    )
    assert found[1] == Embedded(1, digest, "mark of red", np.array([1, 0, 0], "<f2").tobytes(), PIXELS)
    vector = np.array([0, 0, 1], "<f2").tobytes()
    assert found[2] == Embedded(2, hashlib.sha256(blue).digest(), "mark of blue", vector, PIXELS)
    assert found[3] == Touched(3, "mark of same")
    assert found[4] == Unchanged(4)
    assert found[5] == Failed(5, "bad_vector", "The model gives this picture no finite vector.")
    assert found[6] == Failed(6, "not_found", "gone: no")
    assert sorted(door.fetched) == ["black", "blue", "gone", "red", "same"]


@pytest.mark.parametrize(
    ("error", "code"), [(ValueError("odd bytes"), "decode_error"), (MemoryError(), "out_of_memory")]
)
def test_an_unforeseen_error_is_one_picture_s_failure(error: Exception, code: str) -> None:
    found = run(Door({"bad": error, "red": png((9, 0, 0))}), [ImageTask(1, "bad"), ImageTask(2, "red")])
    assert isinstance(found[2], Embedded)
    assert found[1].code == code
    assert found[1].message.startswith("bad: ")


@pytest.mark.parametrize("error", [TransientError("S3 is away"), JobError("no such bucket")])
def test_what_concerns_the_whole_job_is_raised(error: Exception) -> None:
    tasks = [ImageTask(number, str(number)) for number in range(20)] + [ImageTask(99, "away")]
    with pytest.raises(type(error), match=str(error)):
        run(Door({"red": png((9, 0, 0)), "away": error}), tasks)
    assert_threads_end()


def assert_threads_end() -> None:
    deadline = time.monotonic() + 30
    while any(thread.name.startswith("pictures-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "threads are still running"
        time.sleep(0.01)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 50])
def test_batches_are_full_and_order_does_not_matter(batch_size: int) -> None:
    colours = {str(number): png((number, 255 - number, 7)) for number in range(23)}
    encoder = MeanColour()
    found = run(Door(colours), [ImageTask(int(name), name) for name in colours], encoder, batch_size)
    assert sorted(encoder.batches, reverse=True) == [batch_size] * (23 // batch_size) + [23 % batch_size] * (
        23 % batch_size > 0
    )
    for number, outcome in found.items():
        expected = np.array([number, 255 - number, 7]) / np.linalg.norm([number, 255 - number, 7])
        np.testing.assert_allclose(np.frombuffer(outcome.vector, "<f2"), expected, atol=1e-3)


def test_no_tasks_need_no_model() -> None:
    assert run(Door({}), []) == {}


def test_closing_stops_the_threads_at_once() -> None:
    door = Door({"red": png((9, 0, 0))}, delay=0.001)
    stream = EmbeddingPipeline(MeanColour(), door, threads=4, batch_size=2).stream(
        [ImageTask(n, str(n)) for n in range(5000)]
    )
    assert len(next(stream)) == 2
    stream.close()
    assert_threads_end()
    assert len(door.fetched) < 100


def test_waiting_pictures_are_bounded() -> None:
    door = Door({"red": png((9, 0, 0))})
    stream = EmbeddingPipeline(MeanColour(), door, threads=4, batch_size=5).stream(
        [ImageTask(n, str(n)) for n in range(500)]
    )
    next(stream)
    time.sleep(0.3)  # nobody consumes: the readers must come to rest
    read = len(door.fetched)
    assert read <= 5 + 2 * 5 + 4 + 4
    time.sleep(0.1)
    assert len(door.fetched) == read
    stream.close()


def test_slow_sources_do_not_keep_the_consumer_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_reading, "PATIENCE_SECONDS", 0.05)
    door = Door({"red": png((9, 0, 0))}, delay=0.2)
    lists = list(
        EmbeddingPipeline(MeanColour(), door, threads=1, batch_size=100).stream([ImageTask(1, "1"), ImageTask(2, "2")])
    )
    assert [] in lists
    assert sum(map(len, lists)) == 2


def test_an_address_named_by_four_is_fetched_and_embedded_once() -> None:
    door, encoder = Door({"red": png((9, 0, 0))}), MeanColour()
    found = run(door, [ImageTask(number, "red") for number in range(4)], encoder)
    assert door.fetched == ["red"]
    assert encoder.batches == [1]
    assert len({outcome.vector for outcome in found.values()}) == 1


def test_each_task_of_an_address_goes_by_what_it_knows() -> None:
    red = png((9, 0, 0))
    digest = hashlib.sha256(red).digest()
    door = Door({"red": red, "gone": ItemError("not_found", "gone: no")})
    tasks = [
        ImageTask(1, "red"),
        ImageTask(2, "red", "mark of red", digest),
        ImageTask(3, "red", "old mark", digest),
        ImageTask(4, "red", "old mark", b"other bytes"),
        ImageTask(5, "gone"),
        ImageTask(6, "gone"),
    ]
    found = run(door, tasks)
    assert [type(found[number]) for number in range(1, 7)] == [Embedded, Unchanged, Touched, Embedded, Failed, Failed]
    assert sorted(door.fetched) == ["gone", "red"]


def test_equal_bytes_go_through_the_model_once() -> None:
    encoder = MeanColour()
    pictures = {f"place {number}": png((9, 0, 0)) for number in range(10)}
    found = run(Door(pictures), [ImageTask(number, uri) for number, uri in enumerate(pictures)], encoder, 4)
    assert sum(encoder.batches) == 1
    assert all(isinstance(outcome, Embedded) for outcome in found.values())


def test_vectors_that_are_known_are_not_made_again() -> None:
    red, blue = png((9, 0, 0)), png((0, 0, 9))
    known = {hashlib.sha256(red).digest(): b"kept"}
    encoder = MeanColour()
    pipeline = EmbeddingPipeline(
        encoder,
        Door({"red": red, "blue": blue}),
        known_vectors=lambda asked: {k: known[k] for k in asked if k in known},
    )
    outcomes = [o for found in pipeline.stream([ImageTask(1, "red"), ImageTask(2, "blue")]) for o in found]
    assert {outcome.image_id: outcome.vector == b"kept" for outcome in outcomes} == {1: True, 2: False}
    assert sum(encoder.batches) == 1
