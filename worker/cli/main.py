"""The ``shopvision`` command: one file per group of commands, one line per mistake."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import typer
from rich.text import Text

from shopvision.errors import ShopvisionError
from worker.cli.output import error_console
from worker.logs import log_warnings_to_stderr

SHOWN_CHARACTERS = 80

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="The batch system behind a shop's computer vision."
)
for group in (
    "jobs", "catalogue", "plans", "data", "models", "index", "stack", "train", "evaluate", "pairs", "posts",
    "selections",
):  # fmt: skip
    app.add_typer(importlib.import_module(f"worker.cli.{group}").app, name=group)
for module in ("search", "run", "demo"):
    importlib.import_module(f"worker.cli.{module}").register(app)


def main() -> None:
    """Entry point: errors made on purpose become one line on stderr and exit status 1."""
    log_warnings_to_stderr()
    try:
        app()
    except ShopvisionError as error:
        _end(str(error))
    except UnicodeEncodeError as error:  # a shell hands on bytes; names of files may be any, all else is text
        _end(f"{error.object[:SHOWN_CHARACTERS]!r} is no valid UTF-8: correct it.")
    except Exception as error:
        from shopvision.database import Fault, explain, fault_of  # loaded by whoever raised it, if at all

        fault = fault_of(error)
        if fault not in {Fault.PASSING, Fault.SERVER}:
            raise
        _end(explain(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _end(message: str) -> NoReturn:
    error_console.print(Text.assemble(("error:", "red"), " ", message))
    sys.exit(1)
