"""What a generation is made of, written last into its folder; and the small object that says which one is current.

::

    indexes/<name>/current                                         Current, moved by a conditional write
    indexes/<name>/generations/<model_tag>/<utc>-<short id>/
        base.faiss  ids.arrow  [vector_rows.npy]                   a full generation
        delta.faiss ids.arrow tombstones.npy                       a delta on top of the files of earlier generations
        manifest.json                                              Manifest

A generation is never rewritten. A delta generation names the files of the generations it builds on, so that what is
uploaded follows what changed.
"""

from __future__ import annotations

import secrets
from collections import Counter
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

IndexType = Literal["exact", "hnsw", "ivfpq"]
FormatVersion = Literal[1, 2, 3]

# 1: an ids file without the column region, every row a whole picture. 2: nothing is said of precisions. Both are read,
# and no longer written.
WRITTEN_FORMAT: FormatVersion = 3


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredFile(_Record):
    """An immutable object of the store and how to recognise it."""

    key: str
    sha256: str
    bytes: int


class Segment(_Record):
    """Vectors of one generation, and the pictures (or regions of pictures) that have them.

    Attributes:
        path: the generation that wrote it.
        rows: how many vectors of pictures and regions.
        vectors: a FAISS index; its ids are row numbers.
        ids: Arrow file with the columns image_id (int64), region (int16; 0 is the whole picture), item_id, category and
            uri (strings). A picture has several rows where several of its regions have vectors.
        vector_rows: int32, the row of ``vectors`` for each row of ``ids``, where some are equal; without it row ``i``
            belongs to row ``i``.
        tombstones: int64 ids of pictures of which earlier segments must no longer answer anything (replaced or gone);
            none in a base.
        precisions: rows by what their vectors were computed in; ``unknown`` of those that were made before it was
            noted, and nothing at all in segments of former formats.
    """

    path: str
    rows: int
    vectors: StoredFile
    ids: StoredFile
    vector_rows: StoredFile | None = None
    tombstones: StoredFile | None = None
    precisions: dict[str, int] = {}

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Every file of this segment."""
        optional = (self.vector_rows, self.tombstones)
        return (self.vectors, self.ids, *(file for file in optional if file is not None))


class Counts(_Record):
    """In vectors: ``live`` are found by searches; ``tombstones`` are those of base and deltas that are hidden."""

    live: int
    base: int
    delta: int
    tombstones: int


class Manifest(_Record):
    """A whole generation.

    Attributes:
        model: ``name:tag`` of the model version whose vectors these are; queries must be encoded with it.
        search_effort: ``efSearch`` (hnsw) or ``nprobe`` (ivfpq) at which ``recall`` was reached; 0 for exact.
        recall: recall@10 of the base against exact search on a seeded sample.
        parent: the generation that was current when this one was published; rollback goes there.
    """

    format_version: FormatVersion = WRITTEN_FORMAT
    name: str
    path: str
    kind: Literal["full", "delta"]
    model: str
    model_version_id: int
    dimension: int
    index_type: IndexType
    search_effort: int
    recall: float
    counts: Counts
    base: Segment
    deltas: tuple[Segment, ...] = ()
    parent: str | None
    created_at: datetime

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Oldest first."""
        return (self.base, *self.deltas)

    @property
    def precisions(self) -> dict[str, int]:
        """Rows of all segments, hidden ones too, by what their vectors were computed in."""
        total: Counter[str] = Counter()
        for segment in self.segments:
            total.update(segment.precisions)
        return dict(total)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """Every file a reader needs, those of earlier generations included."""
        return tuple(file for segment in self.segments for file in segment.files)

    @property
    def own_files(self) -> tuple[StoredFile, ...]:
        """The files this generation itself brought."""
        return tuple(file for file in self.files if file.key.startswith(f"{self.path}/"))

    def encoded(self) -> bytes:
        """The content of ``manifest.json``."""
        return self.model_dump_json(indent=1).encode()


class Current(_Record):
    """Content of ``indexes/<name>/current``."""

    generation: str
    manifest_sha256: str
    previous: str | None


def manifest_key(path: str) -> str:
    """Key of a generation's manifest."""
    return f"{path}/manifest.json"


def current_key(name: str) -> str:
    """Key of the object that says which generation is current."""
    return f"indexes/{name}/current"


def generations_prefix(name: str) -> str:
    """Prefix of every generation of an index."""
    return f"indexes/{name}/generations/"


def model_folder(spec: str) -> str:
    """``name:tag`` as one path part that no other spec shares."""
    name, _, tag = spec.partition(":")
    return f"{quote(name, safe='')}@{quote(tag, safe='')}"


def new_path(name: str, spec: str) -> str:
    """A folder for a new generation, sorting by time."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{generations_prefix(name)}{model_folder(spec)}/{moment}-{secrets.token_hex(4)}"
