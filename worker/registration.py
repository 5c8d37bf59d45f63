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

SUBMIT_RETRIES = 10
SUBMIT_RETRY_SECONDS = 5


def register(kind: JobKind[Any]) -> Task[..., None]:
    """Make ``kind`` known and create its Celery tasks; returns the one that producers send."""
    add_kind(kind)
    for phase in Phase:
        app.task(name=f"tasks.{kind.name}.{phase}", bind=True)(_run_step)

    @app.task(name=f"tasks.{kind.name}", bind=True, max_retries=SUBMIT_RETRIES, throws=(UserError,))
    def submit_job(task: Task[..., None], /, key: str | None = None, **params: Any) -> None:
        import structlog

        from shopvision.database import connect, explain, is_passing
        from worker.ledger.jobs import submit

        log = structlog.get_logger(__name__)
        try:
            with connect() as connection:
                job_id = submit(connection, kind.name, params, key=key, source="task")
        except UserError as error:
            log.warning("submission_refused", kind=kind.name, key=key, error=str(error))
            raise
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("submission_postponed", kind=kind.name, key=key, error=explain(error))
            raise task.retry(exc=error, countdown=SUBMIT_RETRY_SECONDS * 2**task.request.retries) from error
        log.info("job_submitted", kind=kind.name, job_id=str(job_id), key=key)

    return submit_job


def _run_step(task: Task[..., None], chunk_id: int) -> None:
    from worker.runner import run_step

    run_step(chunk_id, str(task.request.hostname))
