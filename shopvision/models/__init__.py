"""Model versions: cards, kinds, the registry and its roles, importers, and what is loaded of them."""

from shopvision.models.card import ModelCard
from shopvision.models.loaded import load
from shopvision.models.registry import ModelVersionRef, find, import_model, list_versions, local_copy
from shopvision.models.serving import (
    activate,
    active,
    ensure_default_encoder,
    require_role,
    resolve,
    roles,
    rollback,
    serves,
)

__all__ = [
    "ModelCard", "ModelVersionRef", "activate", "active", "ensure_default_encoder", "find", "import_model",
    "list_versions", "load", "local_copy", "require_role", "resolve", "roles", "rollback", "serves",
]  # fmt: skip
