"""How a process finds the local stack: the supervisor writes one file, everything else reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ENVIRONMENT_FILE = "environment.json"


def stack_environment(home: Path) -> dict[str, Any]:
    """Settings (field name -> value) of the stack that lives in ``home``; empty where none was started."""
    try:
        loaded = json.loads((home / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return dict(loaded)
