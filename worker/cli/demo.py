"""``shopvision demo``: the whole way once, from real photos to look-alikes, pictures for plans, and duplicates."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from shopvision.errors import UserError
from worker.cli.output import console, error_console, table

TABLES = ("items", "products", "catalogue", "catalog")
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif"}
SHOWN = 6
FEWEST_PLANS = 2
NEIGHBOURS = 3
REPORT_ITEMS = 200
REPORT_NEIGHBOURS = 6
REFUSED_SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    catalogue: Annotated[
        Path | None,
        typer.Option(help="A folder with items.jsonl, .csv or .parquet and its pictures, or with pictures alone."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the page of look-alikes goes.")] = Path("demo-report.html"),
    plans_output: Annotated[Path, typer.Option(help="Where the page of plans goes.")] = Path("demo-plans.html"),
    duplicates_output: Annotated[Path, typer.Option(help="Where the page of duplicates goes.")] = Path(
        "demo-duplicates.html"
    ),
    keep_running: Annotated[bool, typer.Option(help="Leave the stack running.")] = False,
) -> None:
    """Start a stack, import and embed a catalogue, rank pictures for plans, and find products listed twice."""
    from shopvision.settings import get_settings
    from worker.stack.detached import read_status, start_detached, stop

    started = time.monotonic()
    home = get_settings().home
    was_running = read_status(home) is not None
    if not was_running:
        start_detached(home, lambda step: console.print(f"starting {escape(step)} ..."))
    get_settings.cache_clear()
    try:
        folder = catalogue or _sample()
        _import(folder)
        _show_neighbours(output, _run("refresh_embeddings"))
        pages = [output]
        if _train_ranker(folder):
            _show_plans(plans_output, _run("rank_plans"))
            pages.append(plans_output)
        if relisted := _list_again(home):
            _run("refresh_embeddings")
            _show_duplicates(duplicates_output, _run("score_pairs"), relisted)
            pages.append(duplicates_output)
        state = read_status(home)
        if state is not None and state.flower_url:
            console.print(
                f"Flower: {state.flower_url} (user {state.flower_user}; `shopvision stack status` shows the password)"
            )
    finally:
        if not was_running and not keep_running:
            console.print("stopping the stack ...")
            stop(home)
    console.print(
        f"Done in {time.monotonic() - started:.0f} s. To look at: {', '.join(str(page.resolve()) for page in pages)}"
    )


def _sample() -> Path:
    from worker.demo.sample_catalogue import sample_catalogue

    console.print("getting the sample catalogue (54 products with photos) ...")
    return sample_catalogue()


def _import(folder: Path) -> None:
    from shopvision.catalogue.importing import Importer, items_kind
    from shopvision.catalogue.picture_addresses import PictureRoot
    from shopvision.catalogue.source_files import Source, open_source
    from shopvision.images import allow_image_root
    from shopvision.settings import get_settings

    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}. Give --catalogue a folder with items.jsonl and its pictures.")
    allow_image_root(get_settings(), folder)
    found = _table_in(folder)
    if found is not None and found.name != "products.csv":
        with open_source(str(found)) as source:
            report = Importer(items_kind(PictureRoot.parse(str(folder))), source).run()
    else:
        images = folder / "images" if found is not None else folder
        records = _vendure_products(found) if found is not None else _one_item_per_picture(folder)
        report = Importer(
            items_kind(PictureRoot.parse(str(images))), Source(str(folder), enumerate(records, start=1), lambda: 1.0)
        ).run()
    if report.inserted + report.updated + report.unchanged == 0:
        reason = report.errors[0].message if report.errors else "it holds no items and no pictures"
        raise UserError(f"Nothing could be imported from {folder}: {reason}.")
    console.print(
        f"imported {report.rows} items from {folder}: {report.inserted} new, {report.updated} changed, "
        f"{report.unchanged} unchanged, {report.refused} refused"
    )
    for error in report.errors[:REFUSED_SHOWN]:
        console.print(f"  line {error.line}: {escape(error.message)}")


def _table_in(folder: Path) -> Path | None:
    for stem in TABLES:
        for suffix in SUFFIXES:
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    return None


def _vendure_products(path: Path) -> Iterable[dict[str, Any]]:
    from shopvision.catalogue.vendure import read_vendure

    return read_vendure(path)


def _one_item_per_picture(folder: Path) -> Iterator[dict[str, Any]]:
    """A folder of pictures: each is an item, its sub-folder the category, its name the title."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURES:
            relative = path.relative_to(folder)
            yield {
                "item_id": str(relative),
                "title": path.stem.replace("-", " ").replace("_", " "),
                "category": list(relative.parts[:-1]),
                "images": [{"file": str(relative)}],
            }


def _run(kind: str) -> uuid.UUID:
    from shopvision.database import connect
    from worker.cli.jobs import follow
    from worker.ledger.jobs import submit

    with connect() as connection:
        job_id = submit(connection, kind, source="demo")
    progress = follow(job_id)
    console.print(progress.sentence())
    if progress.state != "succeeded":
        raise UserError(f"The demo's {kind} job did not succeed; the reason stands above.")
    return job_id


def _show_neighbours(output: Path, job_id: uuid.UUID) -> None:
    from shopvision.index.generation_rows import list_generations
    from shopvision.search.report import find_neighbours, write_report
    from shopvision.settings import get_settings
    from worker.ledger.progress import job_progress, list_failures

    rows = find_neighbours(limit=REPORT_ITEMS, k=REPORT_NEIGHBOURS)
    generation = next(found for found in list_generations(get_settings().index_name) if found.is_current)
    progress = job_progress(job_id)
    facts = [
        ("pictures in the index", f"{generation.live:,}"),
        ("embedded by this job", f"{progress.counters.get('embedded', 0):,}"),
        ("model", generation.model.partition(":")[0]),
    ]
    write_report(output, rows, facts=facts, failures=list_failures(job_id, limit=200))
    step = max(1, len(rows) // SHOWN)
    shown = [
        (
            row.item.title or row.item.item_id,
            ", ".join(f"{one.item.title or one.item.item_id} {one.score:.2f}" for one in row.neighbours[:NEIGHBOURS]),
        )
        for row in rows[::step][:SHOWN]
    ]
    console.print(table(("item", "looks most like"), shown))


def _train_ranker(folder: Path) -> bool:
    """Train a small CLIK and let it rank plans; False where there is nothing to learn from."""
    from shopvision import models
    from shopvision.catalogue.source_files import Source, open_source
    from shopvision.selection.clik.train import train_clik
    from shopvision.training.distributed import joined
    from worker.cli.train import Bars
    from worker.demo.plans import category_plans, import_plans, ranker_config

    own = next((folder / f"plans{suffix}" for suffix in SUFFIXES if (folder / f"plans{suffix}").is_file()), None)
    plans = [] if own else category_plans()
    if own is not None:
        with open_source(str(own)) as source:
            count = import_plans(source)
    elif len(plans) >= FEWEST_PLANS:
        count = import_plans(
            Source("categories", enumerate((plan.record(plan.members) for plan in plans), start=1), lambda: 1.0)
        )
    else:
        console.print(f"no plans to rank: {folder} has no plans.jsonl, and fewer than {FEWEST_PLANS} categories")
        return False
    console.print(f"training a ranker on {count} plans, with frozen encoders ...")
    with tempfile.TemporaryDirectory() as scratch, joined() as process, Bars(shown=error_console.is_terminal) as bars:
        report = train_clik(ranker_config(count), bars.run(Path(scratch, "run"), process))
        if report is None:
            raise UserError("The demo trains in one process: start it without torchrun.")
        spec = models.import_model(f"local-dir:{report.folder}").spec
    models.activate("plan_ranker", spec, force=True)  # a demonstration shows what little data give
    if plans:  # what a ranker is for: each plan may now choose from all that stands beside its category too
        import_plans(
            Source("categories", enumerate((plan.record(plan.candidates) for plan in plans), start=1), lambda: 1.0)
        )
    console.print(f"{spec} ranks plans now")
    return True


def _show_plans(output: Path, job_id: uuid.UUID) -> None:
    from shopvision.selection.report import plans_of, write_report
    from worker.ledger.progress import job_progress, list_failures

    plans = plans_of(job_id)
    progress = job_progress(job_id)
    facts = [
        ("pictures compared", f"{progress.counters.get('candidates', 0):,}"),
        ("model", str(progress.params.get("model")).partition(":")[0]),
    ]
    write_report(output, plans, facts=facts, failures=list_failures(job_id, limit=200))
    shown = [
        (plan.topic.name, ", ".join(f"{one.title or one.item_id} {one.score:.2f}" for one in plan.best[:NEIGHBOURS]))
        for plan in plans[:SHOWN]
    ]
    console.print(table(("plan", "pictures that suit it best"), shown))


def _list_again(home: Path) -> list[str]:
    """List some products a second time, and train a matcher on the others; ids of the second listings."""
    from shopvision import models
    from shopvision.catalogue.importing import Importer, items_kind
    from shopvision.catalogue.picture_addresses import PictureRoot
    from shopvision.catalogue.source_files import Source
    from shopvision.images import PictureDoor, allow_image_root
    from shopvision.matching.fitting.train import train_matcher
    from shopvision.settings import get_settings
    from shopvision.training.distributed import joined
    from worker.cli.train import Bars
    from worker.demo import relisting as demo_relisting
    from worker.demo.plans import has_asian_titles

    chosen = demo_relisting.choose_items()
    if len(chosen.learnt) < demo_relisting.FEWEST_LEARNT:
        console.print(f"no duplicates to find: fewer than {demo_relisting.FEWEST_LEARNT} items have title and picture")
        return []
    folder = home / "demo-relisted"
    folder.mkdir(parents=True, exist_ok=True)
    allow_image_root(get_settings(), folder)
    with PictureDoor(get_settings()) as door:
        records = list(demo_relisting.relist(chosen.relisted, door, folder))
    Importer(
        items_kind(PictureRoot.parse(str(folder))), Source("relistings", enumerate(records, start=1), lambda: 1.0)
    ).run()
    console.print(f"listed {len(records)} items again under other titles, with cut pictures")
    console.print(f"training a matcher on other listings of {len(chosen.learnt)} other items ...")
    with tempfile.TemporaryDirectory() as scratch, joined() as process, Bars(shown=error_console.is_terminal) as bars:
        files = demo_relisting.write_pairs(chosen.learnt, Path(scratch))
        config = demo_relisting.matcher_config(*files, asian=has_asian_titles())
        report = train_matcher(config, bars.run(Path(scratch, "run"), process))
        if report is None:
            raise UserError("The demo trains in one process: start it without torchrun.")
        spec = models.import_model(f"local-dir:{report.folder}").spec
    for role in ("pair_scorer", "pair_blocker"):  # its vectors find candidates as well
        models.activate(role, spec, force=True)
    console.print(f"{spec} scores pairs now")
    return [record["item_id"] for record in records]


def _show_duplicates(output: Path, job_id: uuid.UUID, relisted: list[str]) -> None:
    from shopvision import models
    from shopvision.matching.groups.page import matching_page, write_report
    from worker.demo.relisting import SUFFIX
    from worker.ledger.progress import job_progress, list_failures

    progress = job_progress(job_id)
    ref = models.find(progress.params["model"])
    page = matching_page(ref.model_version_id, job_id)
    members = [{item.item_id for item in group.items} for group in page.groups]
    found = sum(any({one, one.removesuffix(SUFFIX)} <= group for group in members) for one in relisted)
    wrong = sum(len({one.removesuffix(SUFFIX) for one in group}) > 1 for group in members)
    facts = [("listed twice", f"{len(relisted):,}"), ("found", f"{found:,}"), ("model", ref.spec.partition(":")[0])]
    write_report(output, page, facts=facts, failures=list_failures(job_id, limit=200))
    console.print(
        f"{found} of {len(relisted)} second listings stand in one group with the first; "
        f"{wrong} groups hold more than one product"
    )
