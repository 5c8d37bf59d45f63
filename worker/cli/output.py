"""What every command shares: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from shopvision.evaluation.report import EvaluationReport
    from shopvision.items.decision_files import DecisionReport

ERRORS_PRINTED = 20

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

# A pipe or a log has no width of its own; tables must not be folded to 80 columns there. Titles and categories may hold
# brackets, so nothing that is printed is markup.
console = Console(soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 200)
error_console = Console(stderr=True, soft_wrap=True, markup=False)


def emit(data: Any, as_json: bool, render: Callable[[], Any]) -> None:
    """Print ``data`` as JSON, or what ``render()`` returns (text or any rich renderable) for people."""
    if as_json:
        sys.stdout.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")
    else:
        console.print(render())


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> Table:
    """A plain table; ``None`` shows as a dash."""
    result = Table(title=title, box=None, title_justify="left", header_style="bold", pad_edge=False)
    for column in columns:
        result.add_column(column, overflow="fold")
    for row in rows:
        result.add_row(*("-" if cell is None else str(cell) for cell in row))
    return result


def emit_report(
    report: EvaluationReport, as_json: bool, *, title: str | None = None, more: dict[str, Any] | None = None
) -> None:
    """Print an evaluation: a table of its metrics, what else it tells, its notes; or JSON.

    Args:
        report: of a model.
        as_json: print JSON.
        title: over the table; by default the model and the counts.
        more: further fields of the JSON.
    """

    def render() -> Group:
        from shopvision.evaluation.report import COLUMNS

        parts: list[Any] = [table(COLUMNS, report.rows(), title or report.title)]
        if facts := report.fact_rows():
            parts += ["", table(("", ""), facts)]
        return Group(*parts, *(["", *report.notes] if report.notes else []))

    emit({**report.as_dict(), **(more or {})}, as_json, render)


def emit_decisions(report: DecisionReport, file: str, as_json: bool) -> None:
    """Print what became of a file of people's decisions; exit status 1 where some were refused."""
    for line, message in [] if as_json else report.refused[:ERRORS_PRINTED]:
        error_console.print(Text(f"{file}: line {line}: {message}."))
    counts = {name: value for name, value in report.as_dict().items() if name != "errors"}
    emit(report.as_dict(), as_json, lambda: ", ".join(f"{value:,} {name}" for name, value in counts.items()))
    if report.refused:
        sys.exit(1)
