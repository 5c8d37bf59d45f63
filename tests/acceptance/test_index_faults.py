"""Object storage that fails while a refresh publishes, publishers at once, full disks; searches go on meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import boto3
import numpy as np
import pytest
from sqlalchemy import select

from shopvision.database import connect
from shopvision.index.collecting import collect_garbage
from shopvision.index.generation_rows import list_generations
from shopvision.index.reader import IndexReader
from shopvision.index.tables import Embedding, IndexGeneration
from shopvision.settings import get_settings
from shopvision.storage.s3 import S3Store
from tests.acceptance.shop import BUCKET, COMMAND, REPOSITORY, Shop, eventually
from worker.ledger.progress import job_progress
from worker.ledger.tables import Chunk

pytestmark = pytest.mark.acceptance


class Watcher:
    """Searches all the time, past the proxy, for pictures that never change; notes errors and generations."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self.reader = IndexReader(
            S3Store(BUCKET, "vision", endpoint_url=shop.s3_url),
            get_settings().index_name,
            folder,
        )
        self.vectors = vectors_of([images[0] for images in list(shop.images.values())[-5:]])
        self.generations: list[str] = []
        self.errors: list[BaseException] = []
        self.searches = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._end.is_set():
            try:
                self.reader.refresh()
                generation = self.reader.generation()
                if generation.path not in self.generations[-1:]:
                    self.generations.append(generation.path)
                found = generation.search(self.vectors, 1)
                scores = [hits[0].score for hits in found]
                assert min(scores) > 0.99, (generation.path, scores)
                self.searches += 1
            except BaseException as error:  # noqa: BLE001 - the test shall see whatever a searcher would have seen
                self.errors.append(error)
                return
            self._end.wait(0.02)

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._end.set()
            self._thread.join()
        assert self.errors == []
        assert self.searches > 5


def vectors_of(image_ids: Sequence[int]) -> np.ndarray:
    """What the model that search uses has seen in these pictures."""
    query = (
        select(Embedding.image_id, Embedding.vector)
        .join(IndexGeneration, IndexGeneration.model_version_id == Embedding.model_version_id)
        .where(IndexGeneration.is_current, Embedding.image_id.in_(image_ids))
    )
    with connect() as connection:
        rows = dict(connection.execute(query).all())
    return np.stack([np.frombuffer(rows[image_id], "<f2") for image_id in image_ids]).astype(np.float32)


def current(shop: Shop) -> str:
    return next(row.path for row in list_generations(get_settings().index_name) if row.is_current)


# Those that are slow are tried at every call, in one process, by tests/integration/index/test_faults.py.
@pytest.mark.parametrize(
    "fault",
    [
        "500 and 503",
        pytest.param("cut upload", marks=pytest.mark.slow),
        pytest.param("last file lost", marks=pytest.mark.slow),
    ],
)
def test_the_store_fails_while_a_job_publishes(shop: Shop, tmp_path: Path, fault: str) -> None:
    """500, 503 slow-down, a cut upload, or the last file gone before ``current`` moves."""
    before = current(shop)
    watcher = Watcher(shop, tmp_path)
    direct = boto3.client("s3", endpoint_url=shop.s3_url)
    harmed: list[str] = []
    items = shop.some_items(12)
    pictures = [image for item in items for image in shop.images[item]]
    shop.forget(pictures)

    def rule(method: str, path: str) -> str:
        key = unquote(urlsplit(path).path)
        if method != "PUT" or "/generations/" not in key:
            return ""
        if fault != "last file lost":
            harmed.append(key)
            return "drop" if fault == "cut upload" else ("500", "503")[len(harmed) % 2]
        if key.endswith("/manifest.json"):
            folder = key.removesuffix("manifest.json").removeprefix(f"/{BUCKET}/")
            last = direct.list_objects_v2(Bucket=BUCKET, Prefix=folder)["Contents"][-1]["Key"]
            direct.delete_object(Bucket=BUCKET, Key=last)
            harmed.append(last)
        return ""

    shop.proxy.rule = rule
    with watcher.watching():
        job_id = shop.submit("refresh_small_chunks", item_ids=items)

        def postponed() -> str | None:
            with connect() as connection:
                return connection.scalar(
                    select(Chunk.error).where(Chunk.job_id == job_id, Chunk.phase == "finish", Chunk.state == "ready")
                )

        reason = eventually(postponed, "publishing is put off")
        assert harmed
        assert current(shop) == before
        assert job_progress(job_id).state == "running"
        shop.proxy.be_good()
        shop.succeeds_exactly_once(job_id)
        eventually(lambda: watcher.errors or watcher.generations[-1] == current(shop), "the reader follows")
    assert reason
    assert current(shop) != before
    assert watcher.generations == [before, current(shop)]
    assert shop.cli("index", "verify")["problems"] == []


@pytest.mark.slow
def test_two_publishers_a_rollback_and_garbage_collection_at_once(shop: Shop, tmp_path: Path) -> None:
    watcher = Watcher(shop, tmp_path)
    with watcher.watching():
        before = current(shop)
        both = [subprocess.Popen([COMMAND, "index", "compact"], env=shop.environment, cwd=REPOSITORY) for _ in range(2)]
        assert [process.wait(120) for process in both] == [0, 0]
        newest, second = [row.path for row in list_generations(get_settings().index_name)[:2]]
        assert current(shop) == newest
        assert shop.cli("index", "rollback")["current"] == second
        shop.cli("index", "compact")
        assert collect_garbage(get_settings().index_name, 1, grace=timedelta(0)).objects > 0
        eventually(lambda: watcher.errors or watcher.generations[-1] == current(shop), "the reader follows")
    assert before in watcher.generations
    assert shop.cli("index", "verify")["problems"] == []


@pytest.mark.slow
def test_a_full_disk_under_the_cache(shop: Shop) -> None:
    """A worker whose cache lies on a disk too small for the model says so; another one completes the job."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0:
        pytest.skip("mounting a small disk needs user namespaces; ENOSPC is simulated in the integration tests too")
    shop.stop("gpu")
    small = shop.folder / "small"
    (small / "cache").mkdir(parents=True, exist_ok=True)
    mount = f'mount -t tmpfs -o size=128k tmpfs {small / "cache"} && exec "$@"'
    shop.start("gpu-small", prefix=["unshare", "-rm", "sh", "-c", mount, "sh"], SHOPVISION_HOME=str(small))
    items = shop.some_items(60)
    shop.forget([image for item in items for image in shop.images[item]])
    job_id = shop.submit("refresh_small_chunks", item_ids=items, publish=False)
    progress = shop.wait(job_id)
    assert progress.state == "failed"
    assert progress.error is not None
    assert f"The disk of {small}/cache/models" in progress.error
    assert "is full: free space, or set SHOPVISION_HOME to another disk" in progress.error
    shop.kill("gpu-small")
    shop.start("gpu")
    shop.cli("jobs", "resume", str(job_id))
    shop.succeeds_exactly_once(job_id)


def test_search_goes_on_while_the_store_is_slow(shop: Shop) -> None:
    """``shopvision search`` outlives single faults of every request."""
    harmed: set[str] = set()

    def rule(method: str, path: str) -> str:
        if path in harmed:
            return ""
        harmed.add(path)
        return "cut" if method == "GET" else "503"

    item = shop.some_items(1)[0]
    shutil.rmtree(shop.folder / "home" / "cache" / "index", ignore_errors=True)
    shop.proxy.rule = rule
    found = shop.cli("search", "--item", item, "-k", "3")
    assert len(found["items"]) == 3
    assert harmed
