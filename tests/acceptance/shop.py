"""A small deployment for fault tests: real Postgres, Redis and S3 API, real workers, each of which can be hurt."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import structlog
from sqlalchemy import delete, select, text
from sqlalchemy.exc import OperationalError

from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.index.opening import close_readers
from shopvision.index.tables import Embedding
from tests.integration.storage.faulty_proxy import FaultyProxy
from worker.ledger import jobs
from worker.ledger.progress import JobProgress, job_progress
from worker.ledger.tables import Chunk, Job
from worker.stack.embedded import PostgresServer, RedisServer, free_port

COMMAND = str(Path(sys.executable).with_name("shopvision"))
JOB_SECONDS = 270  # whatever the machine
REPOSITORY = Path(__file__).parents[2]
SERVERS = ("postgres", "redis")
BUCKET = "shop"
# A window a year long: none opens while a test runs, so a test decides when one is due.
SCHEDULES = {"yearly": {"kind": "sleep", "cron": "0 0 1 1 *", "params": {"items": 3}}}


def eventually(condition: Callable[[], Any], what: str, seconds: float = 180.0) -> Any:
    """The first true value of ``condition()``; fails with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class Shop:
    """Servers and workers of one deployment, by name. They reach the S3 server at ``s3_url`` through ``proxy``."""

    def __init__(self, folder: Path, s3_url: str) -> None:
        self.folder = folder
        self.gate = folder / "gate"  # see ``kinds.wait_at_gate``
        self.s3_url = s3_url
        self.postgres = PostgresServer(folder / "postgres", free_port(), "test")
        self.redis = RedisServer(folder / "redis", free_port(), "test")
        self.proxy = FaultyProxy(s3_url)
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
            "SHOPVISION_COMPILE_IN_BACKGROUND": "false",
            "SHOPVISION_TUNING_SECONDS": "0",
            "SHOPVISION_WORKER_PROCESSES": "1",  # each imports for seconds; who needs a second starts "gpu-other"
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
            words = "beat: Starting" if name.startswith("beat") else " ready."
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

    def stop(self, name: str) -> None:
        """An orderly end."""
        self.signal(name, signal.SIGINT if name == "postgres" else signal.SIGTERM)
        self.processes.pop(name).wait(120)

    def stop_everything(self) -> None:
        for name in sorted(self.processes, key=lambda name: name in SERVERS):
            self.kill(name)

    def repair(self) -> None:
        """Whatever the last test broke works again, and nothing of it runs on."""
        self.proxy.be_good()
        self.open_gate()
        for name in list(self.processes):
            process = self.processes[name]
            if process.poll() is not None:
                self.processes.pop(name)
            elif name not in {*SERVERS, "gpu", "cpu"}:
                self.kill(name)
            else:
                for member in (psutil.Process(process.pid), *psutil.Process(process.pid).children()):
                    with suppress(psutil.NoSuchProcess):  # a process of the pool whose time had come
                        member.resume()
        self.start(*SERVERS, "gpu", "cpu")
        with connect() as connection:
            connection.execute(delete(Job).where(Job.state == "running"))

    def cli(self, *arguments: str, status: int = 0) -> Any:
        """Run a ``shopvision`` command in this process, which is set up as the shop is; processes of their own import
        everything anew. Returns its JSON, or what it said where an error is expected.
        """
        from worker.cli.main import main

        close_readers()  # a process of its own would look for the current generation at once
        out, err, ended = io.StringIO(), io.StringIO(), 0
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            patch.object(sys, "argv", ["shopvision", *arguments, "--json"]),
        ):
            try:
                main()
            except SystemExit as end:
                ended = int(end.code or 0)
            finally:
                structlog.reset_defaults()  # the command logs to what is no longer there
        assert ended == status, f"{arguments}: {out.getvalue()} {err.getvalue()}"
        return json.loads(out.getvalue()) if out.getvalue().strip() else err.getvalue()

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

    def close_gate(self) -> str:
        """From now on jobs that are told of the gate wait there; returns where it is."""
        self.open_gate()
        self.gate.mkdir()
        return str(self.gate)

    def open_gate(self) -> None:
        """Let everybody pass, now and later."""
        if self.gate.exists():
            shutil.rmtree(self.gate.rename(self.folder / f"gate-{uuid.uuid4().hex}"))

    def at_gate(self) -> set[int]:
        """Ids of the processes that wait there."""
        return {int(mark.name) for mark in self.gate.iterdir()} if self.gate.exists() else set()

    def begin_refresh(self, *, pictures: int = 80, kind: str = "refresh_small_chunks", **params: Any) -> uuid.UUID:
        """A refresh over pictures that have no vector, returned when it is midway: much done, much to do.

        Every process holds a batch of vectors that it has just made, until the gate is opened.
        """
        items = self.some_items(pictures)
        self.forget([image for item in items for image in self.images[item]])
        job_id = self.submit(kind, item_ids=items, publish=False, gate=self.close_gate(), **params)
        if kind == "refresh_small_chunks":
            _, pid = self.holder(job_id)
            (self.gate / str(pid)).unlink()
            eventually(lambda: job_progress(job_id).done, "first chunk done")
        self.holder(job_id)
        return job_id

    def holder(self, job_id: uuid.UUID) -> tuple[int, int]:
        """(chunk id, process id) of a chunk that is worked on; while the gate is closed, of one that waits there."""

        def look() -> tuple[int, int] | None:
            with connect() as connection:
                rows = connection.execute(
                    select(Chunk.chunk_id, Chunk.worker)
                    .where(Chunk.job_id == job_id, Chunk.state == "leased", Chunk.phase == "chunk")
                    .order_by(Chunk.started_at.desc())
                ).all()
            held = [(row.chunk_id, int(row.worker.rpartition("/")[2])) for row in rows]
            return next((one for one in held if not self.gate.exists() or one[1] in self.at_gate()), None)

        found: tuple[int, int] = eventually(look, "a chunk is worked on")
        return found

    def wait(self, job_id: uuid.UUID) -> JobProgress:
        """The job at its end."""

        def ended() -> JobProgress | None:
            try:
                progress = job_progress(job_id)
            except OperationalError:
                return None
            return progress if progress.state != "running" else None

        try:
            result: JobProgress = eventually(ended, "the job ends", JOB_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; it stands at {job_progress(job_id)}; logs in {self.folder}") from None
        return result

    def succeeds_exactly_once(self, job_id: uuid.UUID, *, failed: Sequence[int] = ()) -> None:
        """With the gate open the job succeeds by itself; every picture was embedded once, and no row and no effect is
        there twice.
        """
        self.open_gate()
        progress = self.wait(job_id)
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
