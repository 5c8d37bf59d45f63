"""Vectors of knowledge graphs as a kind of model; it has no role, as pair models carry what they read of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.models.kinds import ImportScheme, ModelKind, Precision

if TYPE_CHECKING:
    from shopvision.graph.card import LoadedGraph
    from shopvision.models.card import ModelCard


def _from_pkgm(file: str, folder: Path, *, entities: str | None = None, relations: str | None = None) -> ModelCard:
    from shopvision.graph.checkpoints import import_checkpoint

    names = {
        name: None if value is None else Path(value).expanduser()
        for name, value in (("entities", entities), ("relations", relations))
    }
    return import_checkpoint(Path(file).expanduser(), folder, **names)


class KnowledgeGraphKind(ModelKind):
    """What items, values and attributes have to do with each other, as vectors."""

    name = "knowledge_graph"
    schemes = (
        ImportScheme(
            "pkgm",
            "FILE",
            "vectors of a published knowledge graph of items, pkgm_model.bin",
            _from_pkgm,
            {
                "entities": "entity2id.txt, the names of its entities, which the file does not hold",
                "relations": "relation2id.txt, likewise of its relations",
            },
        ),
    )

    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> LoadedGraph:  # noqa: ARG002
        """See ``ModelKind``; tables are looked up in, and stay where they are."""
        from shopvision.graph.card import load_graph

        return load_graph(folder)


KINDS = (KnowledgeGraphKind(),)
