"""``shopvision data``: look at training data, and bring annotations into the form that trainers read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from worker.cli.output import JsonFlag, emit, error_console, table

app = typer.Typer(no_args_is_help=True, help="Look at training data, and convert it.")

CATEGORIES_SHOWN = 20


@app.callback()
def data() -> None:
    """Look at training data, and convert it."""


@app.command()
def describe(
    file: Annotated[Path, typer.Argument(help="Exhibition table: .csv, .csv.gz or .parquet.")],
    *,
    label: Annotated[str, typer.Option(help="The numeric column that holds the labels.")] = "ctr",
    images: Annotated[
        str | None,
        typer.Option(help="Picture folder (or s3://, https://); without it nobody looks for missing pictures."),
    ] = None,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="TOML file: \\[columns] with our column = their column.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Training configuration whose \\[refine] section is applied.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what is in an exhibition table, and what each refinement rule drops of it."""
    from pydantic import BaseModel

    from shopvision.selection.clik.data import load_column_map, read_table
    from shopvision.selection.clik.data_report import data_report
    from shopvision.selection.clik.refine import RefineOptions
    from shopvision.training.config import load_config

    class RefineSection(BaseModel):
        """The one section that matters here; the others are the trainer's."""

        refine: RefineOptions = RefineOptions()

    options = load_config(config, RefineSection).refine if config else RefineOptions()
    columns = load_column_map(map_file) if map_file else None
    with error_console.status(f"Reading {file.name}"):
        read = read_table(file, label=label, images=images, columns=columns, look_for_pictures=images is not None)
        report = {
            "table": str(file),
            "label": label,
            "pictures_checked": images is not None,
            **data_report(read, options),
        }
    emit(report, as_json, lambda: _rendered(report))


@app.command()
def clicks(
    log_file: Annotated[
        str, typer.Argument(metavar="LOG", help="Click log: .csv, .jsonl or .parquet, also .gz or s3://.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", help="Exhibition table to write: .parquet.")],
    plans: Annotated[
        Path | None,
        typer.Option(help="Exhibition table of the plans with their products; by default the catalogue."),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Picture folder (or s3://, https://) of the table; without it all pictures count as there."),
    ] = None,
    map_file: Annotated[
        Path | None, typer.Option("--map", help="TOML file: \\[columns] of the plans, our column = their column.")
    ] = None,
    log_map: Annotated[
        Path | None, typer.Option("--log-map", help="TOML file: \\[columns] of the log, our column = their column.")
    ] = None,
    per: Annotated[
        str, typer.Option(help="plan: a label for each plan and product; item: one for each product (published).")
    ] = "plan",
    min_impressions: Annotated[float, typer.Option(min=0, help="A product that was seen less often has no label.")] = 1,
    min_available: Annotated[int, typer.Option(min=0, help="Members with a picture that a plan needs.")] = 50,
    min_share: Annotated[float, typer.Option(min=0, max=1, help="Share of its members that these are at least.")] = 0.5,
    as_json: JsonFlag = False,
) -> None:
    """Make an exhibition table of plans and a click log: clicks, impressions and rate of each plan and product."""
    from shopvision.database import snapshot
    from shopvision.errors import UserError
    from shopvision.selection.clik.click_log import ClickRow, read_click_log
    from shopvision.selection.clik.click_table import CollectRules, require_suffix, write_click_table
    from shopvision.selection.clik.data import from_catalogue, load_column_map, read_table

    if per not in ("plan", "item"):
        raise UserError(f"--per {per}: write plan or item.")
    if plans is None and (images is not None or map_file is not None):
        raise UserError("--images and --map belong to a table of plans (--plans); the catalogue knows its own.")
    require_suffix(output)
    columns = load_column_map(map_file) if map_file else None
    log_columns = load_column_map(log_map, ClickRow) if log_map else None
    with error_console.status(f"Reading {plans.name if plans else 'the catalogue'}"):
        if plans is not None:
            data = read_table(plans, label=None, images=images, columns=columns, look_for_pictures=images is not None)
        else:
            with snapshot() as connection:
                data = from_catalogue(connection)
    with error_console.status(f"Reading {log_file}"):
        log = read_click_log(log_file, log_columns)
        rules = CollectRules(min_available, min_share, min_impressions, "item" if per == "item" else "plan")
        report = write_click_table(output, data, log, rules)
    emit(report, as_json, lambda: _labelled(report))


@app.command("convert-boxes")
def convert_boxes(
    file: Annotated[Path, typer.Argument(help="Annotations of the source: its COCO JSON.")],
    *,
    source: Annotated[str, typer.Option("--source", help="fashionpedia or modanet.")],
    classes: Annotated[int, typer.Option(help="7 or 12.")] = 7,
    output: Annotated[Path, typer.Option("--output", help="COCO JSON to write.")] = Path("boxes.json"),
    as_json: JsonFlag = False,
) -> None:
    """Bring published boxes of garments onto the few classes of a shop."""
    from shopvision.errors import UserError
    from shopvision.fashion.detection.coco import read_coco, write_coco
    from shopvision.fashion.detection.conversion import convert

    if not output.resolve().parent.is_dir():
        raise UserError(f"--output {output}: there is no such folder. Make it, or name another one.")
    with error_console.status(f"Reading {file.name}"):
        result = convert(read_coco(file), source, classes, where=str(file))
        write_coco(output, result.coco)
    kept, boxes = len(result.coco["images"]), len(result.coco["annotations"])
    report = {"output": str(output), "images": result.images, "kept": kept, "boxes": boxes, "dropped": result.dropped}
    rows = [("images", f"{result.images:,}"), *((f"dropped: {rule}", f"{n:,}") for rule, n in result.dropped.items())]
    rows += [("kept", f"{kept:,}"), ("boxes", f"{boxes:,}")]
    emit(report, as_json, lambda: table(["", "count"], rows, str(output)))


def _labelled(report: dict[str, Any]) -> Group:
    counts = {name: report[name] for name in ("plans", "rows", "labelled", "clicks", "clicks_elsewhere", "broken_rows")}
    notes = [f"The first broken row: {report['first_broken_row']}."] if report["broken_rows"] else []
    return Group(
        table(["", "count"], [[name.replace("_", " "), f"{n:,.0f}"] for name, n in counts.items()], report["output"]),
        *notes,
        "",
        table(["rule", "split", "exhibitions", "rows"], [_rule(record) for record in report["rules"]], "Rules"),
    )


def _rendered(report: dict[str, Any]) -> Group:
    sizes, labels = report["products_per_exhibition"], report["labels"]
    counts = f"{report['exhibitions']:,} exhibitions, {report['products']:,} products, {report['rows']:,} rows"
    if not report["pictures_checked"]:
        counts += "; pictures were not looked for (--images)"
    shares = f"mean {labels['mean']:.6g}, {labels['zeros']:.1%} zeros"
    names = list(sizes)
    categories = report["categories"]
    if len(categories) > CATEGORIES_SHOWN:
        title = f"Categories (the {CATEGORIES_SHOWN} largest of {len(categories):,})"
    else:
        title = "Categories"
    return Group(
        f"{report['table']}: {counts}",
        "",
        table(
            ["", *names],
            [
                ["products per exhibition", *(f"{sizes[name]:,.0f}" for name in names)],
                [report["label"], *(f"{labels[name]:.6g}" for name in names)],
            ],
        ),
        f"{report['label']}: {shares}",
        "",
        table(
            ["category", "exhibitions", "rows"],
            [
                [entry["category"] or "(none)", f"{entry['exhibitions']:,}", f"{entry['rows']:,}"]
                for entry in categories[:CATEGORIES_SHOWN]
            ],
            title,
        ),
        "",
        table(["rule", "split", "exhibitions", "rows"], [_rule(record) for record in report["rules"]], "Rules"),
        "",
        table(
            ["split", "exhibitions", "products", "rows"],
            [[name, *(f"{count:,}" for count in split.values())] for name, split in report["splits"].items()],
            "What is left",
        ),
    )


def _rule(record: dict[str, Any]) -> list[Any]:
    changes = [(record[f"{what}_before"], record[f"{what}_after"]) for what in ("exhibitions", "rows")]
    return [record["rule"], record["split"], *(_change(*change) for change in changes)]


def _change(before: int, after: int) -> str:
    return f"{before:,}" if before == after else f"{before:,} -> {after:,}"
