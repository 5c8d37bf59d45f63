"""What frozen encoders say of pictures and texts, computed once per machine and kept on disk.

One folder per encoder under the settings' cache: ``keys.bin`` (32 bytes a row: what was encoded), ``vectors.bin``
(float16, a row each) and, for pictures, ``seen.jsonl`` (address -> mark of the source and sha256 of the
bytes). Rows are only ever appended, so an interrupted run loses what was not written and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from shopvision.images import PictureDoor
from shopvision.images.outcome import Embedded, Failed, ImageTask, Unchanged
from shopvision.images.pipeline import EmbeddingPipeline

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from shopvision.images.pipeline import Encoder

KEY_BYTES = 32

OnProgress = Callable[[int, int], None]
"""Called with (done, all)."""


class FeatureStore:
    """Vectors of one encoder by key; open it with ``writing`` to add some."""

    def __init__(self, folder: Path, dimension: int) -> None:
        """Open ``folder``, made where it is missing; a row that was cut off is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.dimension = folder, dimension
        self._keys, self._vectors = folder / "keys.bin", folder / "vectors.bin"
        for file in (self._keys, self._vectors):
            file.touch()
        self._rows: dict[bytes, int] = {}
        self._read()

    def _read(self) -> None:
        row_bytes = 2 * self.dimension
        count = min(self._keys.stat().st_size // KEY_BYTES, self._vectors.stat().st_size // row_bytes)
        keys = self._keys.read_bytes()
        self._rows = {keys[row * KEY_BYTES : (row + 1) * KEY_BYTES]: row for row in range(count)}
        self._count = count

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other writers out, and see what they have written."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read()
            for file, size in ((self._keys, KEY_BYTES), (self._vectors, 2 * self.dimension)):
                with file.open("r+b") as opened:
                    opened.truncate(self._count * size)
            yield

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def append(self, keys: Sequence[bytes], vectors: NDArray[np.float16]) -> None:
        """Add rows; the vectors first, because a key stands for a whole row."""
        with self._vectors.open("ab") as file:
            file.write(np.ascontiguousarray(vectors, "<f2").tobytes())
        with self._keys.open("ab") as file:
            file.write(b"".join(keys))
        for key in keys:
            self._rows[key] = self._count
            self._count += 1

    def rows(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """Where the vectors of ``keys`` lie."""
        return np.fromiter((self._rows[key] for key in keys), np.int64, len(keys))

    def vectors(self) -> NDArray[np.float16]:
        """All vectors, (rows, dimension), mapped from disk."""
        if not self._count:
            return np.empty((0, self.dimension), np.float16)
        return np.memmap(self._vectors, "<f2", "r", shape=(self._count, self.dimension))


@dataclass(frozen=True)
class Features:
    """Unit vectors of n inputs.

    Attributes:
        vectors: (rows, d) float16, mapped from disk.
        rows: (n,) int64, the row of each input.
    """

    vectors: NDArray[np.float16]
    rows: NDArray[np.int64]

    def take(self, inputs: NDArray[np.integer]) -> torch.Tensor:
        """(len(inputs), d) float32."""
        return torch.from_numpy(self.vectors[self.rows[inputs]].astype(np.float32))


def digest(*parts: object) -> str:
    """Hexadecimal sha256 of JSON-able parts: the name of what depends on all of them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class SeenPictures:
    """Which bytes stood at an address when it was last looked at."""

    def __init__(self, folder: Path) -> None:
        """``folder``: of a feature store. Of a line that was cut off nothing is known: its picture is read again."""
        self._path = path = folder / "seen.jsonl"
        self._entries: dict[str, tuple[str, bytes]] = {}
        content = path.read_bytes() if path.is_file() else b""
        self._cut_off = bool(content) and not content.endswith(b"\n")
        for line in content.split(b"\n"):
            try:
                entry = json.loads(line)
                self._entries[entry["uri"]] = entry["fingerprint"], bytes.fromhex(entry["sha256"])
            except (ValueError, KeyError, TypeError):
                continue

    def get(self, uri: str) -> tuple[str, bytes] | None:
        """Mark of the source and sha256 of the bytes; None where nobody has looked."""
        return self._entries.get(uri)

    def note(self, entries: Sequence[tuple[str, str, bytes]]) -> None:
        """Remember (address, mark of the source, sha256 of the bytes)."""
        with self._path.open("a", encoding="utf-8") as file:
            if self._cut_off:
                file.write("\n")
                self._cut_off = False
            for uri, fingerprint, sha256 in entries:
                line = json.dumps({"uri": uri, "fingerprint": fingerprint, "sha256": sha256.hex()})
                file.write(line + "\n")


def picture_features(
    uris: Sequence[str], store: FeatureStore, encoder: Encoder, door: PictureDoor, on_progress: OnProgress
) -> tuple[Features, dict[int, str]]:
    """Features of the pictures at ``uris``; only what is new or changed is read and encoded.

    Returns:
        The features, and for each picture that gives none its position and the reason; its row is 0.

    Raises:
        TransientError: a source is away for the moment; what was encoded is kept.
        JobError: the model cannot run.
    """
    failures: dict[int, str] = {}
    keys: dict[int, bytes] = {}
    with store.writing():
        seen = SeenPictures(store.folder)
        tasks = []
        for position, uri in enumerate(uris):
            known = seen.get(uri)
            tasks.append(ImageTask(position, uri, *(known if known and known[1] in store else ())))
        pipeline = EmbeddingPipeline(encoder, door)
        done = 0
        for outcomes in pipeline.stream(tasks):
            fresh: dict[bytes, NDArray[np.float16]] = {}
            looked: list[tuple[str, str, bytes]] = []
            for outcome in outcomes:
                position, task = outcome.image_id, tasks[outcome.image_id]
                if isinstance(outcome, Failed):
                    failures[position] = outcome.message
                    continue
                if isinstance(outcome, Embedded):
                    keys[position] = outcome.sha256
                    if outcome.sha256 not in store:
                        fresh[outcome.sha256] = np.frombuffer(outcome.vector, "<f2")
                elif task.known_sha256 is not None:
                    keys[position] = task.known_sha256
                if not isinstance(outcome, Unchanged):
                    looked.append((task.uri, outcome.fingerprint, keys[position]))
            if fresh:
                store.append(list(fresh), np.stack(list(fresh.values())))
            seen.note(looked)
            done += len(outcomes)
            on_progress(done, len(tasks))
    rows = np.zeros(len(uris), np.int64)
    good = sorted(keys)
    rows[good] = store.rows([keys[position] for position in good])
    return Features(store.vectors(), rows), failures
