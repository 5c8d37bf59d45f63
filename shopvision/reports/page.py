"""Rendering: every report extends ``base.html``, everything from the catalogue is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from shopvision.images import PictureDoor
from shopvision.reports.row_writer import replacing
from shopvision.reports.thumbnails import SIDE_PIXELS, read_thumbnails
from shopvision.settings import get_settings


def render_page(
    template: str,
    output: Path,
    uris: Mapping[int, str],
    door: PictureDoor | None = None,
    *,
    side: int = SIDE_PIXELS,
    made: Mapping[str, str] = MappingProxyType({}),
    **context: Any,
) -> None:
    """Render ``template`` to ``output``; an existing page is replaced in one step.

    Args:
        template: its file's name.
        output: the HTML file.
        uris: addresses of the pictures that the page shows; the template finds small ones under the same keys in
            ``pictures``, but for those that cannot be read.
        door: that they come through; by default as the settings say.
        side: pixels that small pictures have a side, at most.
        made: pictures that are ``data:`` addresses already, under their keys.
        context: what else the template shows.

    Raises:
        UserError: the folder of ``output`` does not exist or may not be written.
    """
    if not uris:
        pictures = {}
    elif door is None:
        with PictureDoor(get_settings()) as own:
            pictures = read_thumbnails(uris, own, side)
    else:
        pictures = read_thumbnails(uris, door, side)
    shown = {**{str(key): source for key, source in pictures.items()}, **made}
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("shopvision.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(pictures=shown, **context)
    with replacing(output) as part:
        part.write_text(html, encoding="utf-8")
