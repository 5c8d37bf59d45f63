"""A task for tests of a bare worker, loaded through SHOPVISION_KIND_MODULES."""

from __future__ import annotations

import sys

from worker.app import app


@app.task(name="echo")
def echo(word: str) -> None:
    sys.stderr.write(f"ECHO {word}\n")
