"""``shopvision jobs``: submit, look at, stop and retry jobs."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shopvision.errors import UserError
from worker.cli.output import JsonFlag, emit, error_console, table

if TYPE_CHECKING:
    from worker.ledger.progress import JobProgress

app = typer.Typer(no_args_is_help=True, help="Submit jobs, watch them, and deal with what failed.")

POLL_SECONDS = 0.3

JobId = Annotated[str, typer.Argument(help="The job's id, or its first characters.")]


def _parameters(pairs: list[str]) -> dict[str, Any]:
    """``name=value`` arguments; values are read as JSON where they can be, else as text."""
    params: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise UserError(f"Parameter {pair!r} is not of the form name=value, for example scope=all.")
        if name in params:
            raise UserError(f"Parameter {name!r} is given twice.")
        try:
            params[name] = json.loads(value)
        except ValueError:  # also a number of very many digits
            params[name] = value
        except RecursionError:
            raise UserError(f"Parameter {name!r} is nested too deep.") from None
    return params


@app.command()
def submit(
    kind: Annotated[str, typer.Argument(help="Kind of job, for example refresh_embeddings.")],
    parameters: Annotated[list[str] | None, typer.Argument(help="name=value; values are JSON or text.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key gives the same job.")] = None,
    wait: Annotated[bool, typer.Option(help="Watch the job to its end.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Enqueue a job and print its id."""
    from shopvision.database import connect
    from worker.ledger.jobs import submit as submit_job

    with connect() as connection:
        job_id = submit_job(connection, kind, _parameters(parameters or []), key=key, source="cli")
    if wait:
        _watch(job_id, as_json)
    else:
        emit({"job_id": str(job_id)}, as_json, lambda: str(job_id))


@app.command("list")
def list_jobs(
    kind: Annotated[str | None, typer.Option(help="Only jobs of this kind.")] = None,
    state: Annotated[str | None, typer.Option(help="Only running, succeeded, failed or cancelled jobs.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """The newest jobs."""
    from worker.ledger.progress import recent_jobs

    jobs = recent_jobs(kind=kind, state=state, limit=limit)
    columns = ("job", "kind", "state", "phase", "done", "failed", "total", "source", "created")
    emit(
        [job.as_dict() for job in jobs],
        as_json,
        lambda: table(
            columns,
            [
                (
                    str(job.job_id)[:8],
                    job.kind,
                    job.state_text,
                    job.phase,
                    job.done,
                    job.failed,
                    job.total,
                    job.source,
                    f"{job.created_at:%m-%d %H:%M:%S}",
                )
                for job in jobs
            ],
        ),
    )


@app.command()
def show(job: JobId, as_json: JsonFlag = False) -> None:
    """Everything about one job. Exits with 1 if it failed."""
    from worker.ledger.progress import find_job, job_progress

    progress = job_progress(find_job(job))
    facts = progress.as_dict()
    emit(facts, as_json, lambda: table(("", ""), [(name, value) for name, value in facts.items() if value is not None]))
    _exit_as(progress.state)


@app.command()
def watch(job: JobId, as_json: JsonFlag = False) -> None:
    """Follow a job to its end, with rate and time left. Exits with 1 if it failed or was cancelled."""
    from worker.ledger.progress import find_job

    _watch(find_job(job), as_json)


@app.command()
def cancel(job: JobId, as_json: JsonFlag = False) -> None:
    """Stop a job at the next batch borders; `resume` takes it up again."""
    from worker.ledger.jobs import cancel as cancel_job
    from worker.ledger.progress import find_job

    job_id = find_job(job)
    state = cancel_job(job_id)
    text = "cancelled" if state == "cancelled" else "stopping: running chunks end at their next batch border"
    emit({"job_id": str(job_id), "state": str(state)}, as_json, lambda: text)


@app.command()
def resume(job: JobId, as_json: JsonFlag = False) -> None:
    """Take up a cancelled or failed job where it stopped."""
    from worker.ledger.jobs import resume as resume_job
    from worker.ledger.progress import find_job

    job_id = find_job(job)
    resume_job(job_id)
    emit({"job_id": str(job_id), "state": "running"}, as_json, lambda: "running again")


@app.command("retry-failed")
def retry_failed(
    job: JobId,
    wait: Annotated[bool, typer.Option(help="Watch the new job to its end.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Submit a new job for exactly the items that failed in this one."""
    from worker.ledger.jobs import retry_failed as retry_failed_items
    from worker.ledger.progress import find_job

    new_id = retry_failed_items(find_job(job))
    if wait:
        _watch(new_id, as_json)
    else:
        emit({"job_id": str(new_id)}, as_json, lambda: str(new_id))


@app.command()
def failures(
    job: JobId,
    limit: Annotated[int, typer.Option(min=1)] = 100,
    as_json: JsonFlag = False,
) -> None:
    """Items that failed in a job, with their reasons."""
    from worker.ledger.progress import failure_counts, find_job, list_failures

    job_id = find_job(job)
    found = list_failures(job_id, limit=limit)
    counts = failure_counts(job_id)
    rows = [(failure["item_key"], failure["code"], failure["message"]) for failure in found]
    title = ", ".join(f"{code}: {count}" for code, count in counts.items()) or "no failed items"
    emit({"counts": counts, "failures": found}, as_json, lambda: table(("item", "code", "reason"), rows, title))


def _watch(job_id: uuid.UUID, as_json: bool) -> None:
    progress = follow(job_id, quiet=as_json)
    emit(progress.as_dict(), as_json, progress.sentence)
    _exit_as(progress.state)


def follow(job_id: uuid.UUID, quiet: bool = False) -> JobProgress:
    """Show a job's progress until it ends; returns it at its end."""
    from worker.ledger.progress import job_progress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=error_console, transient=True, disable=quiet or not error_console.is_terminal
    ) as bar:
        task = bar.add_task("queued", total=None, rate="")
        while (progress := job_progress(job_id)).state == "running":
            bar.update(
                task,
                description=f"{progress.kind} {progress.phase}",
                total=progress.total,
                completed=progress.done + progress.failed,
                rate=f"{progress.rate:,.0f}/s" if progress.rate else "",
            )
            time.sleep(POLL_SECONDS)
    return progress


def _exit_as(state: str) -> None:
    if state in {"failed", "cancelled"}:
        raise typer.Exit(1)
