"""FAISS, loaded so that its threads sleep while they wait.

By default they spin, and on a machine whose processors are busy with something else (embedding workers, say) each small
search then waits for a time slice: 50 instead of 3,000 queries per second were measured on two busy cores.
"""

from __future__ import annotations

import importlib
import os
from typing import Any


def _load() -> Any:
    name = "OMP_WAIT_POLICY"  # read once, when the library is loaded; other libraries keep their own way
    given = os.environ.get(name)
    os.environ[name] = given or "PASSIVE"
    try:
        return importlib.import_module("faiss")
    finally:
        if given is None:
            del os.environ[name]


faiss: Any = _load()
