"""``shopvision demo``: the whole way once, from real photos to look-alikes, pictures for plans, and duplicates."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shopvision.errors import UserError
from worker.cli.memory import use_workers_malloc
from worker.cli.output import console, error_console, table

if TYPE_CHECKING:
    from shopvision.training.run import TrainingRun
    from worker.demo.guide import Guide


KeepRunning = Annotated[bool, typer.Option(help="Leave the stack running.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    app.command("demo-fashion")(demo_fashion)


def demo(
    *,
    catalogue: Annotated[
        Path | None,
        typer.Option(help="A folder with items.jsonl, .csv or .parquet and its pictures, or with pictures alone."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the page of look-alikes goes.")] = Path("demo-report.html"),
    plans_output: Annotated[Path, typer.Option(help="Where the page of plans goes.")] = Path("demo-plans.html"),
    duplicates_output: Annotated[Path, typer.Option(help="Where the page of duplicates goes.")] = Path(
        "demo-duplicates.html"
    ),
    selections_output: Annotated[Path, typer.Option(help="Where the page of items' pictures goes.")] = Path(
        "demo-selections.html"
    ),
    keep_running: KeepRunning = False,
) -> None:
    """Start a stack, embed a catalogue, rank pictures for plans, search by text, and find products listed twice."""
    use_workers_malloc()
    from worker.demo.catalogue_folder import import_folder
    from worker.demo.duplicates import list_again, show_duplicates
    from worker.demo.item_pictures import show_selections, show_texts, train_recall_model
    from worker.demo.look_alikes import show_look_alikes
    from worker.demo.ranked_plans import show_plans, train_ranker

    started = time.monotonic()
    with _stack(keep_running=keep_running) as (guide, home):
        folder = catalogue or _sample()
        import_folder(guide, folder)
        show_look_alikes(guide, output, guide.run("refresh_embeddings"))
        pages = [output]
        if train_ranker(guide, folder):
            show_plans(guide, plans_output, guide.run("rank_plans"))
            pages.append(plans_output)
        if train_recall_model(guide):
            guide.run("refresh_embeddings", role="image_recall")
            show_texts(guide)
            show_selections(guide, selections_output, guide.run("select_images", library=True))
            pages.append(selections_output)
        if relisted := list_again(guide, home):
            guide.run("refresh_embeddings")
            show_duplicates(guide, duplicates_output, guide.run("score_pairs"), relisted)
            pages.append(duplicates_output)
    _end(started, pages)


def demo_fashion(
    *,
    data: Annotated[
        Path, typer.Option("--data", help="A folder with photos/ (boxes.json beside the photos) and catalogue/.")
    ],
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of the detector. [default: as many as take about eight minutes]")
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the page of garments found goes.")] = Path("demo-fashion.html"),
    keep_running: KeepRunning = False,
) -> None:
    """Train a detector and an encoder on your photos and catalogue, embed its garments, and search by photo."""
    use_workers_malloc()
    from shopvision.search.page import SearchPage
    from worker.demo.catalogue_folder import import_folder
    from worker.demo.fashion_folder import look_into
    from worker.demo.fashion_models import compose_encoder, detector_config, train_detector, train_encoder
    from worker.demo.found_garments import held_back, show_garments

    started = time.monotonic()
    folder = look_into(data)
    config = detector_config(folder, epochs)
    photos, page = held_back(config), SearchPage(output)
    with _stack(keep_running=keep_running) as (guide, _):
        import_folder(guide, folder.catalogue)
        detector = train_detector(guide, config, len(folder.data.pictures))
        compose_encoder(guide, folder, detector, train_encoder(guide, folder))
        guide.run("refresh_embeddings")
        show_garments(guide, photos, page)
    _end(started, [output])


@contextmanager
def _stack(*, keep_running: bool) -> Iterator[tuple[Guide, Path]]:
    """The guide through a running stack, and the stack's home; what was not running before is stopped at the end."""
    from shopvision.settings import get_settings
    from worker.demo.guide import Guide
    from worker.stack.detached import read_status, start_detached, stop

    home = get_settings().home
    was_running = read_status(home) is not None
    if not was_running:
        if not keep_running:  # compiling and measuring pay in nights to come, of which there are none
            os.environ.setdefault("SHOPVISION_COMPILE_IN_BACKGROUND", "false")
            os.environ.setdefault("SHOPVISION_TUNING_SECONDS", "0")
        start_detached(home, lambda step: _say(f"starting {step} ..."))
    get_settings.cache_clear()
    try:
        yield Guide(_say, _show, _training, _run), home
        state = read_status(home)
        if state is not None and state.flower_url:
            _say(f"Flower: {state.flower_url} (user {state.flower_user}; `shopvision stack status` shows the password)")
    finally:
        if not was_running and not keep_running:
            _say("stopping the stack ...")
            stop(home)


def _end(started: float, pages: Sequence[Path]) -> None:
    _say(f"Done in {time.monotonic() - started:.0f} s. To look at: {', '.join(str(page.resolve()) for page in pages)}")


def _sample() -> Path:
    from worker.demo.sample_catalogue import sample_catalogue

    _say("getting the sample catalogue (54 products with photos) ...")
    return sample_catalogue()


def _say(line: str) -> None:
    console.print(line)


def _show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    console.print(table(columns, rows))


@contextmanager
def _training(output: Path) -> Iterator[TrainingRun]:
    from shopvision.training.distributed import joined
    from worker.cli.training_bars import Bars

    with joined() as process, Bars(shown=error_console.is_terminal) as bars:
        yield bars.run(output, process)


def _run(kind: str, **params: Any) -> uuid.UUID:
    from shopvision.database import connect
    from worker.cli.jobs import follow
    from worker.ledger.jobs import submit

    with connect() as connection:
        job_id = submit(connection, kind, params, source="demo")
    progress = follow(job_id)
    _say(progress.sentence())
    if progress.state != "succeeded":
        raise UserError(f"The demo's {kind} job did not succeed; the reason stands above.")
    return job_id
