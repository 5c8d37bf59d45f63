"""Pruning, so that tables stay small over years: each room knows what of its own is no longer needed."""

from __future__ import annotations

from importlib import import_module

import structlog

log = structlog.get_logger(__name__)

ROOMS = (
    "worker.ledger",
    "shopvision.index",
    "shopvision.fashion.composition",
    "shopvision.fashion.posts",
    "shopvision.selection",
    "shopvision.selection.item_pictures",
    "shopvision.matching",
)


def prune() -> dict[str, int]:
    """Delete what is older than the configured ages; returns rows deleted per table (children not counted)."""
    deleted: dict[str, int] = {}
    for room in ROOMS:
        deleted |= import_module(f"{room}.prune").prune()
    log.info("pruned", **deleted)
    return deleted
