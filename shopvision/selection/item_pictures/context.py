"""What a click ranker is told of items: their texts, and the entities that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from shopvision.database import connect
from shopvision.selection.click.entities import entities_of
from shopvision.selection.click.entity_store import CatalogueEntities, refresh_entity_vectors
from shopvision.selection.plan_methods import vectors_of

if TYPE_CHECKING:
    from shopvision.items.item import Item
    from shopvision.models import ModelVersionRef


class RankerContexts:
    """Contexts of items for one ranker; entities that were read once stay in memory."""

    def __init__(self, ref: ModelVersionRef) -> None:
        """Load the ranker, and what encodes names for it."""
        from shopvision import models

        self.ranker: Any = models.load(ref.spec)
        self._read = vectors_of(ref)
        self._towers = self.ranker.towers if self._read.spec == ref.spec else models.load(self._read.spec)
        self._entities = CatalogueEntities(
            self._read.model_version_id, self.ranker.dimension, self._towers.encode_texts
        )

    def of(self, items: Sequence[Item]) -> list[Any]:
        """The context of each item."""
        with connect() as connection:
            entities = self._entities.of(connection, items)
        texts = [self.ranker.text_of(item.title, [key.name for key in entities_of(item)]) for item in items]
        contexts: list[Any] = self.ranker.contexts(texts, entities)
        return contexts

    def refresh(self, should_stop: Callable[[], bool]) -> None:
        """Bring the entities of the whole catalogue up to date."""
        refresh_entity_vectors(
            self._read.model_version_id, self.ranker.dimension, self._towers.encode_texts, should_stop=should_stop
        )
