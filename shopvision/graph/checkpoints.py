"""Files of published knowledge graph vectors (sunzeyeah/item-alignment, PKGM), and the names that belong to them.

Both layouts that are about are read: as the training wrote them (``ent_emb.weight``, ``rel_emb.weight``,
``proj_mat.weight``), and with ``embeddings.`` before each name, which fine-tuning there needed. Beside them lie
``entity2id.txt`` and ``relation2id.txt``: a name, a tab and a number a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from shopvision.errors import UserError
from shopvision.graph.card import save_graph
from shopvision.graph.vectors import GraphVectors
from shopvision.models.weights import load_strictly, read_torch_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from shopvision.models.card import ModelCard

PREFIX = "embeddings."
TABLES = {"ent_emb.weight": "entities", "rel_emb.weight": "relations", "proj_mat.weight": "matrix"}


def import_checkpoint(path: Path, folder: Path, *, entities: Path | None, relations: Path | None) -> ModelCard:
    """Turn a published file into a model version in ``folder``.

    Args:
        path: the file.
        folder: gets the files and the card.
        entities: ``entity2id.txt``.
        relations: ``relation2id.txt``.

    Raises:
        UserError: the file is no such checkpoint, or a file of names is missing or another one's.
        JobError: names the first tensor that is missing, left over or of another shape.
    """
    if entities is None or relations is None:
        missing = "entities=entity2id.txt" if entities is None else "relations=relation2id.txt"
        raise UserError(f"{path} does not hold the names of what has a vector: give `--option {missing}`.")
    tables = renamed(read_torch_tensors(path))
    sizes: dict[str, int] = {}
    for name in ("entities", "relations"):
        if name not in tables or tables[name].ndim != 2:
            raise UserError(f"{path} is no published knowledge graph: it has no table of {name}.")
        sizes[name] = len(tables[name])
    vectors = GraphVectors(**sizes, dimension=tables["entities"].shape[1])
    load_strictly(vectors, tables, str(path))
    with torch.no_grad():  # training there left them so after every epoch, and its score takes them so
        vectors.entities.copy_(functional.normalize(vectors.entities, dim=1))
    names = [read_names(file, sizes[name]) for name, file in (("entities", entities), ("relations", relations))]
    return save_graph(folder, vectors, *names, name="pkgm", source=f"pkgm:{path.name}")


def read_names(path: Path, size: int) -> list[str]:
    """The names of a file of ``name<tab>number``, in the order of their numbers.

    Raises:
        UserError: the file cannot be read, a line is broken, or the numbers are not those of a table of ``size`` rows.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(f"{path} cannot be read ({reason}): name the file of names beside the vectors.") from None
    names: dict[int, str] = {}
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, number = line.rstrip("\r").rpartition("\t")
        if not name or not number.strip().isdecimal() or int(number) in names:
            raise UserError(f"{path}: line {place}: write a name, a tab, and a number that no other name has.")
        names[int(number)] = name
    if sorted(names) != list(range(size)):
        raise UserError(f"{path} names {len(names):,} rows, the vectors have {size:,}: name the file beside them.")
    return [names[number] for number in range(size)]


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of either layout in the names of ``GraphVectors``; what is in neither keeps its name."""
    return {TABLES.get(name.removeprefix(PREFIX), name): tensor for name, tensor in tensors.items()}
