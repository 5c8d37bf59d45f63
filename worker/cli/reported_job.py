"""Which job a page is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shopvision.errors import UserError

if TYPE_CHECKING:
    from worker.ledger.progress import JobProgress


def reported_job(kind: str, job: str | None, *, latest: bool, model: str, nothing: str, never: str) -> JobProgress:
    """The job that is named, or the newest that a model worked for.

    Args:
        kind: of the job.
        job: its id, or the first characters of it.
        latest: the newest one instead.
        model: name of the parameter that holds the model once it is known; without one a job did nothing.
        nothing: what such a job did: "scored no pairs".
        never: how it is told that there is no job: "No pair has been scored yet".

    Raises:
        UserError: neither or both are given, there is no such job, or it did nothing.
    """
    from worker.ledger.progress import find_job, job_progress, recent_jobs

    if (job is None) != latest:
        raise UserError(f"Say which job: either its id or --latest. `shopvision jobs list --kind {kind}` shows them.")
    if job is not None:
        found = job_progress(find_job(job))
        if found.kind != kind or not found.params.get(model):
            raise UserError(f"Job {job} {nothing}: `shopvision jobs list --kind {kind}` shows those that did.")
        return found
    for found in recent_jobs(kind=kind):
        if found.params.get(model):
            return found
    raise UserError(f"{never}: `shopvision jobs submit {kind} --wait` does it.")
