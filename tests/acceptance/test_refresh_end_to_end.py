"""What users see: pictures in, vectors and a searchable index out, and only what changed is done again."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celery import Celery
from PIL import Image, ImageOps
from sqlalchemy import select

from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.index.opening import close_readers
from shopvision.index.publish import compact
from shopvision.index.reader import IndexReader
from shopvision.index.tables import Embedding
from shopvision.models.serving import DEFAULT_ENCODER
from shopvision.models.tables import ModelVersion
from shopvision.search import ItemResult, SearchOptions, VisualSearch
from shopvision.settings import get_settings
from shopvision.storage import open_store
from tests.acceptance.shop import Shop, eventually
from worker.ledger.progress import job_progress, recent_jobs

pytestmark = pytest.mark.acceptance


def refresh(shop: Shop, *parameters: str) -> dict[str, Any]:
    return dict(shop.cli("jobs", "submit", "refresh_embeddings", *parameters, "--wait"))


def vectors(spec: str) -> dict[int, np.ndarray]:
    name, tag = spec.split(":")
    with connect() as connection:
        rows = connection.execute(
            select(Embedding.image_id, Embedding.vector)
            .join(ModelVersion)
            .where(ModelVersion.name == name, ModelVersion.tag == tag)
        ).all()
    return {image_id: np.frombuffer(vector, "<f2").astype(np.float32) for image_id, vector in rows}


def encoder_of(shop: Shop) -> str:
    return next(str(row["spec"]) for row in shop.cli("models", "list") if "catalogue_encoder" in row["roles"])


def served_ids(tmp_path: Path) -> set[int]:
    """Every picture that search can find now."""
    reader = IndexReader(open_store(), get_settings().index_name, tmp_path / uuid.uuid4().hex)
    generation = reader.generation()
    query = np.ones((1, generation.manifest.dimension), np.float32)
    return {hit.image_id for hit in generation.search(query, 2000)[0]}


def alike(item_id: str, k: int = 10) -> ItemResult:
    """What the current generation answers; an open reader looks for another one once a second."""
    close_readers()
    return VisualSearch().by_item(item_id, SearchOptions(k=k))


def best_like(shop: Shop, photo: str) -> dict[str, Any]:
    """The item that looks most like a whole photo."""
    (found,) = shop.cli("search", photo, "-k", "1")["photos"]
    (whole,) = found["garments"]
    return dict(whole["items"][0])


@pytest.fixture
def kept_catalogue(shop: Shop) -> Iterator[Path]:
    """The catalogue's folder; pictures and items are as they were again afterwards, embedded and published."""
    folder = shop.folder / "catalogue"
    shutil.copytree(folder, shop.folder / "kept")
    yield folder
    for path in (shop.folder / "kept" / "images").iterdir():
        if (folder / "images" / path.name).read_bytes() != path.read_bytes():
            shutil.copy(path, folder / "images" / path.name)
    shutil.rmtree(shop.folder / "kept")
    shop.cli("catalogue", "import", str(folder / "items.jsonl"))
    shop.read_images()
    refresh(shop)


def test_only_what_changed_is_done_again_and_rollback_serves_the_former_answers(
    shop: Shop, kept_catalogue: Path, tmp_path: Path
) -> None:
    refresh(shop)
    compact(get_settings().index_name)  # no deltas of other tests, so that our change alone decides what is written
    again = refresh(shop)
    total = sum(map(len, shop.images.values()))
    assert (again["total"], again["done"], again["skipped"], again["counters"]["embedded"]) == (total, total, total, 0)
    assert again["result"]["kind"] == "unchanged"

    ids = list(shop.images)
    removed, changed = ids[10:13], ids[20:25]
    dropped = {image for item in removed for image in shop.images[item]}
    changed_images = [shop.images[item][0] for item in changed]
    with connect() as connection:
        paths = connection.scalars(select(ItemImage.uri).where(ItemImage.image_id.in_(changed_images))).all()
    former = alike(changed[0], 5)
    before = served_ids(tmp_path)
    for uri in paths:
        path = Path(uri.removeprefix("file://"))
        ImageOps.invert(ImageOps.flip(Image.open(path).convert("RGB"))).save(path, quality=90)
    lines = (kept_catalogue / "items.jsonl").read_text().splitlines()
    fewer = tmp_path / "items.jsonl"
    fewer.write_text("\n".join(line for line in lines if json.loads(line)["item_id"] not in removed))
    report = shop.cli("catalogue", "import", str(fewer), "--images", str(kept_catalogue), "--delete-missing")
    assert report["deleted"] == 3

    old = vectors(encoder_of(shop))
    third = refresh(shop)
    assert (third["total"], third["counters"]["embedded"]) == (total - len(dropped), 5)
    assert third["skipped"] == third["total"] - 5
    assert third["result"]["kind"] == "delta"
    new = vectors(encoder_of(shop))
    assert set(new) == before - dropped
    assert {image for image in new if not np.array_equal(new[image], old[image])} == set(changed_images)
    assert served_ids(tmp_path) == before - dropped
    assert alike(changed[0], 5).items != former.items

    shop.cli("index", "rollback")
    assert served_ids(tmp_path) == before
    best = best_like(shop, str(shop.folder / "kept" / "images" / Path(paths[0]).name))
    assert best["score"] > 0.99
    assert alike(changed[0], 5) == former


@pytest.mark.slow
def test_another_model_takes_over_only_when_it_has_seen_the_catalogue(shop: Shop) -> None:
    """The other one is the default model, which thereby goes the whole way from pictures to answers."""
    first = encoder_of(shop)
    second = str(shop.cli("models", "import", DEFAULT_ENCODER)["spec"])

    job_id = shop.begin_refresh()
    shop.cli("models", "activate", "catalogue_encoder", second)
    try:
        shop.succeeds_exactly_once(job_id)  # its vectors are those of the model that it began with
        assert job_progress(job_id).params["model"] == first
        assert vectors(second) == {}

        some = refresh(shop, f"item_ids={json.dumps(shop.some_items(40))}")
        assert some["params"]["model"] == second
        assert some["counters"]["embedded"] == len(vectors(second)) > 0
        assert some["result"]["published"] is False
        assert "search stays with that one" in some["result"]["reason"]
        item = shop.some_items(1)[0]
        assert alike(item).model == first

        whole = refresh(shop)
        assert whole["skipped"] == some["counters"]["embedded"]
        assert whole["result"]["kind"] == "full"
        assert alike(item).model == second
        assert len(vectors(first)) == len(vectors(second))
        with connect() as connection:
            uri = connection.scalars(select(ItemImage.uri).where(ItemImage.item_id == item)).first()
        assert uri is not None
        best = best_like(shop, uri.removeprefix("file://"))
        assert (best["item_id"], best["score"] > 0.99) == (item, True)
    finally:
        shop.cli("models", "rollback", "catalogue_encoder")
    back = refresh(shop)
    assert back["params"]["model"] == first
    assert back["counters"]["embedded"] == 0
    assert alike(item).model == first


def test_a_producer_that_has_only_the_broker(shop: Shop) -> None:
    items = shop.some_items(3)
    producer = Celery("backend", broker=shop.redis.url)
    for _ in range(2):
        producer.send_task(
            "tasks.refresh_embeddings", kwargs={"item_ids": items, "key": "from-backend"}, queue="control"
        )
    producer.close()
    job = eventually(
        lambda: next((job for job in recent_jobs(limit=5) if job.key == "from-backend"), None), "the job is there"
    )
    ended = shop.wait(job.job_id)
    assert (ended.state, ended.source, ended.total) == (
        "succeeded",
        "task",
        sum(len(shop.images[item]) for item in items),
    )
    time.sleep(0.5)
    assert sum(job.key == "from-backend" for job in recent_jobs(limit=5)) == 1


def test_a_job_that_fails_is_told_by_the_exit_status(shop: Shop) -> None:
    failed = shop.cli("jobs", "submit", "refresh_embeddings", 'item_ids=["no such item"]', "--wait", status=1)
    assert failed["state"] == "failed"
    assert "'no such item' is not in the catalogue" in failed["error"]
    assert shop.cli("jobs", "show", failed["job_id"], status=1)["state"] == "failed"


def test_what_is_wrong_with_a_picture_is_told_and_can_be_retried(shop: Shop, kept_catalogue: Path) -> None:
    """The others succeed; mended, only the failed ones are done again."""
    items = shop.some_items(20)
    bad = [shop.images[item][0] for item in items[:2]]
    with connect() as connection:
        uris = connection.scalars(select(ItemImage.uri).where(ItemImage.image_id.in_(bad))).all()
    for uri in uris:
        Path(uri.removeprefix("file://")).write_text("<html>404</html>")
    ids = f"item_ids={json.dumps(items)}"
    job = refresh(shop, ids, "publish=false")
    assert (job["state"], job["failed"]) == ("succeeded", 2)
    told = shop.cli("jobs", "failures", job["job_id"])
    assert sorted(failure["item_key"] for failure in told["failures"]) == sorted(map(str, bad))
    for uri in uris:
        name = Path(uri).name
        shutil.copy(shop.folder / "kept" / "images" / name, kept_catalogue / "images" / name)
    retried = shop.cli("jobs", "retry-failed", job["job_id"], "--wait")
    assert (retried["state"], retried["total"], retried["done"], retried["failed"]) == ("succeeded", 2, 2, 0)
