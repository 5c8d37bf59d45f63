"""Vectors of a knowledge graph as a model version: a card, ``model.safetensors``, and the names of its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shopvision.errors import JobError, UserError
from shopvision.graph.vectors import GraphVectors
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.version_folder import (
    FileWriter,
    load_weights,
    read_arguments,
    read_card,
    weights_file,
    write_version,
)

KIND = "knowledge_graph"
NAME = "pkgm"
NAMES_FILE = "names.json"


class GraphArguments(BaseModel):
    """What the tables are built from, stored in ``architecture.arguments`` of their card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    entities: int = Field(gt=0)
    relations: int = Field(gt=0)
    dimension: int = Field(gt=0)


@dataclass(frozen=True)
class LoadedGraph:
    """Vectors with their names: float32, CPU.

    Attributes:
        vectors: the tables.
        entities: names of their rows.
        relations: likewise.
        card: of the version.
    """

    vectors: GraphVectors
    entities: tuple[str, ...]
    relations: tuple[str, ...]
    card: ModelCard


def save_graph(
    folder: Path, vectors: GraphVectors, entities: Sequence[str], relations: Sequence[str], **card_fields: Any
) -> ModelCard:
    """Write a model version, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: made where it is missing.
        vectors: the tables.
        entities: names of their rows.
        relations: likewise.
        card_fields: of ``write_version``: name, tag, source, training_data, metrics, ...
    """
    arguments = GraphArguments(entities=len(entities), relations=len(relations), dimension=vectors.dimension)
    return write_version(
        folder,
        [weights_file(vectors.state_dict()), names_file(entities=entities, relations=relations)],
        kind=KIND,
        architecture=Architecture(library="shopvision", name=NAME, arguments=arguments.model_dump()),
        dimension=vectors.dimension,
        **card_fields,
    )


def load_graph(folder: Path) -> LoadedGraph:
    """The vectors of a model version.

    Raises:
        UserError: no card, or one of another kind.
        JobError: the weights do not fit the architecture exactly, or a file is missing or damaged.
    """
    card = read_card(folder, KIND)
    arguments = read_arguments(folder, card, GraphArguments)
    vectors = GraphVectors(arguments.entities, arguments.relations, arguments.dimension).eval()
    load_weights(vectors, folder, card)
    names = read_names(folder, entities=arguments.entities, relations=arguments.relations)
    return LoadedGraph(vectors.requires_grad_(requires_grad=False), names["entities"], names["relations"], card)


def find_graph(graph: str) -> LoadedGraph:
    """The vectors of a folder or of ``NAME:TAG``.

    Raises:
        UserError: there is no such model version, or it is of another kind.
        JobError: see ``load_graph``.
    """
    from shopvision import models

    if Path(graph).expanduser().is_dir():
        return load_graph(Path(graph).expanduser())
    if ":" not in graph:
        raise UserError(f"{graph} is no folder: name what `shopvision train graph` made, or NAME:TAG.")
    return load_graph(models.local_copy(models.find(graph)))


def names_file(**names: Sequence[str]) -> FileWriter:
    """Writes the names of rows of tables."""
    return lambda folder: (folder / NAMES_FILE).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")


def read_names(folder: Path, **sizes: int) -> dict[str, tuple[str, ...]]:
    """What ``names_file`` wrote.

    Args:
        folder: of a model version.
        sizes: how many names there are of each kind.

    Raises:
        JobError: the file is missing or damaged.
    """
    path = folder / NAMES_FILE
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        found = {name: tuple(names[name]) for name in sizes}
    except (OSError, ValueError, KeyError, TypeError):
        raise JobError(f"{path} cannot be read: import the model again.") from None
    for name, size in sizes.items():
        if len(found[name]) != size:
            raise JobError(f"{path} names {len(found[name]):,} {name}, the model has {size:,}: import it again.")
    return found
