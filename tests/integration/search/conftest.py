from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shopvision.index.publish import publish
from shopvision.index.reader import IndexReader
from shopvision.search import VisualSearch
from shopvision.storage import open_store
from tests.integration.index.catalogue import make_model
from tests.integration.search.world import ColourFinder, MeanColour, ShopItem, fill, let_serve


@pytest.fixture
def model(database: None, tmp_path: Path, set_environment: Callable[..., None]) -> Any:
    """A catalogue encoder that sees colours."""
    set_environment(SHOPVISION_OBJECT_STORE=f"file://{tmp_path}/store")
    return make_model()


@pytest.fixture
def reader(model: Any, tmp_path: Path) -> IndexReader:
    return IndexReader(open_store(), "catalogue", tmp_path / "reader", follow_seconds=0.0)


def load(spec: str) -> Any:
    return {"toy:1": MeanColour(), "finder:1": ColourFinder()}[spec]


@pytest.fixture
def finder(model: Any) -> str:
    """A detector serves."""
    return let_serve("fashion_detector", "finder")


@pytest.fixture
def shop(model: Any, reader: IndexReader) -> Callable[..., VisualSearch]:
    """``shop(items)`` publishes them and gives a search over them."""

    def publish_items(items: list[ShopItem]) -> VisualSearch:
        fill(model, items)
        publish("catalogue", model)
        return VisualSearch(reader, load)

    return publish_items
