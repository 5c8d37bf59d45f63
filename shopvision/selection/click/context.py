"""What a ranker knows of an item beside its pictures: a text, and the entities that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import JobError

Vector = NDArray[np.float32]
ContextText = Literal["entities", "title", "both"]

# As published: the names of an item's entities are one sentence.
BETWEEN_NAMES = ","


@dataclass(frozen=True, eq=False)
class Entity:
    """A brand, a category, a value of an attribute, a sight: what several items share, as the recall model sees it.

    Attributes:
        entity_id: tells it from the others of its kind.
        name: as people write it.
        kind: ``brand``, ``category``, an attribute's key, ``file``.
        pictures: (d,) mean vector of its pictures; zeros where it has none.
        name_vector: (d,) of its name.
    """

    entity_id: str
    name: str
    kind: str
    pictures: Vector
    name_vector: Vector


@dataclass(frozen=True, eq=False)
class ItemContext:
    """An item's context, to be made once for all its pictures.

    Attributes:
        text: (d,), zeros where there is no text.
        entities: (k, 2d), mean picture vector and name vector of each entity; k is at most what the ranker takes.
    """

    text: Vector
    entities: Vector


def context_text(title: str, names: Sequence[str], rule: ContextText) -> str:
    """The text that a ranker is told of an item.

    Args:
        title: of the item.
        names: of all its entities, in the order of the source.
        rule: ``entities``: their names as one sentence, and the title where there are none (published); ``title``; or
            ``both``, the title first.
    """
    joined = BETWEEN_NAMES.join(names)
    if rule == "entities":
        return joined.strip() or title.strip()
    if rule == "title":
        return title.strip()
    return " ".join(filter(None, (title.strip(), joined.strip())))


def entity_features(entities: Sequence[Entity], dimension: int, at_most: int) -> Vector:
    """(k, 2 * dimension) of the first ``at_most`` entities.

    Raises:
        JobError: a vector has another length, as of another model.
    """
    chosen = entities[:at_most]
    features = np.zeros((len(chosen), 2 * dimension), np.float32)
    for row, entity in enumerate(chosen):
        if entity.pictures.shape != (dimension,) or entity.name_vector.shape != (dimension,):
            raise JobError(
                f"The {entity.kind} {entity.name!r} has vectors of {entity.pictures.shape} and "
                f"{entity.name_vector.shape}, not ({dimension},): compute them with this ranker's recall model."
            )
        features[row, :dimension], features[row, dimension:] = entity.pictures, entity.name_vector
    return features
