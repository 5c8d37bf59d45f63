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
from worker.kinds import Begun, Phase
from worker.ledger.leases import Lease, LeaseLostError, StepStoppedError, claim_next, heartbeat

log = structlog.get_logger(__name__)

STOP_FILE_VARIABLE = "SHOPVISION_STOP_FILE"
HEARTBEAT_SECONDS = 2.0  # also bounds how long a cancelled chunk keeps working


def stop_file() -> Path | None:
    """The file that tells this worker to stop as soon as it exists; None where nobody would make one."""
    path = os.environ.get(STOP_FILE_VARIABLE)
    return Path(path) if path else None


class RunningStep:
    """The ``StepContext`` that kinds are handed; a context manager around the heartbeat thread.

    Attributes:
        lease: of the chunk.
        following: the chunk that was taken ahead for this process to go on with.
    """

    def __init__(self, lease: Lease, worker: str, deadline: float | None = None) -> None:
        """Nothing beats yet.

        Args:
            lease: of the chunk.
            worker: who holds it.
            deadline: when a chunk must make an end, on the monotonic clock; by default the usual time from now.
        """
        self.lease = lease
        self.following: RunningStep | None = None
        self.job_id: uuid.UUID = lease.job_id
        self.round = lease.round
        self.begun: Begun | None = None
        self._worker = worker
        # What splits or finishes a whole job would begin anew: it ends early only with its job or its worker.
        self._divisible = lease.phase == Phase.CHUNK
        self._told_to_stop = threading.Event()
        self._has_told = False
        self._lost = threading.Event()
        self._ended = threading.Event()
        limit = get_settings().soft_time_limit_seconds
        self._deadline = deadline or (time.monotonic() + limit if self._divisible else math.inf)
        # What follows counts as the same message for Celery, which kills a process that takes too long for one.
        self._last_look_ahead = self._deadline - limit / 2
        self._stop_file = stop_file()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)

    def should_stop(self) -> bool:
        """True once the job is cancelled, the worker shuts down, the chunk has had its time, or an urgent job waits.

        Of a step that splits or finishes a job only the first two count. Cheap: ask after each batch.

        Raises:
            LeaseLostError: another worker has the chunk now, so going on is pointless.
        """
        self._require_lease()
        stop = self._is_to_stop()
        self._has_told |= stop
        return stop

    def _is_to_stop(self) -> bool:
        return (
            self._told_to_stop.is_set()
            or time.monotonic() > self._deadline
            or (self._stop_file is not None and self._stop_file.exists())
        )

    def next_keys(self) -> list[str] | None:
        """Take the chunk after this one too, if nobody else waits; its keys, or None. Asked again it says the same."""
        if self.following is None and self._looks_ahead():
            try:
                lease = claim_next(self.lease, self._worker)
            except SQLAlchemyError as error:
                log.warning("claim_failed", error=str(error).splitlines()[0])
                return None
            if lease is not None:
                self.following = RunningStep(lease, self._worker, self._deadline)
                self.following.start()
        return None if self.following is None else self.following.lease.item_keys

    def _looks_ahead(self) -> bool:
        return self._divisible and not self._has_told and time.monotonic() < self._last_look_ahead

    def goes_on(self) -> bool:
        """Whether a chunk that was taken ahead may begin."""
        return not (self._lost.is_set() or self._is_to_stop())

    def hand_on(self, begun: Begun | None) -> None:
        """Keep what was begun for the chunk that follows."""
        if self.following is not None:
            self.following.begun = begun
        elif begun is not None:
            begun.close()

    def raise_if_stopped(self) -> None:
        """For a step that is worth nothing unless it is whole: ask at its end.

        Raises:
            StepStoppedError: ``should_stop`` has said yes meanwhile, so it may have ended early.
            LeaseLostError: as ``should_stop``.
        """
        self._require_lease()
        if self._has_told:
            raise StepStoppedError(f"The {self.lease.phase} step was asked to stop.")

    def _require_lease(self) -> None:
        if self._lost.is_set():
            raise LeaseLostError(f"Chunk {self.lease.chunk_id} was given to another worker.")

    def _beat(self) -> None:
        interval = min(HEARTBEAT_SECONDS, get_settings().lease_seconds / 4)
        while not self._ended.wait(interval):
            try:
                pulse = heartbeat(self.lease)
            except SQLAlchemyError as error:
                # The database may come back before the lease runs out; if not, the commit is refused.
                log.warning("heartbeat_failed", error=str(error).splitlines()[0])
                continue
            if not pulse.alive:
                self._lost.set()
                return
            if pulse.cancelled or (pulse.outranked and self._divisible):
                self._told_to_stop.set()

    def start(self) -> None:
        """Keep the lease from now on, until the ``with`` block ends."""
        if self._thread.ident is None:
            self._thread.start()

    def __enter__(self) -> RunningStep:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self.begun is not None:
            self.begun.close()
        self._thread.join(timeout=5)
