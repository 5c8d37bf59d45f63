"""What every benchmark needs: tables, real photos, and a deployment of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[1]
CORES = len(os.sched_getaffinity(0))


@dataclass
class Table:
    """A result: ``rows`` have the same keys, which are the columns; ``note`` says what they mean."""

    title: str
    note: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def markdown(self) -> str:
        """Title, note and table."""
        lines = [f"### {self.title}", "", self.note, ""]
        if self.rows:
            lines += ["| " + " | ".join(self.rows[0]) + " |", "|" + "---|" * len(self.rows[0])]
            lines += ["| " + " | ".join(map(_cell, row.values())) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.1f}"
    return str(value)


def photos() -> list[Path]:
    """Real shop photos, JPEGs of 224 x 224 pixels, from the folder of test data."""
    from tests.conftest import DATA

    found = sorted((DATA / "myntra_fashion" / "images").glob("*.jpg"))
    if not found:
        raise SystemExit(f"No photos in {DATA}: set SHOPVISION_TEST_DATA to the folder of test data.")
    return found


def peak_mib(pid: int | str = "self") -> int:
    """Peak resident memory since the program was loaded; ``ru_maxrss`` would count the parent's."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


class Deployment:
    """Embedded Postgres and Redis, and workers as a shop would run them, in one folder.

    This process sees the deployment through its settings too.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self._variables = {
            "SHOPVISION_HOME": str(folder / "home"),
            "SHOPVISION_OBJECT_STORE": (folder / "objects").as_uri(),
            "SHOPVISION_SCHEDULES": "{}",
            "SHOPVISION_LOG_FORMAT": "json",
            **variables,
        }
        self._workers: dict[str, subprocess.Popen[bytes]] = {}

    @contextmanager
    def servers(self) -> Iterator[Deployment]:
        """Both servers with our schema, for the length of a ``with`` block; the workers end with them."""
        from shopvision.database import dispose_engine
        from shopvision.settings import get_settings
        from tests.conftest import running
        from worker.schema import migrate
        from worker.stack.embedded import PostgresServer, RedisServer, free_port

        self.folder.chmod(0o755)  # Postgres may run as another user
        postgres = PostgresServer(self.folder / "postgres", free_port(), "benchmark")
        redis = RedisServer(self.folder / "redis", free_port(), "benchmark")
        with ExitStack() as stack:
            stack.enter_context(running(postgres, self.folder / "postgres.log", signal.SIGINT))
            stack.enter_context(running(redis, self.folder / "redis.log", signal.SIGTERM))
            os.environ |= self._variables
            os.environ |= {"SHOPVISION_DATABASE_URL": postgres.url, "SHOPVISION_BROKER_URL": redis.url}
            get_settings.cache_clear()
            stack.callback(dispose_engine)
            migrate()
            stack.callback(self._stop_all)
            yield self

    def start(self, role: str) -> None:
        """Start ``shopvision worker ROLE``; it takes jobs when it is up."""
        with (self.folder / f"{role}.log").open("ab") as log:
            command = [Path(sys.executable).with_name("shopvision"), "worker", role]
            self._workers[role] = subprocess.Popen(command, stdout=log, stderr=log, cwd=REPOSITORY)

    def stop(self, role: str) -> None:
        """An orderly end."""
        process = self._workers.pop(role)
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    def _stop_all(self) -> None:
        for role in list(self._workers):
            self.stop(role)

    def peak_mib(self, role: str) -> int:
        """Peak memory of the largest of a worker's processes."""
        return max(peak_mib(process.pid) for process in self.pool(role))

    def pool(self, role: str) -> list[psutil.Process]:
        """The processes of a worker that do its work, without billiard's own helper."""
        children = psutil.Process(self._workers[role].pid).children()
        return [child for child in children if "billiard-fork" in " ".join(child.cmdline())]

    def log(self, role: str) -> str:
        """What a worker has said."""
        return (self.folder / f"{role}.log").read_text(encoding="utf-8", errors="replace")

    def submit(self, kind: str, **params: Any) -> uuid.UUID:
        """Enqueue a job."""
        from shopvision.database import connect
        from worker.ledger.jobs import submit

        with connect() as connection:
            return submit(connection, kind, params, source="benchmark")

    def wait(self, job_id: uuid.UUID) -> JobTimes:
        """How long a job took, once it has ended."""
        from worker.ledger.progress import job_progress

        while (progress := job_progress(job_id)).state == "running":
            for role, process in self._workers.items():
                if process.poll() is not None:
                    raise SystemExit(f"Worker {role} ended:\n{self.log(role)[-3000:]}")
            time.sleep(0.2)
        if progress.state != "succeeded" or progress.failed:
            raise SystemExit(f"{progress.sentence()}\n{self.log('gpu')[-3000:]}")
        return _times(job_id)

    def run(self, kind: str, **params: Any) -> JobTimes:
        """Submit and wait."""
        return self.wait(self.submit(kind, **params))


@dataclass(frozen=True)
class JobTimes:
    """Moments of a job, in seconds of the wall clock, and how many items it had."""

    items: int
    submitted: float
    split_at: float
    committed: float
    finished: float

    @property
    def split(self) -> float:
        """Seconds from submission until it was known what is to be done."""
        return self.split_at - self.submitted

    @property
    def to_commit(self) -> float:
        """Seconds from submission until the last result was in Postgres."""
        return self.committed - self.submitted

    @property
    def to_end(self) -> float:
        """Seconds from submission to the end, the last phase (publishing) included."""
        return self.finished - self.submitted


def _times(job_id: uuid.UUID) -> JobTimes:
    from sqlalchemy import func, select

    from shopvision.database import connect
    from worker.ledger.tables import Chunk, Job

    split_at, committed = (
        select(func.max(Chunk.finished_at)).where(Chunk.job_id == job_id, Chunk.phase == phase).scalar_subquery()
        for phase in ("split", "chunk")
    )
    with connect() as connection:
        row = connection.execute(
            select(Job.items_total, Job.created_at, split_at, committed, Job.finished_at).where(Job.job_id == job_id)
        ).one()
    return JobTimes(row[0], *(moment.timestamp() for moment in row[1:]))


def write_catalogue(path: Path, pictures: Sequence[Path], group: str) -> Path:
    """A catalogue file with one item per picture, named ``<group>-<number>``."""
    with path.open("w", encoding="utf-8") as file:
        for number, picture in enumerate(pictures):
            record = {"item_id": f"{group}-{number}", "category": group, "images": [{"uri": picture.as_uri()}]}
            file.write(json.dumps(record) + "\n")
    return path


def import_catalogue(path: Path, root: Path) -> None:
    """Import a catalogue file in this process; workers may read pictures below ``root``."""
    from shopvision.catalogue.importing import Importer, items_kind
    from shopvision.catalogue.picture_addresses import PictureRoot
    from shopvision.catalogue.source_files import open_source
    from shopvision.images import allow_image_root
    from shopvision.settings import get_settings

    with open_source(str(path)) as source:
        report = Importer(items_kind(PictureRoot.parse(str(root))), source).run()
    if report.refused:
        raise SystemExit(f"{report.refused} rows of {path} were refused.")
    allow_image_root(get_settings(), root)


def progress(line: str) -> None:
    """Tell a person who watches."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
