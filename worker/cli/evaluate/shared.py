"""What the commands of ``shopvision evaluate`` share: options, a bar, files and the table of a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shopvision.errors import UserError
from worker.cli.output import error_console

if TYPE_CHECKING:
    from shopvision.images import PictureDoor

DeviceOption = Annotated[str | None, typer.Option(help="cpu or cuda. [default: the GPU where there is one]")]
ItemsOption = Annotated[Path | None, typer.Option("--items", help="The items that the pairs name by id.")]
ImagesOption = Annotated[str | None, typer.Option(help="Where the items' pictures lie; by default beside them.")]
SplitOption = Annotated[str | None, typer.Option(help="train, valid or test. [default with --config: test]")]


def make_folder(folder: Path | None) -> None:
    """Make the folder of ``--output``, before anything is computed.

    Raises:
        UserError: it cannot be made, or not be written to.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder} cannot be made or written ({error.strerror}): choose another --output.") from None


@contextmanager
def reading(what: str, picture_folders: tuple[Path, ...]) -> Iterator[tuple[PictureDoor, Callable[[int, int], None]]]:
    """The door for pictures of these folders too, and what moves a bar: called with (done, all)."""
    from shopvision.images import PictureDoor
    from shopvision.settings import get_settings

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        PictureDoor(get_settings().with_image_roots(picture_folders)) as door,
        Progress(*columns, TimeRemainingColumn(), console=error_console) as bar,
    ):
        task = bar.add_task(what, total=None, visible=False)
        yield door, lambda done, total: bar.update(task, completed=done, total=total, visible=True)
