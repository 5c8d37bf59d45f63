"""Model versions: cards, the registry and its roles, importers, and the encoders made from them."""

from shopvision.models.card import ModelCard
from shopvision.models.registry import (
    ModelVersionRef,
    activate,
    active,
    ensure_default_encoder,
    find,
    import_model,
    list_versions,
    local_copy,
    resolve,
    roles,
    rollback,
    serves,
)

__all__ = [
    "ModelCard", "ModelVersionRef", "activate", "active", "ensure_default_encoder", "find", "import_model",
    "list_versions", "local_copy", "resolve", "roles", "rollback", "serves",
]  # fmt: skip
