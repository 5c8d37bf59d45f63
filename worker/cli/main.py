"""The ``shopvision`` command: one file per group of commands, one line per mistake."""

from __future__ import annotations

import importlib
import sys

import typer
from rich.markup import escape

from shopvision.errors import ShopvisionError
from worker.cli.output import error_console
from worker.logs import log_warnings_to_stderr

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="The batch system behind a shop's computer vision."
)
for group in ("jobs", "catalogue", "plans", "data", "models", "index", "stack", "train", "evaluate", "pairs"):
    app.add_typer(importlib.import_module(f"worker.cli.{group}").app, name=group)
for module in ("run", "demo"):
    importlib.import_module(f"worker.cli.{module}").register(app)


def main() -> None:
    """Entry point: errors made on purpose become one line on stderr and exit status 1."""
    log_warnings_to_stderr()
    try:
        app()
    except ShopvisionError as error:
        error_console.print(f"[red]error:[/red] {escape(str(error))}", highlight=False)
        sys.exit(1)
    except Exception as error:
        from sqlalchemy.exc import OperationalError  # loaded by whoever raised it, if at all

        if not isinstance(error, OperationalError):
            raise
        reason = str(error.orig).strip().splitlines()[0]
        error_console.print(
            f"[red]error:[/red] The database does not answer ({escape(reason)}). "
            "Check SHOPVISION_DATABASE_URL, or start a local stack with `shopvision stack up`.",
            highlight=False,
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
