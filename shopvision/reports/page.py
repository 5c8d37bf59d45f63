"""Rendering: every report extends ``base.html``, everything from the catalogue is escaped."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from shopvision.errors import UserError


def render_page(template: str, output: Path, **context: Any) -> None:
    """Render ``template`` to ``output``; an existing page is replaced in one step.

    Raises:
        UserError: the folder of ``output`` does not exist or may not be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("shopvision.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(**context)
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=output.parent, suffix=".part", delete=False
        ) as part:
            part.write(html)
        Path(part.name).chmod(0o644)
        Path(part.name).replace(output)
    except OSError as error:
        raise UserError(f"The report cannot be written to {output}: {error.strerror}. Give another --output.") from None
