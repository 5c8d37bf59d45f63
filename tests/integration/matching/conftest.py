"""A small shop whose pairs are scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shopvision import models
from shopvision.models import activate
from tests.integration.matching.scoring_shop import (
    TITLES,
    ScoringShop,
    add_scorer,
)


@pytest.fixture
def bare_shop(
    database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_environment: Callable[..., None]
) -> ScoringShop:
    """No items yet; a pair scorer and a blocker are active."""
    set_environment(SHOPVISION_IMAGE_ROOTS=str(tmp_path), SHOPVISION_OBJECT_STORE=f"file://{tmp_path}/store")
    shop = ScoringShop(tmp_path)
    monkeypatch.setattr(models, "load", shop.models.__getitem__)
    activate("pair_scorer", add_scorer("scorer"))
    activate("pair_blocker", add_scorer("blocker", tower=True))
    return shop


@pytest.fixture
def shop(bare_shop: ScoringShop) -> ScoringShop:
    """Six items, of which some share most of their words."""
    for item_id, title in TITLES.items():
        bare_shop.put(item_id, title)
    return bare_shop
