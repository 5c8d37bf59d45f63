"""The files of a local stack: who runs it, its passwords and ports, and where everything else finds it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from pydantic import BaseModel

from shopvision.errors import UserError
from shopvision.local_stack_env import ENVIRONMENT_FILE
from worker.stack.embedded import free_port, new_password, port_is_free
from worker.stack.lifetime import ProcessMark

PROBE_BYTES = 2**20
PortName = Literal["postgres_port", "redis_port", "flower_port"]


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` at once by ``text``, readable by its owner alone."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


class Identity(BaseModel):
    """Made once per folder: passwords, and ports as long as nobody else takes them."""

    postgres_password: str
    redis_password: str
    flower_password: str
    postgres_port: int
    redis_port: int
    flower_port: int

    @classmethod
    def create(cls) -> Identity:
        """Fresh passwords and ports."""
        return cls(
            postgres_password=new_password(),
            redis_password=new_password(),
            flower_password=new_password(),
            postgres_port=free_port(),
            redis_port=free_port(),
            flower_port=free_port(),
        )


class ProcessState(BaseModel):
    """One child of the supervisor."""

    mark: ProcessMark
    running: bool = True
    restarts: int = 0
    log: Path


class StackState(BaseModel):
    """What the supervisor last said about itself."""

    supervisor: ProcessMark
    phase: Literal["starting", "ready", "stopping", "stopped", "failed"] = "starting"
    message: str = ""
    warning: str | None = None
    processes: dict[str, ProcessState] = {}
    flower_url: str | None = None
    flower_user: str | None = None
    flower_password: str | None = None


class StackFolder:
    """The folder of one local stack (``SHOPVISION_HOME``)."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.logs = home / "logs"
        self.environment = home / ENVIRONMENT_FILE
        self._lock = home / "stack.lock"
        self._identity = home / "stack.json"
        self._state = home / "run" / "stack.json"

    def create(self) -> None:
        """Make the folders; what is in them is for their owner alone.

        Raises:
            UserError: they cannot be made, or their disk is full.
        """
        try:
            for folder in (self.home, self.logs, self._state.parent, self.home / "objects"):
                folder.mkdir(parents=True, exist_ok=True)
            self.home.chmod(0o700)
        except OSError as error:
            raise UserError(
                f"{error.filename} cannot be made ({error.strerror}): set SHOPVISION_HOME to a folder of yours."
            ) from None
        if full := self.full_disk():
            raise UserError(full)

    def full_disk(self) -> str | None:
        """One line where the disk has not even room for a small file; None where it has."""
        try:
            with TemporaryFile(dir=self.home) as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())  # some file systems find out late
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                return f"The disk of {self.home} is full: free space there, or set SHOPVISION_HOME to another disk."
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one supervisor of this folder. The kernel gives the lock back when the process ends.

        Raises:
            UserError: another one is.
        """
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"A stack already runs in {self.home}: see `shopvision stack status`, "
                    "stop it with `shopvision stack down`."
                ) from None
            yield

    def supervised(self) -> bool:
        """True while a supervisor lives."""
        try:
            with self._lock.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def identity(self) -> Identity:
        """Passwords and ports of this folder, made on first use.

        Raises:
            UserError: the file cannot be read.
        """
        try:
            return Identity.model_validate_json(self._identity.read_text(encoding="utf-8"))
        except FileNotFoundError:
            identity = Identity.create()
        except ValueError:
            # Never made anew silently: the databases know the old passwords.
            raise UserError(
                f"{self._identity} cannot be read. Restore it, or delete {self.home} to start with an empty stack."
            ) from None
        write_private(self._identity, identity.model_dump_json(indent=2))
        return identity

    def port(self, name: PortName) -> int:
        """The port kept for a server; another one, kept from now on, where somebody else listens on it."""
        identity = self.identity()
        port: int = getattr(identity, name)
        if not port_is_free(port):
            port = free_port()
            write_private(self._identity, identity.model_copy(update={name: port}).model_dump_json(indent=2))
        return port

    def publish(self, environment: dict[str, Any]) -> None:
        """Tell every other command where the servers are (setting name -> value)."""
        write_private(self.environment, json.dumps(environment, indent=2))

    def withdraw(self) -> None:
        """No command shall look for servers that are gone."""
        self.environment.unlink(missing_ok=True)

    def read_state(self) -> StackState | None:
        """What the last supervisor said; None where there was none."""
        try:
            return StackState.model_validate_json(self._state.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def write_state(self, state: StackState) -> None:
        """Say what is going on."""
        write_private(self._state, state.model_dump_json(indent=2))
