"""How well a recall model's texts find their pictures: on a shop's own data, and by the published protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import RESAMPLES, Measured
from shopvision.evaluation.report import EvaluationReport, Part
from shopvision.evaluation.text_retrieval import TextRetrieval, retrieve_pictures
from shopvision.images.encoded import EncodedPictures, encode_pictures
from shopvision.selection.recall.data import RecallData, right_pictures
from shopvision.selection.recall.measure import measure_retrieval
from shopvision.selection.recall.poi_rows import PoiRows, pictures_of_places
from shopvision.selection.recall.predict import RecallModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images import PictureDoor
    from shopvision.training.features import OnProgress

KS = (1, 5, 10)


@dataclass(frozen=True, eq=False)
class Searched:
    """What was compared with what.

    Attributes:
        texts: n texts.
        text_vectors: (n, d) float32.
        uris: addresses of m pictures.
        vectors: (m, d) float32.
        right: for each text the rows of its pictures.
        found: how well each text finds them.
    """

    texts: Sequence[str]
    text_vectors: NDArray[np.float32]
    uris: Sequence[str]
    vectors: NDArray[np.float32]
    right: Sequence[Sequence[int]]
    found: TextRetrieval


@dataclass(frozen=True, kw_only=True)
class RecallEvaluation:
    """Every metric of one model.

    =============================  ====================================================================================
    metric                         one value per text
    =============================  ====================================================================================
    ``hit_rate_K``                 any right picture among the K nearest (the published "recall@K")
    ``recall_K``                   share of the right pictures among the K nearest
    ``mrr``                        1 / rank of the nearest right picture
    =============================  ====================================================================================

    Attributes:
        model: ``name:tag``.
        data: what was measured on.
        metrics: name -> mean, interval over texts, random expectation.
        counts: how many texts, pictures, and whatever else matters.
        searched: what the metrics are of.
        parts: the same counted otherwise.
        notes: sentences that a reader of the numbers should know.
    """

    model: str
    data: str
    metrics: dict[str, Measured]
    counts: dict[str, int]
    searched: Searched
    parts: Sequence[Part] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def summary(self) -> EvaluationReport:
        """In the shape of every evaluation."""
        return EvaluationReport(
            name=self.model,
            data=self.data,
            counts=self.counts,
            metrics=self.metrics,
            parts=self.parts,
            notes=self.notes,
        )


def evaluate_recall(
    folder: Path,
    data: RecallData,
    door: PictureDoor,
    *,
    device: str | None = None,
    resamples: int = RESAMPLES,
    on_progress: OnProgress = lambda *_: None,
) -> RecallEvaluation:
    """A model version on texts and pictures that it was not trained on.

    Args:
        folder: of the model version.
        data: each text looks for its pictures among those of all.
        door: that the pictures come through.
        device: by default the GPU where there is one.
        resamples: of the bootstrap; 0 leaves intervals out.
        on_progress: called with (pictures done, all).

    Raises:
        UserError: no such model, or not one picture can be read.
        TransientError: a source of pictures is away.
    """
    model = RecallModel(folder, device=device)
    uris = data.pictures()
    encoded = _encoded(model, uris, door, on_progress)
    good = [row for row in range(len(uris)) if row not in encoded.failures]
    left = data.readable({uris[row] for row in good})
    right = right_pictures(left, [uris[row] for row in good], encoded.contents[good].tolist())
    searched = _search(model, [one.text for one in left.examples], [uris[row] for row in good], encoded, right)
    return RecallEvaluation(
        model=model.card.spec,
        data=f"texts and pictures, content sha256 {left.fingerprint()}",
        metrics=measure_retrieval(searched.found, KS, resamples=resamples),
        searched=searched,
        counts={
            "texts": len(left.examples),
            "pictures searched among": len(good),
            "unreadable pictures left out": len(encoded.failures),
            "texts without a readable picture left out": len(data.examples) - len(left.examples),
        },
        notes=_texts_cut(model, searched.texts),
    )


def evaluate_places(
    folder: Path,
    places: PoiRows,
    pictures: Path,
    door: PictureDoor,
    *,
    device: str | None = None,
    resamples: int = RESAMPLES,
    on_progress: OnProgress = lambda *_: None,
) -> RecallEvaluation:
    """The published protocol: each place's bare name looks for any of its pictures among those of all places.

    As published, only pictures under the place's own id count, although several places share names and pictures; a part
    of the report counts them as right.

    Args:
        folder: of the model version.
        places: of the published file.
        pictures: the folder with ``<poi_id>_<anything>.jpg``.
        door: that the pictures come through.
        device: by default the GPU where there is one.
        resamples: of the bootstrap; 0 leaves intervals out.
        on_progress: called with (pictures done, all).

    Raises:
        UserError: no such model or folder, or not one picture of these places can be read.
    """
    names = list(places.names())
    by_id = pictures_of_places(pictures)
    files = [(poi_id, path) for poi_id, paths in by_id.items() for path in paths]
    if not any(poi_id in by_id for poi_id, _ in names):
        raise UserError(f"{pictures} has no picture of the {len(names)} places: file names begin with the place's id.")
    model = RecallModel(folder, device=device)
    encoded = _encoded(model, [path.resolve().as_uri() for _, path in files], door, on_progress)
    good = [row for row in range(len(files)) if row not in encoded.failures]
    owners = [files[row][0] for row in good]
    strict = _rows_by_owner(owners)
    right = [strict.get(poi_id, []) for poi_id, _ in names]
    readable = [files[row][1].resolve().as_uri() for row in good]
    searched = _search(model, [name for _, name in names], readable, encoded, right)
    shared = _shared(places, names, strict, encoded.contents[good])
    as_shared = retrieve_pictures(searched.text_vectors, searched.vectors, shared, KS)
    same_bytes = len(good) - len(set(encoded.contents[good].tolist()))
    return RecallEvaluation(
        model=model.card.spec,
        data=f"{len(names)} places, {len(files)} pictures of {pictures.name}",
        metrics=measure_retrieval(searched.found, KS, resamples=resamples),
        searched=searched,
        parts=[
            Part("shared names and pictures count as right", "", measure_retrieval(as_shared, KS, resamples=resamples))
        ],
        counts={
            "places": len(names),
            "pictures searched among": len(good),
            "unreadable pictures left out": len(encoded.failures),
            "places without a readable picture, which count as misses": sum(not rows for rows in right),
            "names of several places": len(places.shared_names()),
            "addresses under several places": len(places.shared_urls()),
            "pictures of the same bytes as another": same_bytes,
        },
        notes=_texts_cut(model, searched.texts),
    )


def _encoded(model: RecallModel, uris: Sequence[str], door: PictureDoor, on_progress: OnProgress) -> EncodedPictures:
    encoded = encode_pictures(uris, model, door, dimension=model.dimension, on_progress=on_progress)
    if len(encoded.failures) == len(uris):
        reason = next(iter(encoded.failures.values()))
        raise UserError(f"Not one of {len(uris):,} pictures can be read ({reason}): check the picture folder.")
    return encoded


def _search(
    model: RecallModel,
    texts: Sequence[str],
    uris: Sequence[str],
    encoded: EncodedPictures,
    right: Sequence[Sequence[int]],
) -> Searched:
    """Let texts look among the pictures that could be read, which are at ``uris``."""
    vectors = np.delete(encoded.vectors, list(encoded.failures), axis=0)
    text_vectors = model.encode_texts(texts)
    return Searched(texts, text_vectors, uris, vectors, right, retrieve_pictures(text_vectors, vectors, right, KS))


def _rows_by_owner(owners: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, owner in enumerate(owners):
        rows.setdefault(owner, []).append(row)
    return rows


def _shared(
    places: PoiRows, names: Sequence[tuple[str, str]], rows_of: dict[str, list[int]], contents: NDArray[np.int64]
) -> list[list[int]]:
    """For each place the pictures under any place of its name, and all of the same bytes."""
    same_name = places.shared_names()
    same_bytes = _rows_by_owner([str(content) for content in contents.tolist()])
    shared = []
    for poi_id, name in names:
        own = [row for one in same_name.get(name, (poi_id,)) for row in rows_of.get(one, [])]
        shared.append(sorted({twin for row in own for twin in same_bytes[str(contents[row])]}))
    return shared


def _texts_cut(model: RecallModel, texts: Sequence[str]) -> tuple[str, ...]:
    """What is said where texts are longer than the model reads."""
    longer = model.longer_than_read(texts)
    if not longer:
        return ()
    return (f"{longer:,} of {len(texts):,} texts are longer than the model reads; the rest of them was cut off.",)
