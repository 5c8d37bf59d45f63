"""A shop of posts whose models go by colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shopvision import models
from shopvision.models import activate
from tests.integration.posts.post_shop import PostShop, add_version


@pytest.fixture
def shop(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> PostShop:
    """No posts yet; a detector and a classifier are active."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    set_environment(SHOPVISION_IMAGE_ROOTS=str(folder), SHOPVISION_OBJECT_STORE=f"file://{tmp_path}/store")
    shop = PostShop(folder)
    monkeypatch.setattr(models, "load", shop.models.__getitem__)
    activate("fashion_detector", add_version("detector", "fashion_detector"))
    activate("thumbnail_classifier", add_version("classifier", "thumbnail_classifier"))
    return shop
