"""The pictures of the next chunk are read while the model is busy with the last of this one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from shopvision import models
from shopvision.catalogue import upsert_items
from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.embeddings import refresh
from shopvision.embeddings.refresh import RefreshReport, embed_images
from shopvision.errors import JobError
from shopvision.images import PictureDoor
from shopvision.images.outcome import Embedded
from tests.unit.fashion.tiny_members import save_tiny_encoder

pytestmark = pytest.mark.usefixtures("database")
COUNT, CHUNK = 24, 12


def never() -> bool:
    return False


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each picture was fetched."""
    counts: Counter[str] = Counter()
    fetch = PictureDoor.fetch

    def note(door: PictureDoor, uri: str) -> Any:
        counts[Path(uri).stem] += 1
        return fetch(door, uri)

    monkeypatch.setattr(PictureDoor, "fetch", note)
    return counts


@pytest.fixture
def ref(tmp_path: Path, set_environment: Callable[..., None]) -> models.ModelVersionRef:
    """An encoder, and 24 pictures that it has not seen."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    set_environment(
        SHOPVISION_OBJECT_STORE=(tmp_path / "objects").as_uri(), SHOPVISION_IMAGE_ROOTS=str(pictures),
        SHOPVISION_TUNING='{"eye": {"batch_size": 4, "precision": "float32"}}',
    )  # fmt: skip
    random = np.random.default_rng(0)
    for number in range(COUNT):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(pictures / f"{number}.png")
    ref = models.import_model(f"local-dir:{save_tiny_encoder(tmp_path / 'eye')}", name="eye", tag="1")
    with connect() as connection:
        upsert_items(
            connection,
            [{"item_id": f"{n:02}", "images": [(pictures / f"{n}.png").as_uri()]} for n in range(COUNT)],
        )
    return ref


@pytest.fixture
def chunks(ref: models.ModelVersionRef) -> tuple[list[int], list[int]]:
    with connect() as connection:
        ids = list(connection.scalars(select(ItemImage.image_id).order_by(ItemImage.image_id)))
    return ids[:CHUNK], ids[CHUNK:]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 20
    while any(thread.name.startswith("pictures-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "threads still read pictures"
        time.sleep(0.01)


def vectors(report: RefreshReport) -> dict[int, bytes]:
    return {one.image_id: one.vector for one in report.outcomes if isinstance(one, Embedded)}


def test_the_next_pictures_are_there_when_the_model_is_done(
    ref: models.ModelVersionRef,
    chunks: tuple[list[int], list[int]],
    fetched: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = chunks
    encoder = models.load(ref.spec)
    encode = type(encoder).encode
    asked: list[int] = []

    def next_ids() -> list[int]:
        asked.append(len(fetched))
        return second

    def wait_for_the_others(self: Any, batch: Any) -> Any:
        """The last batch of the first chunk takes until everything ahead was fetched, or for ever."""
        batches.append(len(batch))
        if len(batches) == CHUNK // 4:
            deadline = time.monotonic() + 20
            while len(fetched) < COUNT and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(fetched) == COUNT
        return encode(self, batch)

    batches: list[int] = []
    monkeypatch.setattr(type(encoder), "encode", wait_for_the_others)
    report = embed_images(ref, first, everything=False, should_stop=never, next_ids=next_ids)
    assert len(asked) == 1  # once, and not before every picture of the first chunk was begun
    assert asked[0] >= CHUNK - 4
    assert sorted(vectors(report)) == first
    following = embed_images(ref, second, everything=False, should_stop=never, begun=report.begun)
    assert sorted(vectors(following)) == second
    assert following.begun is None
    assert set(fetched.values()) == {1}
    assert sum(batches) == COUNT
    plain = embed_images(ref, first + second, everything=True, should_stop=never)
    assert vectors(plain) == vectors(report) | vectors(following)


def test_who_is_stopped_begins_nothing(ref: models.ModelVersionRef, chunks: tuple[list[int], list[int]]) -> None:
    report = embed_images(
        ref, chunks[0], everything=False, should_stop=lambda: True, next_ids=lambda: pytest.fail("asked")
    )
    assert report.begun is None
    assert len(report.remaining) == CHUNK - 4


def test_an_error_gives_up_what_was_begun(
    ref: models.ModelVersionRef, chunks: tuple[list[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = models.load(ref.spec)
    encode = type(encoder).encode
    begun: list[bool] = []

    def next_ids() -> list[int]:
        begun.append(True)
        return chunks[1]

    def fail_then(self: Any, batch: Any) -> Any:
        if begun:
            raise JobError("The model cannot run.")
        return encode(self, batch)

    monkeypatch.setattr(type(encoder), "encode", fail_then)
    monkeypatch.setattr(refresh.BegunRefresh, "are_all_begun", True)
    with pytest.raises(JobError, match="cannot run"):
        embed_images(ref, chunks[0], everything=False, should_stop=never, next_ids=next_ids)
    assert begun


def test_what_cannot_be_begun_does_not_harm_what_runs(
    ref: models.ModelVersionRef, chunks: tuple[list[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = refresh._whole_pictures

    def away(ref: Any, door: Any, image_ids: list[int], *, everything: bool) -> Any:
        if image_ids == chunks[1]:
            raise OperationalError("SELECT", {}, psycopg.errors.AdminShutdown("away"))
        return whole(ref, door, image_ids, everything=everything)

    monkeypatch.setattr(refresh, "_whole_pictures", away)
    report = embed_images(ref, chunks[0], everything=False, should_stop=never, next_ids=lambda: chunks[1])
    assert sorted(vectors(report)) == chunks[0]
    assert report.begun is None
