"""A network of a model version, by what never changes of it: caches on a machine are kept by this."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from shopvision.models.card import CARD_FILE, ModelCard


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


def digests_in(card: ModelCard) -> set[str]:
    """Digests of the version that ``card`` describes and of every version that it is made of."""
    members = {digest for file, digest in card.files.items() if file.endswith(f"/{CARD_FILE}")}
    return {hashlib.sha256(card.to_bytes()).hexdigest(), *members}


def part_of(card: ModelCard, name: str) -> ModelPart:
    """The part called ``name`` of the version that ``card`` describes."""
    return ModelPart(card.spec, hashlib.sha256(card.to_bytes()).hexdigest(), name)
