"""``python -m worker.stack.prepare``: schema and default model of a stack that has just started its servers."""

from __future__ import annotations

import sys

from shopvision.errors import ShopvisionError


def prepare() -> None:
    """Apply missing migrations; give the catalogue encoder its default where none is active."""
    from shopvision.models import ensure_default_encoder
    from worker.schema import migrate

    migrate()
    ensure_default_encoder()


if __name__ == "__main__":
    try:
        prepare()
    except ShopvisionError as error:
        sys.exit(str(error))
