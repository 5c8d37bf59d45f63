"""Generations on local disk, built and gated, before anybody else can see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from shopvision.database import snapshot
from shopvision.index.build import build, choose_type, exact_index, require_memory
from shopvision.index.cache import FileCache
from shopvision.index.changes import Changes, read_changes
from shopvision.index.distinct import distinct_vectors
from shopvision.index.faiss_library import faiss
from shopvision.index.gate import GenerationRefused, require_count, require_recall, require_sound_vectors
from shopvision.index.ids import Ids, image_ids, live_masks, read_ids
from shopvision.index.manifest import WRITTEN_FORMAT, Counts, Manifest, Segment, StoredFile
from shopvision.index.precisions import require_agreement
from shopvision.index.source import count_vectors, spool
from shopvision.storage import sha256_of

# Delta rows and hidden rows together, as a share of the base: beyond it searches pay more for the delta than one build
# costs. A replaced picture counts twice, so an eighth of the catalogue may change.
COMPACT_RATIO = 0.25
# Readers fetch three files per delta: beyond so many deltas the next one takes their pictures over and replaces them.
MAX_DELTAS = 8


class FullBuildNeededError(Exception):
    """A delta on the current generation would be wrong or too large."""


@dataclass(frozen=True)
class Target:
    """What is being published: the index, the new generation's folder, and the model version."""

    name: str
    path: str
    model_version_id: int
    model: str


@dataclass(frozen=True)
class Draft:
    """A generation that has passed the gate.

    Attributes:
        manifest: ``None`` where what changed leaves nothing to write (pictures that came and went).
        files: own file -> where it lies on local disk.
        changes: the notes it answers.
    """

    manifest: Manifest | None
    files: dict[StoredFile, Path]
    changes: Changes


def full_draft(target: Target, dimension: int | None, parent: str | None, folder: Path) -> Draft:
    """A generation of everything Postgres holds.

    Args:
        dimension: what the vectors must have; ``None`` takes the first one's.
        parent: the generation that is current now.
        folder: empty working folder.

    Raises:
        GenerationRefused: the gate said no.
        JobError: not enough memory, no vectors, vectors of mixed dimensions.
    """
    with snapshot() as connection:
        changes = read_changes(connection, target.model_version_id)
        in_postgres = count_vectors(connection, target.model_version_id)
        spooled = spool(connection, target.model_version_id, folder, dimension)
    require_agreement(target.model, target.model_version_id, spooled.precisions)
    vectors = spooled.vectors
    rows, dimension = vectors.shape
    require_count(rows, in_postgres)
    require_sound_vectors(vectors)
    vectors, vector_rows = distinct_vectors(vectors, folder)
    kind = choose_type(len(vectors))
    require_memory(kind, len(vectors), dimension)
    index = build(kind, vectors)
    effort, recall = require_recall(index, kind, vectors)
    faiss.write_index(index, str(folder / "base.faiss"))
    if vector_rows is not None:
        np.save(folder / "vector_rows.npy", vector_rows)
    segment, files = _segment(
        target.path, rows, spooled.precisions, folder, vectors="base.faiss", vector_rows="vector_rows.npy"
    )
    manifest = Manifest(
        name=target.name,
        path=target.path,
        kind="full",
        model=target.model,
        model_version_id=target.model_version_id,
        dimension=dimension,
        index_type=kind,
        search_effort=effort,
        recall=recall,
        counts=Counts(live=rows, base=rows, delta=0, tombstones=0),
        base=segment,
        parent=parent,
        created_at=datetime.now(UTC),
    )
    return Draft(manifest, files, changes)


def delta_draft(target: Target, current: Manifest, cache: FileCache, folder: Path) -> Draft | None:
    """What changed since ``current``, on top of its files; ``None`` where nothing was noted.

    Raises:
        FullBuildNeededError: too much changed, or the notes do not explain what Postgres holds.
        GenerationRefused: the gate said no.
    """
    with snapshot() as connection:
        changes = read_changes(connection, target.model_version_id)
        in_postgres = count_vectors(connection, target.model_version_id)
        if len(changes.image_ids) == 0:
            _require_explained(current.counts.live, in_postgres)
            return None
        before = _live_ids(current.segments, cache)
        _require_small(current, _changed_rows(before, changes.image_ids, in_postgres))
        kept, wanted = _below(current, changes.image_ids, cache)
        if kept != current.segments:
            before = _live_ids(kept, cache)
        spooled = spool(connection, target.model_version_id, folder, current.dimension, wanted)
    vectors = spooled.vectors
    hidden = before[np.isin(before, wanted)]
    tombstones = np.unique(hidden)
    _require_explained(len(before) - len(hidden) + len(vectors), in_postgres)
    if len(vectors) == 0 and len(tombstones) == 0:
        return Draft(None, {}, changes)
    require_sound_vectors(vectors)
    index = exact_index(current.dimension)
    index.add(vectors.astype(np.float32))
    require_recall(index, "exact", vectors)
    faiss.write_index(index, str(folder / "delta.faiss"))
    np.save(folder / "tombstones.npy", tombstones)
    segment, files = _segment(
        target.path, len(vectors), spooled.precisions, folder, vectors="delta.faiss", tombstones="tombstones.npy"
    )
    deltas = (*kept[1:], segment)
    rows = sum(delta.rows for delta in deltas)
    counts = Counts(
        live=in_postgres, base=current.base.rows, delta=rows, tombstones=current.base.rows + rows - in_postgres
    )
    manifest = current.model_copy(
        update={
            "format_version": WRITTEN_FORMAT,
            "path": target.path,
            "kind": "delta",
            "counts": counts,
            "deltas": deltas,
            "parent": current.path,
            "created_at": datetime.now(UTC),
        }
    )
    try:
        require_agreement(target.model, target.model_version_id, manifest.precisions)
    except GenerationRefused as reason:
        # Hidden rows are counted here; a full build asks only of those that it holds.
        raise FullBuildNeededError(str(reason)) from None
    return Draft(manifest, files, changes)


def _changed_rows(live: Ids, changed: Ids, in_postgres: int) -> int:
    """How many rows a delta of these pictures brings, or hides where that is more.

    A picture has as many as it has vectors. Those that did not change are as many as before, so the others that
    Postgres holds are the changed ones.
    """
    hidden = int(np.isin(live, changed).sum())
    return max(hidden, in_postgres - (len(live) - hidden))


def _require_small(current: Manifest, changed_rows: int) -> None:
    if current.counts.delta + current.counts.tombstones + changed_rows > COMPACT_RATIO * current.counts.base:
        raise FullBuildNeededError(f"{changed_rows} vectors changed on a base of {current.counts.base}")


def _require_explained(expected: int, in_postgres: int) -> None:
    if expected != in_postgres:
        raise FullBuildNeededError(f"the noted changes lead to {expected} vectors, Postgres holds {in_postgres}")


def _below(current: Manifest, changed: Ids, cache: FileCache) -> tuple[tuple[Segment, ...], Ids]:
    """The segments a new delta lies on, and the pictures it must speak for."""
    if len(current.deltas) < MAX_DELTAS:
        return current.segments, changed
    told = [changed]
    for delta in current.deltas:
        told += [image_ids(read_ids(cache.fetch(delta.ids))), _tombstones(delta, cache)]
    return (current.base,), np.unique(np.concatenate(told))


def _tombstones(segment: Segment, cache: FileCache) -> Ids:
    if segment.tombstones is None:
        return np.empty(0, np.int64)
    ids: Ids = np.load(cache.fetch(segment.tombstones))
    return ids


def _live_ids(segments: tuple[Segment, ...], cache: FileCache) -> Ids:
    ids = [image_ids(read_ids(cache.fetch(segment.ids))) for segment in segments]
    masks = live_masks([(one, _tombstones(segment, cache)) for one, segment in zip(ids, segments, strict=True)])
    return np.concatenate([one[mask] for one, mask in zip(ids, masks, strict=True)])


def _segment(
    path: str, rows: int, precisions: dict[str, int], folder: Path, **names: str
) -> tuple[Segment, dict[StoredFile, Path]]:
    """The files of ``folder`` as a segment, by the name of its field; those that were not written are left out."""
    written = {field: name for field, name in {"ids": "ids.arrow", **names}.items() if (folder / name).exists()}
    stored = {
        field: StoredFile(key=f"{path}/{name}", sha256=sha256_of(folder / name), bytes=(folder / name).stat().st_size)
        for field, name in written.items()
    }
    files = {stored[field]: folder / name for field, name in written.items()}
    return Segment.model_validate({"path": path, "rows": rows, "precisions": precisions, **stored}), files
