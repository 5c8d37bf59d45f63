"""``shopvision posts``: bring social posts in, look at the training pairs found in them, and take these out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.text import Text

from worker.cli.output import ERRORS_PRINTED, JsonFlag, emit, emit_decisions, error_console, table

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

app = typer.Typer(no_args_is_help=True, help="Social posts, and the training pairs that are found in them.")

DetectorOption = Annotated[str | None, typer.Option(help="NAME:TAG. [default: what serves the role fashion_detector]")]
ClassifierOption = Annotated[
    str | None, typer.Option(help="NAME:TAG. [default: what serves the role thumbnail_classifier]")
]


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="JSONL, CSV or Parquet (also .gz), a local path or s3://bucket/key.")],
    *,
    images: Annotated[
        str | None,
        typer.Option(help="Where relative pictures start from: a folder or s3://bucket/prefix. [default: beside FILE]"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Store posts, for jobs to label; safe to repeat. Good rows go in; exit status 1 tells that some were refused."""
    from shopvision.fashion.posts.importing import import_posts
    from shopvision.items.record_parsing import picture_root
    from worker.cli.catalogue import make_readable

    report = import_posts(file, images)
    folder = picture_root(file, images).folder
    if folder is not None:
        make_readable(folder)
    for message in [] if as_json else report.refused[:ERRORS_PRINTED]:
        error_console.print(Text(message))
    counts = {name: value for name, value in report.as_dict().items() if name != "errors"}
    emit(report.as_dict(), as_json, lambda: ", ".join(f"{value:,} {name}" for name, value in counts.items()))
    if report.refused:
        sys.exit(1)


@app.command()
def counts(*, detector: DetectorOption = None, classifier: ClassifierOption = None, as_json: JsonFlag = False) -> None:
    """Count posts and pairs by the reason why they give none, so that it shows where posts are lost."""
    from shopvision.fashion.posts.export import count_reasons

    models = _models(detector, classifier)
    found = count_reasons(*(model.model_version_id for model in models))

    def render() -> Group:
        parts = [
            table((what, "count", "share"), [
                (reason, f"{count:,}", f"{count / sum(reasons.values()):.1%}") for reason, count in reasons.items()
            ])
            for what, reasons in found.items()
        ]  # fmt: skip
        return Group(" and ".join(model.spec for model in models), "", parts[0], "", parts[1])

    emit({"detector": models[0].spec, "classifier": models[1].spec, **found}, as_json, render)


@app.command()
def report(
    job: Annotated[str | None, typer.Argument(help="The label_posts job's id, or its first characters.")] = None,
    *,
    latest: Annotated[bool, typer.Option("--latest", help="The newest label_posts job.")] = False,
    output: Annotated[Path, typer.Option(help="Where the HTML page goes.")] = Path("posts-report.html"),
    as_json: JsonFlag = False,
) -> None:
    """Write a page with the pairs that nobody has decided; wrong ones are marked in it, and imported with review."""
    from shopvision.fashion.posts.page import pairs_page, write_report
    from worker.cli.reported_job import reported_job
    from worker.ledger.progress import list_failures

    progress = reported_job(
        "label_posts", job, latest=latest, model="detector", nothing="labelled no posts",
        never="No post has been labelled yet",
    )  # fmt: skip
    detector, classifier = _models(progress.params["detector"], progress.params["classifier"])
    page = pairs_page(detector.model_version_id, classifier.model_version_id, progress.job_id)
    facts = [("detector", detector.spec), ("thumbnail classifier", classifier.spec), ("job", str(progress.job_id)[:8])]
    write_report(output, page, facts=facts, failures=list_failures(progress.job_id, limit=200))
    told = {"report": str(output.resolve()), "job_id": str(progress.job_id), "pairs": len(page.pairs)}
    emit(told, as_json, lambda: f"{len(page.pairs):,} pairs: {output.resolve()}")


@app.command()
def review(
    file: Annotated[str, typer.Argument(help="CSV, JSONL or Parquet with post_id, product_id, verdict.")],
    *,
    reviewer: Annotated[str | None, typer.Option(help="Who decided, where the file does not say.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Take in decisions, which hold for all models. Good rows go in; exit status 1 tells that some were refused."""
    from shopvision.fashion.posts.reviews import import_reviews

    emit_decisions(import_reviews(file, reviewer=reviewer), file, as_json)


@app.command()
def export(
    output: Annotated[Path, typer.Option(help="Where they go: .jsonl, .csv or .parquet.")],
    *,
    detector: DetectorOption = None,
    classifier: ClassifierOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the pairs that rules and people kept, to train an encoder from."""
    from shopvision.fashion.posts.export import export_pairs

    pairs = export_pairs(output, *(model.model_version_id for model in _models(detector, classifier)))
    emit({"pairs": pairs, "output": str(output.resolve())}, as_json, lambda: f"{pairs:,} pairs: {output.resolve()}")


def _models(detector: str | None, classifier: str | None) -> tuple[ModelVersionRef, ModelVersionRef]:
    from shopvision.fashion.posts.job import resolved

    return resolved(detector, classifier)
