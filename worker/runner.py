"""What happens to a chunk inside a worker process."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import stamina
import structlog

from shopvision.database import Fault, explain, fault_of, is_passing
from shopvision.errors import JobError, TransientError, UserError
from worker import metrics, warm_up
from worker.kinds import ChunkResult, Phase, get_kind, parse_params
from worker.ledger import commits, jobs
from worker.ledger.deaths import record_death
from worker.ledger.leases import Lease, LeaseLostError, StepStoppedError, claim
from worker.ledger.running_step import RunningStep
from worker.ledger.splits import commit_split, spool

log = structlog.get_logger(__name__)

MAX_TRANSIENT_ATTEMPTS = 20  # in a row; with the delays below: over an hour of a dependency being away
MAX_DELAY_SECONDS = 300.0
COMMIT_PATIENCE_SECONDS = 120.0


def run_step(chunk_id: int, hostname: str) -> None:
    """Claim a chunk and do what its phase asks. Whatever happens is in the ledger when this returns.

    Chunks that it has taken ahead meanwhile follow at once.
    """
    worker = f"{hostname}/{os.getpid()}"
    try:
        lease = claim(chunk_id, worker)
    except Exception as error:
        if fault_of(error) is None:
            raise
        log.warning("claim_failed", chunk_id=chunk_id, error=explain(error))
        return  # the reaper sends the chunk again
    if lease is None:
        log.info("chunk_not_available", chunk_id=chunk_id)
        return
    step: RunningStep | None = RunningStep(lease, worker)
    while step is not None:
        try:
            result = _run(step)
        except BaseException:
            _following(step, None)  # its heartbeat would keep it from others for ever
            raise
        step = _following(step, result)


def _run(step: RunningStep) -> ChunkResult | None:
    """Run one attempt and tell of it; None where it came to no result."""
    lease = step.lease
    with structlog.contextvars.bound_contextvars(
        job_id=str(lease.job_id), kind=lease.kind, phase=str(lease.phase), chunk_id=lease.chunk_id,
        attempt=lease.attempt,
    ):  # fmt: skip
        started = time.perf_counter()
        result = _attempt(step)
        seconds = time.perf_counter() - started
        if result is not None:
            metrics.observe_chunk(
                lease.kind, lease.phase, seconds, done=result.done, failed=len(result.failures), skipped=result.skipped
            )
            metrics.observe_model_seconds(lease.kind, result.model_seconds, result.model_items)
            metrics.observe_reading_seconds(lease.kind, result.reading_seconds)
            log.info(
                "step_done",
                seconds=round(seconds, 3),
                done=result.done,
                failed=len(result.failures),
                skipped=result.skipped,
                remaining=len(result.remaining),
                model_seconds=round(result.model_seconds, 3),
                **{f"{part}_seconds": round(value, 3) for part, value in result.reading_seconds.items()},
            )
            if lease.phase is Phase.CHUNK:
                warm_up.after_chunk(result.model_seconds)
        return result


def _following(step: RunningStep, result: ChunkResult | None) -> RunningStep | None:
    """The chunk that was taken ahead; handed back where this one did not come to its end."""
    following = step.following
    if following is None or (result is not None and not result.remaining and following.goes_on()):
        return following
    with following:
        _note(commits.hand_back, following.lease)
    return None


def _attempt(step: RunningStep) -> ChunkResult | None:
    lease = step.lease
    try:
        with step:
            return _STEPS[lease.phase](lease, step)
    except LeaseLostError as error:
        log.warning("lease_lost", error=str(error))
    except StepStoppedError as error:
        log.info("step_stopped", reason=str(error))
        _note(commits.hand_back, lease)
    except (JobError, UserError) as error:
        _fail(lease, str(error))
    except TransientError as error:
        _wait_and_retry(lease, str(error))
    except Exception as error:
        fault = fault_of(error)
        if fault is Fault.PASSING:
            _wait_and_retry(lease, explain(error))
        elif fault is Fault.SERVER:
            _fail(lease, explain(error))
        else:
            log.exception("step_crashed")
            description = explain(error) if fault else f"{type(error).__name__}: {error}"
            _note(record_death, lease.chunk_id, description, attempt=lease.attempt)
    return None


def _split(lease: Lease, step: RunningStep) -> ChunkResult:
    kind = get_kind(lease.kind)
    params = kind.pin(parse_params(kind, lease.params))
    if lease.retry_of is None:
        keys = kind.split(params, step)
    else:
        keys = kind.split_again(params, jobs.failed_keys(lease.retry_of), step)
    with spool(keys, kind.chunk_size, step) as spooled:
        _settle(commit_split, lease, params.model_dump(mode="json", exclude_defaults=True), spooled, kind.queue)
    return ChunkResult()


def _chunk(lease: Lease, step: RunningStep) -> ChunkResult:
    kind = get_kind(lease.kind)
    result = kind.run(parse_params(kind, lease.params), lease.item_keys, step)
    step.hand_on(result.begun)
    _settle(commits.commit, lease, result)
    return result


def _finish(lease: Lease, step: RunningStep) -> ChunkResult:
    kind = get_kind(lease.kind)
    outcome = kind.finish(parse_params(kind, lease.params), step)
    step.raise_if_stopped()
    _settle(commits.commit_finish, lease, outcome)
    return ChunkResult()


_STEPS: dict[Phase, Callable[[Lease, RunningStep], ChunkResult]] = {
    Phase.SPLIT: _split,
    Phase.CHUNK: _chunk,
    Phase.FINISH: _finish,
}


def _settle(change: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Write to the ledger, patiently: minutes of model work are not thrown away for a database restart.

    Trying again is safe: where the first try did commit, the fence refuses the second.
    """
    for attempt in stamina.retry_context(on=is_passing, attempts=None, timeout=COMMIT_PATIENCE_SECONDS, wait_max=5.0):
        with attempt:
            change(*args, **kwargs)


def _note(change: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Write how an attempt without a result ended. If that cannot be done, its lease runs out and the reaper does."""
    try:
        _settle(change, *args, **kwargs)
    except LeaseLostError as error:
        log.warning("lease_lost", error=str(error))
    except Exception as error:
        if fault_of(error) is None:
            raise
        log.warning("ending_not_noted", error=explain(error))


def _fail(lease: Lease, message: str) -> None:
    log.error("job_failed", error=message)
    _note(commits.fail_job, lease, message)


def _wait_and_retry(lease: Lease, message: str) -> None:
    attempts = lease.postponed + 1
    if attempts >= MAX_TRANSIENT_ATTEMPTS:
        _fail(lease, f"Given up after {attempts} attempts: {message}")
        return
    delay = min(MAX_DELAY_SECONDS, 2.0 * 2.0 ** min(attempts, 10)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
    log.warning("step_postponed", error=message, delay_seconds=round(delay, 1))
    _note(commits.give_back, lease, message, delay)
