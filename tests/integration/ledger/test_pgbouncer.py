"""The same behind a real PgBouncer in transaction mode, with fewer connections than clients: where it is installed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from shopvision.catalogue.importing import Importer, items_kind
from shopvision.catalogue.source_files import open_source
from shopvision.database import connect
from shopvision.database.named_lock import try_lock
from shopvision.index.publisher_lock import publisher_lock
from tests.integration.ledger.conftest import CountKind
from worker.ledger.jobs import submit
from worker.ledger.progress import job_progress
from worker.schema import migrate, require_current_schema
from worker.stack.embedded import PostgresServer, _unprivileged, free_port

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin") or shutil.which("pgbouncer")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer on PATH")
CONNECTIONS = 3


@pytest.fixture(scope="module")
def pooler(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of our database behind PgBouncer."""
    assert PGBOUNCER is not None
    folder, port = tmp_path_factory.mktemp("pgbouncer"), free_port()
    (folder / "users").write_text(f'"shopvision" "{postgres_server.password}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={postgres_server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {folder / 'users'}\n"
        f"pool_mode = transaction\ndefault_pool_size = {CONNECTIONS}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            _unprivileged([PGBOUNCER, str(folder / "pgbouncer.ini")]), stdout=log, stderr=log, cwd="/"
        )
    url = f"postgresql://shopvision:{postgres_server.password}@127.0.0.1:{port}/shopvision"
    try:
        _wait_until_it_answers(url, process, folder / "log")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def pooled(count_kind: CountKind, pooler: str, set_environment: Callable[..., None]) -> None:
    set_environment(SHOPVISION_DATABASE_URL=pooler, SHOPVISION_DATABASE_TRANSACTION_POOLING="true")


def test_a_catalogue_and_a_job(pooled: None, drain: Callable[..., int], tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(json.dumps({"item_id": f"i{number}", "title": "shoe"}) for number in range(3_000)))
    for inserted in (3_000, 0):
        with open_source(str(path)) as source:
            report = Importer(items_kind(None), source).run()
        assert (report.inserted, report.unchanged, report.refused) == (inserted, 3_000 - inserted, 0)
    with connect() as connection:
        job_id = submit(connection, "count", {"numbers": 30, "bad": [3]})
    drain()
    progress = job_progress(job_id)
    assert (progress.state, progress.done, progress.failed) == ("succeeded", 29, 1)


def test_more_clients_than_connections(pooled: None) -> None:
    """A client's queries take any connection: what one of them prepared or set is not there for the next."""

    def ask(number: int) -> set[tuple[int, str]]:
        found = set()
        for turn in range(20):
            with connect() as connection:
                row = connection.execute(
                    text("SELECT CAST(:number AS int), current_setting('TimeZone')"), {"number": number + turn}
                ).one()
                found.add((row[0] - turn, row[1]))
        return found

    with ThreadPoolExecutor(3 * CONNECTIONS) as pool:
        assert list(pool.map(ask, range(3 * CONNECTIONS))) == [{(n, "UTC")} for n in range(3 * CONNECTIONS)]


def test_locks_end_with_their_transactions(pooled: None) -> None:
    for _ in range(2 * CONNECTIONS):
        with publisher_lock("catalogue"), connect() as connection:
            assert not try_lock(connection, "shopvision.index.catalogue")
    with connect() as connection:
        assert not connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))


def test_migrations(pooled: None, pooler: str, set_environment: Callable[..., None]) -> None:
    with psycopg.connect(pooler, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh")
    try:
        set_environment(SHOPVISION_DATABASE_URL=pooler.rpartition("/")[0] + "/fresh")
        migrate()
        require_current_schema()
    finally:
        set_environment(SHOPVISION_DATABASE_URL=pooler)
        with psycopg.connect(pooler, autocommit=True) as connection:
            connection.execute("DROP DATABASE fresh WITH (FORCE)")
