"""``shopvision plans``: import promotion plans, and show the pictures that represent them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shopvision.errors import UserError
from worker.cli.catalogue import (
    DeleteMissingFlag,
    DryRunFlag,
    ErrorsOption,
    File,
    ForceFlag,
    FormatOption,
    MapOption,
    finish,
    run_import,
)
from worker.cli.output import JsonFlag, emit

app = typer.Typer(no_args_is_help=True, help="Import promotion plans, and see their pictures ranked.")


@app.command("import")
def import_plans(
    file: File,
    *,
    map_file: MapOption = None,
    dry_run: DryRunFlag = False,
    delete_missing: DeleteMissingFlag = False,
    force: ForceFlag = False,
    errors: ErrorsOption = None,
    file_format: FormatOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Import promotion plans; safe to repeat. Good rows go in; exit status 1 tells that some were refused."""
    from shopvision.catalogue.importing import PLANS_KIND
    from shopvision.catalogue.record_schema import Plan

    report = run_import(
        PLANS_KIND,
        Plan,
        file,
        map_file=map_file,
        dry_run=dry_run,
        delete_missing=delete_missing,
        force=force,
        errors=errors,
        file_format=file_format,
        as_json=as_json,
    )
    finish(report, as_json)


@app.command()
def report(
    job: Annotated[str | None, typer.Argument(help="The rank_plans job's id, or its first characters.")] = None,
    latest: Annotated[bool, typer.Option("--latest", help="The job that ranked a plan last.")] = False,
    output: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("plans-report.html"),
    as_json: JsonFlag = False,
) -> None:
    """Write a page that shows each plan of a job with its best and worst pictures."""
    from shopvision.selection.report import latest_job, plans_of, write_report
    from worker.ledger.progress import find_job, job_progress, list_failures

    if (job is None) != latest:
        raise UserError(
            "Say which job: either its id or --latest. `shopvision jobs list --kind rank_plans` shows them."
        )
    job_id = latest_job() if job is None else find_job(job)
    progress = job_progress(job_id)
    plans = plans_of(job_id)
    facts = [
        ("pictures compared", f"{progress.counters.get('candidates', 0):,}"),
        ("model", str(progress.params.get("model"))),
        ("job", str(job_id)[:8]),
    ]
    write_report(output, plans, facts=facts, failures=list_failures(job_id, limit=200))
    emit(
        {"report": str(output.resolve()), "job_id": str(job_id), "plans": len(plans)},
        as_json,
        lambda: f"{len(plans)} plans: {output.resolve()}",
    )
