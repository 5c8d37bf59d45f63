"""What quality tests share: a folder where features of frozen encoders are kept, so that each is computed once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

KEPT = os.environ.get("SHOPVISION_TEST_HOME")


@pytest.fixture
def frozen_home(set_environment: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SHOPVISION_HOME of all tests of a run; of all runs, where SHOPVISION_TEST_HOME names a folder."""
    home = Path(KEPT) if KEPT else tmp_path_factory.getbasetemp() / "frozen-home"
    set_environment(SHOPVISION_HOME=str(home))
    return home
