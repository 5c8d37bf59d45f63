"""The Celery tasks of a job kind, and what happens to a chunk inside a worker process."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import stamina
import structlog
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.app.task import Task
from celery.signals import celeryd_init, task_failure, worker_process_init
from sqlalchemy.exc import OperationalError

from shopvision.database import connect, dispose_engine
from shopvision.errors import JobError, ShopvisionError, TransientError, UserError
from worker import metrics
from worker.app import app
from worker.kinds import ChunkResult, get_kind, parse_params
from worker.ledger import chunks, jobs
from worker.ledger.chunks import Lease, LeaseLostError
from worker.ledger.context import StepContext
from worker.ledger.tables import Phase

if TYPE_CHECKING:
    from worker.kinds import JobKind

log = structlog.get_logger(__name__)

MAX_TRANSIENT_ATTEMPTS = 20  # with the delays below: over an hour of a dependency being away
MAX_DELAY_SECONDS = 300.0
COMMIT_PATIENCE_SECONDS = 120.0


def create_tasks(kind: JobKind[Any]) -> Task[..., None]:
    """Register the four Celery tasks of ``kind``; returns the one that producers send."""
    for phase, queue in ((Phase.SPLIT, "control"), (Phase.CHUNK, kind.queue), (Phase.FINISH, kind.finish_queue)):
        app.task(name=f"tasks.{kind.name}.{phase}", queue=queue, bind=True)(_run_step)

    @app.task(
        name=f"tasks.{kind.name}",
        queue="control",
        autoretry_for=(OperationalError,),
        retry_backoff=5,
        max_retries=10,
        throws=(UserError,),
    )
    def enqueue(key: str | None = None, **params: Any) -> None:
        with connect() as connection:
            job_id = jobs.submit(connection, kind.name, params, key=key, source="task")
        log.info("job_submitted", kind=kind.name, job_id=str(job_id), key=key)

    return enqueue


def _run_step(task: Task[..., None], chunk_id: int) -> None:
    """Claim a chunk and do what its phase asks. Whatever happens is in the ledger when this returns."""
    worker = f"{task.request.hostname}/{os.getpid()}"
    try:
        lease = chunks.claim(chunk_id, worker)
    except OperationalError as error:
        log.warning("claim_failed", chunk_id=chunk_id, error=str(error.orig))
        return  # the reaper sends the chunk again
    if lease is None:
        log.info("chunk_not_available", chunk_id=chunk_id)
        return
    with structlog.contextvars.bound_contextvars(
        job_id=str(lease.job_id), kind=lease.kind, phase=str(lease.phase), chunk_id=chunk_id, attempt=lease.attempt
    ):
        started = time.perf_counter()
        result = _attempt(lease)
        seconds = time.perf_counter() - started
        if result is not None:
            metrics.observe_chunk(
                lease.kind, lease.phase, seconds, done=result.done, failed=len(result.failures), skipped=result.skipped
            )
            log.info(
                "step_done",
                seconds=round(seconds, 3),
                done=result.done,
                failed=len(result.failures),
                skipped=result.skipped,
                remaining=len(result.remaining),
            )


def _attempt(lease: Lease) -> ChunkResult | None:
    """Run one attempt; None where it came to no result."""
    try:
        with StepContext(lease) as context:
            return _STEPS[lease.phase](lease, context)
    except LeaseLostError as error:
        log.warning("lease_lost", error=str(error))
    except (TransientError, OperationalError) as error:
        _wait_and_retry(lease, error)
    except (JobError, UserError) as error:
        log.error("job_failed", error=str(error))
        _settle(chunks.fail_job, lease, str(error))
    except Exception as error:
        log.exception("step_crashed")
        description = f"{type(error).__name__}: {error}"
        _settle(chunks.record_death, lease.chunk_id, description, attempt=lease.attempt)
    return None


def _split(lease: Lease, context: StepContext) -> ChunkResult:  # noqa: ARG001 - every step has the same signature
    kind = get_kind(lease.kind)
    params = kind.pin(parse_params(kind, lease.params))
    keys = kind.split(params) if lease.retry_of is None else jobs.failed_keys(lease.retry_of)
    chunks.commit_split(lease, params.model_dump(mode="json", exclude_defaults=True), keys, kind.chunk_size, kind.queue)
    return ChunkResult()


def _chunk(lease: Lease, context: StepContext) -> ChunkResult:
    kind = get_kind(lease.kind)
    result = kind.run(parse_params(kind, lease.params), lease.item_keys, context)
    _settle(chunks.commit, lease, result)
    return result


def _finish(lease: Lease, context: StepContext) -> ChunkResult:
    kind = get_kind(lease.kind)
    outcome = kind.finish(parse_params(kind, lease.params), context)
    _settle(chunks.commit_finish, lease, outcome)
    return ChunkResult()


_STEPS: dict[Phase, Callable[[Lease, StepContext], ChunkResult]] = {
    Phase.SPLIT: _split,
    Phase.CHUNK: _chunk,
    Phase.FINISH: _finish,
}


def _settle(change: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Write to the ledger, patiently: minutes of model work are not thrown away for a database restart.

    Trying again is safe: where the first try did commit, the fence refuses the second.
    """
    for attempt in stamina.retry_context(
        on=OperationalError, attempts=None, timeout=COMMIT_PATIENCE_SECONDS, wait_max=5.0
    ):
        with attempt:
            change(*args, **kwargs)


def _wait_and_retry(lease: Lease, error: Exception) -> None:
    message = str(error.orig) if isinstance(error, OperationalError) else str(error)
    if lease.attempt >= MAX_TRANSIENT_ATTEMPTS:
        log.error("job_failed", error=message)
        _settle(chunks.fail_job, lease, f"Given up after {lease.attempt} attempts: {message}")
        return
    delay = min(MAX_DELAY_SECONDS, 2.0 * 2.0 ** min(lease.attempt, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
    log.warning("step_postponed", error=message, delay_seconds=round(delay, 1))
    try:
        _settle(chunks.give_back, lease, message, delay)
    except (LeaseLostError, OperationalError) as lost:
        log.warning("lease_lost", error=str(lost))


_this_worker: dict[str, str] = {}


@celeryd_init.connect
def _remember_name(sender: str, **_: object) -> None:
    _this_worker["name"] = sender


@worker_process_init.connect
def _start_clean(**_: object) -> None:
    dispose_engine()


@task_failure.connect
def _note_lost_process(
    sender: Task[..., None], exception: BaseException, args: tuple[Any, ...] = (), **_: object
) -> None:
    """Runs in the worker's main process when a pool process died or was killed at the hard time limit.

    Without it the chunk would wait for its lease to run out.
    """
    if not isinstance(exception, (WorkerLostError, TimeLimitExceeded)) or not args:
        return
    if not sender.name.endswith(tuple(f".{phase}" for phase in Phase)):
        return
    try:
        chunks.record_death(int(args[0]), str(exception), worker=_this_worker.get("name"))
    except (OperationalError, ShopvisionError) as error:
        log.warning("death_not_recorded", chunk_id=args[0], error=str(error))  # the reaper will find the lease expired
