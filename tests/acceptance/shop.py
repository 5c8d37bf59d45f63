"""A small deployment for fault tests: real Postgres, Redis and S3 API, real workers, each of which can be hurt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import delete, select, text
from sqlalchemy.exc import OperationalError

from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.index.tables import Embedding
from tests.integration.storage.faulty_proxy import FaultyProxy
from worker.ledger import jobs
from worker.ledger.progress import JobProgress, job_progress
from worker.ledger.tables import Chunk, Job
from worker.stack.embedded import PostgresServer, RedisServer, free_port

COMMAND = str(Path(sys.executable).with_name("shopvision"))
REPOSITORY = Path(__file__).parents[2]
SERVERS = ("postgres", "redis", "s3")
BUCKET = "shop"
# A window a year long: none opens while a test runs, so a test decides when one is due.
SCHEDULES = {"yearly": {"kind": "sleep", "cron": "0 0 1 1 *", "params": {"items": 3}}}


def eventually(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """The first true value of ``condition()``; fails with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class Shop:
    """Servers and workers of one deployment, by name. Workers reach the S3 server through ``proxy``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = PostgresServer(folder / "postgres", free_port(), "test")
        self.redis = RedisServer(folder / "redis", free_port(), "test")
        self.s3_port = free_port()
        self.proxy = FaultyProxy(f"http://127.0.0.1:{self.s3_port}")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._log_starts: dict[str, int] = {}
        self.images: dict[str, list[int]] = {}
        self.variables = {
            "SHOPVISION_HOME": str(folder / "home"),
            "SHOPVISION_DATABASE_URL": self.postgres.url,
            "SHOPVISION_BROKER_URL": self.redis.url,
            "SHOPVISION_OBJECT_STORE": f"s3://{BUCKET}/vision",
            "SHOPVISION_S3_ENDPOINT_URL": self.proxy.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "SHOPVISION_IMAGE_ROOTS": str(folder / "catalogue"),
            "SHOPVISION_KIND_MODULES": "tasks,tests.acceptance.kinds",
            "SHOPVISION_SCHEDULES": json.dumps(SCHEDULES),
            "SHOPVISION_LEASE_SECONDS": "5",
            "SHOPVISION_DEATHS_BEFORE_SPLIT": "2",
            "SHOPVISION_RESEND_AFTER_SECONDS": "3",
            "SHOPVISION_DISPATCH_INTERVAL_SECONDS": "0.5",
            "SHOPVISION_PLAN_INTERVAL_SECONDS": "1",
            "SHOPVISION_LOG_FORMAT": "json",
        }
        (folder / "home").mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.variables}

    # Processes

    def _command(self, name: str) -> list[str]:
        if name == "postgres":
            self.postgres.initialise()
            return self.postgres.command()
        if name == "redis":
            self.redis.initialise()
            return self.redis.command()
        if name == "s3":
            return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.s3_port)]
        role = name.split("-", maxsplit=1)[0]
        return [COMMAND, "beat"] if role == "beat" else [COMMAND, "worker", role]

    def start(self, *names: str, prefix: Sequence[str] = (), **variables: str) -> None:
        """Start what does not run of ``names`` and wait until it works."""
        names = tuple(name for name in names if name not in self.processes)
        for name in names:
            path = self.folder / f"{name}.log"
            self._log_starts[name] = path.stat().st_size if path.exists() else 0
            with path.open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [*prefix, *self._command(name)],
                    stdout=log,
                    stderr=log,
                    cwd="/" if name in SERVERS else REPOSITORY,
                    env={**self.environment, **variables},
                    start_new_session=True,
                )
        for name in names:
            self._wait_until_ready(name)

    def _wait_until_ready(self, name: str) -> None:
        if name == "postgres":
            self.postgres.wait_until_ready()
        elif name == "redis":
            self.redis.wait_until_ready()
        else:
            words = {"s3": "Running on", "beat": "beat: Starting"}.get(name.split("-", maxsplit=1)[0], " ready.")
            eventually(lambda: words in self.log(name) or self.processes[name].poll() is not None, f"{name} is ready")
            assert self.processes[name].poll() is None, self.log(name)[-3000:]

    def log(self, name: str) -> str:
        """What ``name`` has said since it was last started."""
        return (self.folder / f"{name}.log").read_bytes()[self._log_starts[name] :].decode(errors="replace")

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        """kill -9, with everything it started."""
        process = psutil.Process(self.processes[name].pid)
        for member in (process, *process.children(recursive=True)):
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        self.processes.pop(name).wait(30)

    def stop(self, name: str) -> float:
        """An orderly end; returns how many seconds it took."""
        started = time.monotonic()
        self.signal(name, signal.SIGINT if name == "postgres" else signal.SIGTERM)
        self.processes.pop(name).wait(60)
        return time.monotonic() - started

    def stop_everything(self) -> None:
        for name in sorted(self.processes, key=lambda name: name in SERVERS):
            self.kill(name)

    def repair(self) -> None:
        """Whatever the last test broke works again, and nothing of it runs on."""
        self.proxy.be_good()
        for name in list(self.processes):
            process = self.processes[name]
            if process.poll() is not None:
                self.processes.pop(name)
            elif name not in {*SERVERS, "gpu", "cpu"}:
                self.kill(name)
            else:
                for member in (psutil.Process(process.pid), *psutil.Process(process.pid).children()):
                    member.resume()
        self.start(*SERVERS, "gpu", "cpu")
        with connect() as connection:
            connection.execute(delete(Job).where(Job.state == "running"))

    def cli(self, *arguments: str, status: int = 0) -> Any:
        """Run a ``shopvision`` command; returns its JSON, or what it said where an error is expected."""
        done = subprocess.run(
            [COMMAND, *arguments, "--json"],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=REPOSITORY,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, f"{arguments}: {done.stdout} {done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else done.stderr

    # Jobs

    def some_items(self, pictures: int) -> list[str]:
        """Items that have about so many pictures together."""
        found: list[str] = []
        for item_id, images in self.images.items():
            if pictures <= 0:
                break
            found.append(item_id)
            pictures -= len(images)
        return found

    def forget(self, image_ids: Sequence[int]) -> None:
        """Remove vectors, so that a refresh has to make them, and what was noted of former effects."""
        with connect() as connection:
            connection.execute(delete(Embedding).where(Embedding.image_id.in_(image_ids)))
            connection.execute(text("TRUNCATE effects"))

    def submit(self, kind: str, **params: Any) -> uuid.UUID:
        with connect() as connection:
            return jobs.submit(connection, kind, params)

    def begin_refresh(
        self, *, pictures: int = 200, kind: str = "refresh_small_chunks", pause: float = 0.4, **params: Any
    ) -> uuid.UUID:
        """A refresh over real pictures that have no vector, returned when it is midway: much done, much to do."""
        items = self.some_items(pictures)
        self.forget([image for item in items for image in self.images[item]])
        job_id = self.submit(kind, item_ids=items, publish=False, pause=pause, **params)
        if kind == "refresh_small_chunks":
            eventually(lambda: job_progress(job_id).done, "first chunk done")
        self.holder(job_id)
        return job_id

    def holder(self, job_id: uuid.UUID) -> tuple[int, int]:
        """(chunk id, process id) of a chunk that is being worked on."""

        def look() -> tuple[int, int] | None:
            with connect() as connection:
                row = connection.execute(
                    select(Chunk.chunk_id, Chunk.worker)
                    .where(Chunk.job_id == job_id, Chunk.state == "leased", Chunk.phase == "chunk")
                    .order_by(Chunk.started_at.desc())
                ).first()
            return (row.chunk_id, int(row.worker.rpartition("/")[2])) if row else None

        found: tuple[int, int] = eventually(look, "a chunk is worked on")
        return found

    def wait(self, job_id: uuid.UUID, seconds: float = 120.0) -> JobProgress:
        """The job at its end."""

        def ended() -> JobProgress | None:
            try:
                progress = job_progress(job_id)
            except OperationalError:
                return None
            return progress if progress.state != "running" else None

        try:
            result: JobProgress = eventually(ended, "the job ends", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it stands at {job_progress(job_id)}; logs in {self.folder}") from None
        return result

    def succeeds_exactly_once(self, job_id: uuid.UUID, *, failed: Sequence[int] = (), seconds: float = 120.0) -> None:
        """The job succeeds by itself; every picture was embedded once, and no row and no effect is there twice."""
        progress = self.wait(job_id, seconds)
        assert progress.state == "succeeded", progress
        images = {image for item in progress.params["item_ids"] for image in self.images[item]} - set(failed)
        assert (progress.total, progress.done, progress.failed) == (len(images) + len(failed), len(images), len(failed))
        assert progress.counters["embedded"] == len(images)
        with connect() as connection:
            effects = sorted(int(key) for key in connection.scalars(text("SELECT key FROM effects")))
            rows = connection.scalars(
                select(Embedding.image_id).where(Embedding.image_id.in_(images)).order_by(Embedding.image_id)
            ).all()
        assert effects == sorted(images)
        assert list(rows) == sorted(images)

    def deaths(self, job_id: uuid.UUID) -> int:
        with connect() as connection:
            return sum(connection.scalars(select(Chunk.deaths).where(Chunk.job_id == job_id)))

    def attempts(self, job_id: uuid.UUID) -> list[int]:
        """How often each chunk of pictures was begun."""
        with connect() as connection:
            return list(
                connection.scalars(
                    select(Chunk.attempt).where(Chunk.job_id == job_id, Chunk.phase == "chunk").order_by(Chunk.chunk_id)
                )
            )

    def read_images(self) -> None:
        """Note which pictures the catalogue holds now."""
        with connect() as connection:
            rows = connection.execute(select(ItemImage.item_id, ItemImage.image_id).order_by(ItemImage.image_id)).all()
        self.images = {}
        for item_id, image_id in rows:
            self.images.setdefault(item_id, []).append(image_id)
