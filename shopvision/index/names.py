"""Which index serves which role: one finds what looks alike, one finds what a text says."""

from __future__ import annotations

from shopvision.errors import UserError
from shopvision.models.kinds import find_kind
from shopvision.settings import get_settings

CATALOGUE_ROLE, RECALL_ROLE = "catalogue_encoder", "image_recall"


def index_names() -> dict[str, str]:
    """Role -> name of the index with the vectors of what serves it."""
    name = get_settings().index_name
    return {CATALOGUE_ROLE: name, RECALL_ROLE: f"{name}-text"}


def index_name(role: str) -> str:
    """The index of a role."""
    return index_names()[role]


def indexed_role(kind: str) -> str:
    """The role whose index holds the vectors of models of a kind.

    Raises:
        UserError: vectors of such models are in no index.
    """
    roles = [role for role in find_kind(kind).roles if role in index_names()]
    if not roles:
        raise UserError(
            f"Vectors of a model of the kind {kind} are in no index: take one that can serve as "
            f"{' or '.join(index_names())}."
        )
    return roles[0]
