"""``shopvision plans``: import promotion plans."""

from __future__ import annotations

import typer

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
from worker.cli.output import JsonFlag

app = typer.Typer(no_args_is_help=True, help="Import promotion plans.")


@app.callback()
def plans() -> None:
    """Import promotion plans."""


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
    from shopvision.catalogue.records import Plan

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
