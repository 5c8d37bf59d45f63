"""The submission format of the product matching challenge: both items' vectors as text, and a threshold.

One JSON object a line: ``src_item_id``, ``src_item_emb``, ``tgt_item_id``, ``tgt_item_emb`` (vectors of at most 1024
numbers, written ``"[0.1,0.2]"``) and ``threshold``; the items are the same where the similarity of the vectors is the
threshold or more. A ``.zip`` holds that file and ``similarity.py`` with ``compute(emb1, emb2)``, which any program can
call; where a learnt head compares the vectors, it holds the head's weights. A model that scores pairs without a vector
for each item writes ``[1 - p]`` and ``[p]``, and the similarity ``second`` takes the latter.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.reports.row_writer import replacing

if TYPE_CHECKING:
    from shopvision.matching.scoring.head_similarity import HeadSimilarity

Vectors = NDArray[np.float32]

MAX_NUMBERS = 1024
ROUNDING = 1e-6  # of a similarity in float32, as a share of the largest one or of 1
RESULT_FILE, SIMILARITY_FILE = "result.jsonl", "similarity.py"
KEYS = ("src_item_id", "src_item_emb", "tgt_item_id", "tgt_item_emb", "threshold")

# compute() of similarity.py; the larger the more alike.
_COMPUTE = {
    "cosine": "return dot(emb1, emb2) / max((dot(emb1, emb1) * dot(emb2, emb2)) ** 0.5, 1e-12)",
    "inner_product": "return dot(emb1, emb2)",
    "l1": "return -sum(abs(a - b) for a, b in zip(emb1, emb2))",
    "l2": "return -(sum((a - b) ** 2 for a, b in zip(emb1, emb2)) ** 0.5)",
    "second": "return emb2[0]",
}
_PROGRAM = '''"""Similarity of two items of result.jsonl; they are the same where it is the row's threshold or more."""


def dot(emb1, emb2):
    return sum(a * b for a, b in zip(emb1, emb2))


def compute(emb1, emb2):
    {}
'''


@dataclass(frozen=True)
class SubmissionRow:
    """A pair: ids, vectors (d,) float32 of both sides, and the similarity from which on they are the same."""

    left: str
    right: str
    left_vector: Vectors
    right_vector: Vectors
    threshold: float


def similarities(name: str, left: Vectors, right: Vectors) -> NDArray[np.float64]:
    """Similarity of each row of one array (n, d) with the same row of the other.

    Args:
        name: cosine, inner_product, l1 or l2 (negative distances), or second.
        left: finite.
        right: as many rows; but for ``second`` also as many columns.

    Raises:
        UserError: unknown name, or vectors of different lengths.
    """
    require_similarity(name)
    if name != "second" and left.shape[1] != right.shape[1]:
        raise UserError(f"Vectors of {left.shape[1]} and {right.shape[1]} numbers have no {name} similarity.")
    u, v = left.astype(np.float64), right.astype(np.float64)
    result: NDArray[np.float64]
    match name:
        case "cosine":
            result = (u * v).sum(1) / np.maximum(np.sqrt((u * u).sum(1) * (v * v).sum(1)), 1e-12)
        case "inner_product":
            result = (u * v).sum(1)
        case "l1":
            result = -np.abs(u - v).sum(1)
        case "l2":
            result = -np.sqrt(((u - v) ** 2).sum(1))
        case _:
            result = v[:, 0]
    return result


def require_similarity(name: str) -> None:
    """Raise ``UserError`` where there is no such similarity."""
    if name not in _COMPUTE:
        raise UserError(f"There is no similarity '{name}': choose {', '.join(_COMPUTE)}.")


def require_submission_name(path: Path) -> None:
    """Raise ``UserError`` where ``path`` cannot be that of a submission."""
    if path.suffix not in {".jsonl", ".zip"}:
        raise UserError(f"{path}: a submission is named .jsonl or .zip.")


def threshold_between(values: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The similarity that tells pairs as a model told them: above all that are different, below all that are the same.

    A model computes in float32, so pairs that are nearer to each other than that tells may be told the other way round.

    Args:
        values: (n,) similarities, at least one.
        same: (n,) what the model says.

    Raises:
        UserError: some pair that is the same is less alike than one that is not.
    """
    lowest = float(values[same].min()) if same.any() else np.inf
    highest = float(values[~same].max()) if not same.all() else -np.inf
    if highest >= lowest:
        if highest - lowest > ROUNDING * max(1.0, float(np.abs(values).max())):
            raise UserError("The model does not decide by this similarity alone: use another version of it.")
        return lowest
    if highest == -np.inf:
        return lowest
    if lowest == np.inf:
        return float(np.nextafter(highest, np.inf))
    middle = (lowest + highest) / 2
    return middle if middle > highest else lowest


def write_submission(path: Path, rows: Iterable[SubmissionRow], similarity: str | HeadSimilarity) -> int:
    """Write a submission; returns how many pairs it has.

    Args:
        path: ``.jsonl``, or ``.zip`` with ``similarity.py`` beside the pairs.
        rows: as they come.
        similarity: a name, see ``similarities``, or a model's head.

    Raises:
        UserError: other suffix, unknown similarity, a head without the program that holds it, a vector that is too long
            or not finite, or the file cannot be written.
    """
    require_submission_name(path)
    if isinstance(similarity, str):
        require_similarity(similarity)
        program = _PROGRAM.format(_COMPUTE[similarity])
    elif path.suffix == ".zip":
        program = similarity.program()
    else:
        raise UserError(f"{path}: the model compares vectors by weights of its own: name a .zip, which holds them.")
    count = 0
    with replacing(path) as part, _result_file(part, program if path.suffix == ".zip" else None) as file:
        for row in rows:
            file.write(_line(row))
            count += 1
    return count


def read_submission(path: Path) -> Iterator[SubmissionRow]:
    """The pairs of a ``.jsonl`` or ``.zip``; nothing in it is run.

    Raises:
        UserError: the file is missing or no archive; or a line is broken, which is named.
    """
    try:
        with path.open("rb") as raw, _opened(path, raw) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield _row(line)
                    except ValueError as error:
                        raise UserError(f"{path}: line {number}: {error}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Check the path.") from None


@contextmanager
def _result_file(part: Path, program: str | None) -> Iterator[IO[bytes]]:
    if program is None:
        with part.open("wb") as file:
            yield file
        return
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(SIMILARITY_FILE, program)
        with archive.open(RESULT_FILE, "w", force_zip64=True) as file:
            yield file


@contextmanager
def _opened(path: Path, raw: IO[bytes]) -> Iterator[IO[bytes]]:
    if path.suffix != ".zip":
        yield raw
        return
    try:
        with zipfile.ZipFile(raw) as archive:
            names = [name for name in archive.namelist() if name.endswith(".jsonl")]
            if len(names) != 1:
                raise UserError(f"{path} holds {len(names)} .jsonl files: a submission has one.")
            with archive.open(names[0]) as file:
                yield file
    except zipfile.BadZipFile:
        raise UserError(f"{path} is no zip archive, or a damaged one. Fetch it again.") from None


def _line(row: SubmissionRow) -> bytes:
    values = (row.left, _text(row.left, row.left_vector), row.right, _text(row.right, row.right_vector), row.threshold)
    return json.dumps(dict(zip(KEYS, values, strict=True)), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _text(item_id: str, vector: Vectors) -> str:
    if not 0 < len(vector) <= MAX_NUMBERS:
        raise UserError(
            f"The vector of item {item_id} has {len(vector)} numbers: a submission takes 1 to {MAX_NUMBERS}."
        )
    if not np.isfinite(vector).all():
        raise UserError(f"The vector of item {item_id} is not finite: compute it again.")
    return "[" + ",".join(f"{number:.9g}" for number in vector.tolist()) + "]"  # 9 digits tell float32 apart


def _row(line: bytes) -> SubmissionRow:
    try:
        record = json.loads(line)
    except ValueError:
        raise ValueError("not JSON; write one object a line") from None
    missing = [key for key in KEYS if not isinstance(record, dict) or key not in record]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    left, left_vector, right, right_vector, threshold = (record[key] for key in KEYS)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not np.isfinite(threshold):
        raise ValueError(f"threshold is {threshold!r}; write a number")
    return SubmissionRow(
        _id(KEYS[0], left), _id(KEYS[2], right), _vector(KEYS[1], left_vector), _vector(KEYS[3], right_vector),
        float(threshold),
    )  # fmt: skip


def _id(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
        raise ValueError(f"{name} is {json.dumps(value)[:40]}; write the item's id as text")
    return str(value)


def _vector(name: str, text: object) -> Vectors:
    wrong = ValueError(f'{name} is {str(text)[:40]!r}; write numbers as "[0.1,0.2]", {MAX_NUMBERS} at most')
    try:
        values = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        raise wrong from None
    if not isinstance(values, list) or not 0 < len(values) <= MAX_NUMBERS or {*map(type, values)} - {int, float}:
        raise wrong
    vector = np.array(values, np.float64).astype(np.float32)
    if not np.isfinite(vector).all():
        raise wrong
    return vector
