"""A network of a model version, by what never changes of it: caches on a machine are kept by this."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shopvision.models.card import ModelCard


@dataclass(frozen=True, slots=True)
class ModelPart:
    """One network of a model version.

    Attributes:
        spec: ``name:tag`` of the version, for people.
        digest: sha256 of ``card.json``, which names every file of the version with its own, as hexadecimal digits.
        name: which of the version's networks: ``images``, ``pairs``, ...
    """

    spec: str
    digest: str
    name: str


def part_of(card: ModelCard, name: str) -> ModelPart:
    """The part called ``name`` of the version that ``card`` describes."""
    return ModelPart(card.spec, hashlib.sha256(card.to_bytes()).hexdigest(), name)
