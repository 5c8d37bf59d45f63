"""Fixtures for every tier: isolated settings; real Postgres, Redis and an S3 API where a test asks for them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import URL, Engine, text
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from shopvision.database import connect, dispose_engine
from shopvision.settings import get_settings
from shopvision.storage import close_stores
from worker.stack.embedded import PostgresServer, RedisServer, free_port

Run = Callable[..., tuple[int, str, str]]
DATA = Path(os.environ.get("SHOPVISION_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

# Most tables are empty; to truncate them all the same takes twenty times as long as to see it.
EMPTY_THE_TABLES = """
DO $$ DECLARE one text; has_rows boolean; filled text[] := '{}'; BEGIN
  FOR one IN SELECT format('%I', tablename) FROM pg_tables
             WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
    EXECUTE 'SELECT EXISTS (SELECT FROM ' || one || ')' INTO has_rows;
    IF has_rows THEN filled = filled || one; END IF;
  END LOOP;
  IF cardinality(filled) > 0 THEN EXECUTE 'TRUNCATE ' || array_to_string(filled, ', ') || ' CASCADE'; END IF;
  PERFORM setval(format('%I', sequencename)::regclass, start_value, FALSE) FROM pg_sequences
    WHERE schemaname = 'public' AND last_value IS NOT NULL;
END $$
"""


@cache
def shares_fixtures(module: str) -> bool:
    """True where something is made once for all tests of the module."""
    return 'scope="module"' in Path(module).read_text(encoding="utf-8")


class ShopScheduling(LoadScopeScheduling):
    """The tests of a running shop in one process; all others go to whoever is free.

    Starting a shop is dear, and its tests mostly wait: they are collected first, and with ``--no-loadscope-reorder``
    begin first. A module whose tests share something that is made once stays in one process. (The plugin's own groups
    are lost with this version of pytest.)
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if shares_fixtures(str(self.config.rootpath / module)):
            return module
        if not nodeid.startswith("tests/acceptance/") or "test_stack.py" in nodeid:
            return nodeid
        return "shop"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ShopScheduling:
    """How tests are shared out among processes."""
    return ShopScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay to the end: looking among them for garbage, again and again, costs seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real catalogues and photos. Test data only: it is never part of the project."""
    if not DATA.is_dir():
        pytest.skip(f"no test data at {DATA}: set SHOPVISION_TEST_DATA")
    return DATA


@pytest.fixture
def set_environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``set_environment(SHOPVISION_X=...)``: change settings for one test, from the next ``get_settings()`` on."""

    def change(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        dispose_engine()

    return change


@pytest.fixture(autouse=True)
def isolated_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> Iterator[None]:
    """No test sees the settings of the machine, nor those of another test."""
    for name in list(os.environ):
        if name.startswith(("SHOPVISION_", "AWS_")) and name != "SHOPVISION_TEST_DATA":
            monkeypatch.delenv(name)
    set_environment(SHOPVISION_HOME=str(tmp_path / "home"), SHOPVISION_COMPILE_IN_BACKGROUND="false")
    yield
    dispose_engine()
    if opening := sys.modules.get("shopvision.index.opening"):
        opening.close_readers()
    close_stores()
    get_settings.cache_clear()
    structlog.reset_defaults()  # a command that ran in this test logs to its captured, now closed stderr


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: ``command_line("jobs", "list")`` gives (exit status, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from worker.cli.main import main

        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["shopvision", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@contextmanager
def running(
    server: PostgresServer | RedisServer, log: Path, stop_signal: signal.Signals
) -> Iterator[subprocess.Popen[bytes]]:
    """An embedded server for the length of a ``with`` block."""
    server.initialise()
    with log.open("ab") as output:
        process = subprocess.Popen(server.command(), stdout=output, stderr=output, cwd="/")
    try:
        server.wait_until_ready()
        yield process
    finally:
        process.send_signal(stop_signal)
        process.wait(30)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    folder = tmp_path_factory.mktemp("postgres")
    server = PostgresServer(folder / "data", free_port(), "test")
    server.initialise()
    with (server.data / "postgresql.conf").open("a") as configuration:
        configuration.write("fsync = off\nfull_page_writes = off\n")  # nobody needs these data after a power cut
    with running(server, folder / "log", signal.SIGINT):
        from worker.schema import migrate

        os.environ["SHOPVISION_DATABASE_URL"] = server.url
        get_settings.cache_clear()
        migrate()
        dispose_engine()
        del os.environ["SHOPVISION_DATABASE_URL"]
        get_settings.cache_clear()
        yield server


@pytest.fixture(scope="session")
def lasting_engine(postgres_server: PostgresServer) -> Iterator[None]:
    """The engine of the session's Postgres outlives tests, for to connect and to compile every statement anew would be
    a fifth of all that they do. Where a test leaves a connection in use, it is closed like any other.
    """
    from shopvision.database import engine as engines

    create = engines.create_engine
    kept: dict[tuple[int, str], Engine] = {}

    def create_once(url: URL, **options: Any) -> Engine:
        if url.port != postgres_server.port or "prepare_threshold" in options["connect_args"]:
            return create(url, **options)
        key = os.getpid(), url.render_as_string(hide_password=False)
        if key not in kept:
            engine = kept[key] = create(url, **options)
            dispose = engine.dispose
            patch.setattr(engine, "dispose", lambda: dispose() if engine.pool.checkedout() else None)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "create_engine", create_once)
        yield
    for engine in kept.values():
        engine.dispose()


@pytest.fixture
def database(
    postgres_server: PostgresServer, lasting_engine: None, set_environment: Callable[..., None]
) -> Iterator[None]:
    """Our schema on real Postgres, empty, and set as the database of this test."""
    set_environment(SHOPVISION_DATABASE_URL=postgres_server.url)
    with connect() as connection:
        connection.execute(text(EMPTY_THE_TABLES))
    yield
    dispose_engine()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("redis")
    server = RedisServer(folder, free_port(), "test")
    with running(server, folder / "log", signal.SIGTERM):
        yield server


@pytest.fixture
def broker(redis_server: RedisServer, set_environment: Callable[..., None]) -> None:
    """Real Redis, empty, and set as the broker of this test."""
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    set_environment(SHOPVISION_BROKER_URL=redis_server.url)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of a real HTTP server that speaks the S3 API."""
    from moto.server import ThreadedMotoServer

    with ExitStack() as stack:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        stack.callback(server.stop)
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"


@pytest.fixture
def s3(s3_server: str, set_environment: Callable[..., None]) -> str:
    """An empty bucket on the S3 API, set as the object store of this test; returns ``s3://bucket/prefix``."""
    import boto3
    import httpx

    httpx.post(f"{s3_server}/moto-api/reset")
    set_environment(
        SHOPVISION_OBJECT_STORE="s3://shop/vision",
        SHOPVISION_S3_ENDPOINT_URL=s3_server,
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
    )
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket="shop")
    return "s3://shop/vision"
