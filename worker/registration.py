"""The Celery tasks of a job kind. Light at import: a producer loads this, and no database driver with it.

There are four: ``tasks.<kind>``, which a producer sends to enqueue a job, and ``tasks.<kind>.split``, ``.chunk`` and
``.finish``, which the ledger sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shopvision.errors import UserError
from worker.app import app
from worker.kinds import Phase, add_kind

if TYPE_CHECKING:
    from celery.app.task import Task

    from worker.kinds import JobKind

SUBMIT_RETRIES = 20  # over an hour
SUBMIT_RETRY_SECONDS = 5
MAX_SUBMIT_RETRY_SECONDS = 300  # well under the visibility timeout, after which the message would come twice


def register(kind: JobKind[Any]) -> Task[..., None]:
    """Make ``kind`` known and create its Celery tasks; returns the one that producers send."""
    add_kind(kind)
    for phase in Phase:
        app.task(name=f"tasks.{kind.name}.{phase}", bind=True)(_run_step)

    @app.task(name=f"tasks.{kind.name}", bind=True, max_retries=SUBMIT_RETRIES, throws=(UserError,))
    def submit_job(task: Task[..., None], /, *positional: Any, **params: Any) -> None:
        _submit(task, kind.name, positional, params)

    return submit_job


def _submit(task: Task[..., None], kind: str, positional: tuple[Any, ...], params: dict[str, Any]) -> None:
    """Turn a producer's message into a job. Delivered twice it is one job: its id is the key where it names none."""
    import structlog

    from shopvision.database import connect, explain, is_passing
    from worker.ledger.jobs import submit

    log = structlog.get_logger(__name__).bind(kind=kind, message_id=task.request.id)
    key = params.pop("key", None)
    try:
        _require_names(kind, positional)
        with connect() as connection:
            job_id = submit(connection, kind, params, key=task.request.id if key is None else key, source="task")
    except UserError as error:
        log.warning("submission_refused", error=str(error))
        raise
    except Exception as error:
        if not is_passing(error):
            raise
        log.warning("submission_postponed", error=explain(error))
        wait = min(MAX_SUBMIT_RETRY_SECONDS, SUBMIT_RETRY_SECONDS * 2**task.request.retries)
        raise task.retry(exc=error, countdown=wait) from error
    log.info("job_submitted", job_id=str(job_id))


def _require_names(kind: str, positional: tuple[Any, ...]) -> None:
    if positional:
        raise UserError(
            f"tasks.{kind} takes its parameters by name, and got {len(positional)} without one: "
            "send kwargs={...} and no args. Nothing was submitted."
        )


def _run_step(task: Task[..., None], chunk_id: int) -> None:
    from worker.runner import run_step

    run_step(chunk_id, str(task.request.hostname))
