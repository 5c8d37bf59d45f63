"""``shopvision index``: look at the generations, check them, go back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from shopvision.errors import JobError
from shopvision.settings import get_settings
from worker.cli.output import JsonFlag, emit, table

app = typer.Typer(no_args_is_help=True, help="The search indexes: generations, checks and rollback.")

NameOption = Annotated[
    str | None,
    typer.Option(
        "--name", help="Index name. [default: SHOPVISION_INDEX_NAME; with -text behind it: the one for texts]"
    ),
]


def _name(name: str | None) -> str:
    return name or get_settings().index_name


@app.command("list")
def list_(name: NameOption = None, as_json: JsonFlag = False) -> None:
    """Show every generation, newest first."""
    from shopvision.index.generation_rows import list_generations

    rows = list_generations(_name(name))
    columns = ("generation", "model", "state", "kind", "vectors", "recall", "MB")
    emit(
        [asdict(row) for row in rows],
        as_json,
        lambda: table(
            columns,
            [
                (
                    row.path.rpartition("/")[2], row.model, "current" if row.is_current else row.state,
                    row.refused or f"{row.kind} {row.index_type}", row.live,
                    None if row.recall is None else f"{row.recall:.3f}", f"{row.bytes_uploaded / 1e6:.2f}",
                )
                for row in rows
            ],
            title=f"index {_name(name)}",
        ),
    )  # fmt: skip


@app.command()
def verify(name: NameOption = None, as_json: JsonFlag = False) -> None:
    """Download and hash the current generation, and compare it with Postgres."""
    from shopvision.index import verifying

    report = verifying.verify(_name(name))
    emit(
        asdict(report),
        as_json,
        lambda: (
            f"{report.path}\n{report.live} vectors of {report.model}, {report.files} files, "
            f"{report.bytes / 1e6:.2f} MB; Postgres {report.in_postgres}, {report.pending} pictures changed since."
        ),
    )
    if report.problems:
        raise JobError(f"Index {_name(name)!r} is not sound: " + " ".join(report.problems))


@app.command()
def rollback(name: NameOption = None, as_json: JsonFlag = False) -> None:
    """Let searches go back to the generation that was current before."""
    from shopvision.index import going_back

    path = going_back.rollback(_name(name))
    emit({"current": path}, as_json, lambda: f"{path} is current now.")


@app.command()
def repair(name: NameOption = None, as_json: JsonFlag = False) -> None:
    """Let a damaged or lost `current` point to the last good generation again."""
    from shopvision.index import repairing

    done = repairing.repair(_name(name))
    emit({"done": done}, as_json, lambda: done)


@app.command()
def compact(name: NameOption = None, as_json: JsonFlag = False) -> None:
    """Write a full generation of the current model now, without deltas."""
    from shopvision.index import publish

    report = publish.compact(_name(name))
    emit(
        asdict(report),
        as_json,
        lambda: (
            f"{report.path}\n{report.counts['live']} pictures, {report.bytes_uploaded / 1e6:.2f} MB uploaded "
            f"in {report.seconds:.1f} s."
        ),
    )


@app.command()
def report(
    output: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("index-report.html"),
    items: Annotated[
        int, typer.Option(min=1, max=5000, help="How many items to show, spread over the catalogue.")
    ] = 200,
    k: Annotated[int, typer.Option("-k", min=1, max=50, help="Neighbours per item.")] = 6,
    as_json: JsonFlag = False,
) -> None:
    """Write a page that shows items beside what the index finds most alike."""
    from shopvision.search.report import find_neighbours, write_report

    rows = find_neighbours(items, k)
    write_report(output, rows)
    emit(
        {"report": str(output.resolve()), "items": len(rows)}, as_json, lambda: f"{len(rows)} items: {output.resolve()}"
    )
