"""``shopvision pairs``: score pairs, look at what was found, take it out, and bring people's decisions in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from shopvision.errors import UserError
from worker.cli.output import ERRORS_PRINTED, JsonFlag, emit, emit_decisions, error_console, table

if TYPE_CHECKING:
    from shopvision.errors import ItemError
    from shopvision.items.pair_table import PairTable
    from shopvision.matching.scoring.predict import BaseScorer
    from shopvision.models import ModelVersionRef

app = typer.Typer(no_args_is_help=True, help="Which items are the same product: scores, groups and reviews.")
reviews = typer.Typer(no_args_is_help=True, help="What people decide about pairs.")
app.add_typer(reviews, name="reviews")

ModelOption = Annotated[
    str | None, typer.Option("--model", help="NAME:TAG. [default: what serves the role pair_scorer]")
]
PairsFile = Annotated[str, typer.Argument(help="JSONL, CSV or Parquet (also .gz), a local path or s3://bucket/key.")]
ScorerOption = Annotated[str, typer.Option("--model", help="NAME:TAG, or the folder of a model version.")]
ItemsOption = Annotated[str | None, typer.Option(help="File of the items whose ids FILE names.")]
ImagesOption = Annotated[str | None, typer.Option(help="Where the items' pictures lie; by default beside them.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu or cuda. [default: the GPU where there is one]")]
LimitOption = Annotated[int, typer.Option(min=1, help="At most so many pairs.")]


@app.command()
def score(
    file: PairsFile,
    *,
    model: ScorerOption,
    output: Annotated[Path, typer.Option(help="Where the scores go: .jsonl, .csv or .parquet.")],
    items: ItemsOption = None,
    images: ImagesOption = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a file of pairs without any database. Exit status 1 tells that some could not be scored."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from shopvision.matching.scoring.score_file import COLUMNS, score_table
    from shopvision.reports.row_writer import record_writer

    refused: list[ItemError] = []
    scorer, pairs = _open(file, refused, items=items, images=images, model=model, device=device)
    folders = _picture_folders(file, items, images)
    columns = (TextColumn("pairs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    scored = 0
    with (
        record_writer(output, COLUMNS) as write,
        Progress(*columns, console=error_console, disable=not error_console.is_terminal) as bar,
    ):
        task = bar.add_task("pairs", total=len(pairs))
        for done, rows in score_table(scorer, pairs, refused.append, picture_folders=folders):
            write(rows)
            scored += len(rows)
            bar.update(task, completed=done)
    _finish({"scored": scored, "output": str(output.resolve())}, refused, as_json=as_json)


@app.command()
def submission(
    file: PairsFile,
    *,
    model: ScorerOption,
    output: Annotated[Path, typer.Option(help=".jsonl, or .zip with similarity.py beside the pairs.")],
    items: ItemsOption = None,
    images: ImagesOption = None,
    device: DeviceOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a file of pairs into the matching challenge's format: vectors (or probabilities) and a threshold."""
    from shopvision.matching.scoring.score_file import submission_of
    from shopvision.matching.scoring.submission import require_submission_name, write_submission

    require_submission_name(output)
    refused: list[ItemError] = []
    scorer, pairs = _open(file, refused, items=items, images=images, model=model, device=device)
    folders = _picture_folders(file, items, images)
    similarity, rows = submission_of(scorer, pairs, refused.append, picture_folders=folders)
    written = write_submission(output, rows, similarity)
    told = {
        "scored": written,
        "similarity": similarity if isinstance(similarity, str) else f"learnt ({similarity.kind})",
        "output": str(output.resolve()),
    }
    _finish(told, refused, as_json=as_json)


@app.command()
def export(
    output: Annotated[Path, typer.Option(help="Where they go: .jsonl, .csv or .parquet.")],
    *,
    what: Annotated[str, typer.Option(help="scores or groups.")] = "scores",
    model: Annotated[str | None, typer.Option("--model", help="Only those of NAME:TAG.")] = None,
    job: Annotated[str | None, typer.Option(help="Only those of this job: its id, or its first characters.")] = None,
    verdict: Annotated[str | None, typer.Option(help="Only scores with this verdict: same, different, review.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write scores, or the items of groups, to a file; millions of rows take no memory."""
    from shopvision import models
    from shopvision.matching.groups.export import export_groups, export_scores
    from worker.ledger.progress import find_job

    if what not in {"scores", "groups"}:
        raise UserError(f"--what {what}: there are scores and groups.")
    if what == "groups" and verdict is not None:
        raise UserError("--verdict belongs to scores: groups have none.")
    version = None if model is None else models.find(model).model_version_id
    job_id = None if job is None else find_job(job)
    if what == "groups":
        rows = export_groups(output, model_version_id=version, job_id=job_id)
    else:
        rows = export_scores(output, model_version_id=version, job_id=job_id, verdict=verdict)
    emit({"rows": rows, "output": str(output.resolve())}, as_json, lambda: f"{rows:,} rows: {output.resolve()}")


@app.command()
def report(
    job: Annotated[str | None, typer.Argument(help="The score_pairs job's id, or its first characters.")] = None,
    *,
    latest: Annotated[bool, typer.Option("--latest", help="The newest score_pairs job.")] = False,
    output: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("pairs-report.html"),
    as_json: JsonFlag = False,
) -> None:
    """Write a page with the groups and the pairs to review; it can be filled in and imported back."""
    from shopvision import models
    from shopvision.matching.groups.page import matching_page, write_report
    from worker.cli.reported_job import reported_job
    from worker.ledger.progress import list_failures

    progress = reported_job(
        "score_pairs", job, latest=latest, model="model", nothing="scored no pairs", never="No pair has been scored yet"
    )
    ref = models.find(progress.params["model"])
    page = matching_page(ref.model_version_id, progress.job_id, decision=_decision(ref))
    facts = [("model", ref.spec), ("job", str(progress.job_id)[:8])]
    write_report(output, page, facts=facts, failures=list_failures(progress.job_id, limit=200))
    told = {"report": str(output.resolve()), "job_id": str(progress.job_id), **page.totals}
    emit(told, as_json, lambda: f"{page.totals['groups']:,} groups: {output.resolve()}")


@reviews.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="CSV, JSONL or Parquet with left_item_id, right_item_id, verdict.")],
    *,
    reviewer: Annotated[str | None, typer.Option(help="Who decided, where the file does not say.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Take in decisions; they override every model. Good rows go in; exit status 1 tells that some were refused."""
    from shopvision.matching.groups.reviews import import_reviews

    found = import_reviews(file, reviewer=reviewer)
    emit_decisions(found, file, as_json)


@reviews.command("list")
def list_(model: ModelOption = None, *, limit: LimitOption = 20, as_json: JsonFlag = False) -> None:
    """Show the pairs to review, the least certain first."""
    from dataclasses import asdict

    from shopvision.matching.groups.reviews import pairs_to_review

    ref = _ref(model)
    pairs = pairs_to_review(ref.model_version_id, decision=_decision(ref), limit=limit)
    columns = ("probability", "left", "right", "left title", "right title")
    rows = [
        (f"{pair.probability:.3f}", pair.left_item_id, pair.right_item_id, pair.left_title, pair.right_title)
        for pair in pairs
    ]
    emit([asdict(pair) for pair in pairs], as_json, lambda: table(columns, rows, f"for review, {ref.spec}"))


@reviews.command("export")
def export_reviews(
    output: Annotated[Path, typer.Option(help="Where they go: .csv, .jsonl or .parquet.")],
    *,
    model: ModelOption = None,
    limit: LimitOption = 200,
    as_json: JsonFlag = False,
) -> None:
    """Write the pairs to review: fill in the column verdict and import the file."""
    from shopvision.matching.groups.reviews import pairs_to_review, write_review_list

    ref = _ref(model)
    pairs = pairs_to_review(ref.model_version_id, decision=_decision(ref), limit=limit)
    write_review_list(output, pairs)
    told = {"pairs": len(pairs), "output": str(output.resolve())}
    emit(told, as_json, lambda: f"{len(pairs)} pairs: {output.resolve()}")


def _open(
    file: str, refused: list[ItemError], *, items: str | None, images: str | None, model: str, device: str | None
) -> tuple[BaseScorer, PairTable]:
    """The model and the pairs; those that are none are noted as refused."""
    from shopvision.items.item_files import read_items
    from shopvision.items.pair_files import read_pairs
    from shopvision.matching.scoring.ensemble import load_scorer
    from worker.cli.model_folder import model_folder

    known = None if items is None else read_items(items, images=images)
    pairs = read_pairs(file, known, images=images, strict=False, on_failure=refused.append)
    return load_scorer(model_folder(model), device=device), pairs


def _picture_folders(file: str, items: str | None, images: str | None) -> list[Path]:
    """Local folders that the command's user named."""
    from shopvision.items.record_parsing import picture_root

    folder = picture_root(items or file, images).folder
    return [] if folder is None else [folder]


def _finish(told: dict[str, Any], refused: list[ItemError], *, as_json: bool) -> None:
    for error in [] if as_json else refused[:ERRORS_PRINTED]:
        error_console.print(Text(f"{error.message}."))
    errors = [{"code": error.code, "message": error.message} for error in refused]
    emit(
        {**told, "refused": len(refused), "errors": errors},
        as_json,
        lambda: f"{told['scored']:,} pairs scored, {len(refused):,} not: {told['output']}",
    )
    if refused:
        sys.exit(1)


def _ref(model: str | None) -> ModelVersionRef:
    from shopvision import models

    return models.active("pair_scorer") if model is None else models.find(model)


def _decision(ref: ModelVersionRef) -> float:
    return ref.card.thresholds.get("decision", 0.5)
