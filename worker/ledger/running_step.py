"""A step while it runs: a heartbeat keeps its lease, and tells it when to stop."""

from __future__ import annotations

import math
import os
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType

import structlog
from sqlalchemy.exc import SQLAlchemyError

from shopvision.settings import get_settings
from worker.kinds import Phase
from worker.ledger.leases import Lease, LeaseLostError, StepStoppedError, heartbeat

log = structlog.get_logger(__name__)

STOP_FILE_VARIABLE = "SHOPVISION_STOP_FILE"
HEARTBEAT_SECONDS = 2.0  # also bounds how long a cancelled chunk keeps working


def stop_file() -> Path | None:
    """The file that tells this worker to stop as soon as it exists; None where nobody would make one."""
    path = os.environ.get(STOP_FILE_VARIABLE)
    return Path(path) if path else None


class RunningStep:
    """The ``StepContext`` that kinds are handed; a context manager around the heartbeat thread."""

    def __init__(self, lease: Lease) -> None:
        self.job_id: uuid.UUID = lease.job_id
        self.round = lease.round
        self._lease = lease
        # What splits or finishes a whole job would begin anew: it ends early only with its job or its worker.
        self._divisible = lease.phase == Phase.CHUNK
        self._told_to_stop = threading.Event()
        self._has_told = False
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._deadline = time.monotonic() + get_settings().soft_time_limit_seconds if self._divisible else math.inf
        self._stop_file = stop_file()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)

    def should_stop(self) -> bool:
        """True once the job is cancelled, the worker shuts down, the chunk has had its time, or an urgent job waits.

        Of a step that splits or finishes a job only the first two count. Cheap: ask after each batch.

        Raises:
            LeaseLostError: another worker has the chunk now, so going on is pointless.
        """
        self._require_lease()
        stop = (
            self._told_to_stop.is_set()
            or time.monotonic() > self._deadline
            or (self._stop_file is not None and self._stop_file.exists())
        )
        self._has_told |= stop
        return stop

    def raise_if_stopped(self) -> None:
        """For a step that is worth nothing unless it is whole: ask at its end.

        Raises:
            StepStoppedError: ``should_stop`` has said yes meanwhile, so it may have ended early.
            LeaseLostError: as ``should_stop``.
        """
        self._require_lease()
        if self._has_told:
            raise StepStoppedError(f"The {self._lease.phase} step was asked to stop.")

    def _require_lease(self) -> None:
        if self._lost.is_set():
            raise LeaseLostError(f"Chunk {self._lease.chunk_id} was given to another worker.")

    def _beat(self) -> None:
        interval = min(HEARTBEAT_SECONDS, get_settings().lease_seconds / 4)
        while not self._ended.wait(interval):
            try:
                pulse = heartbeat(self._lease)
            except SQLAlchemyError as error:
                # The database may come back before the lease runs out; if not, the commit is refused.
                log.warning("heartbeat_failed", error=str(error).splitlines()[0])
                continue
            if not pulse.alive:
                self._lost.set()
                return
            if pulse.cancelled or (pulse.outranked and self._divisible):
                self._told_to_stop.set()

    def __enter__(self) -> RunningStep:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=5)
