"""A shop of posts whose models go by colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.posts.post_shop import PostShop, open_shop


@pytest.fixture
def shop(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> PostShop:
    """No posts yet; a detector and a classifier are active."""
    return open_shop(tmp_path, monkeypatch, set_environment)
