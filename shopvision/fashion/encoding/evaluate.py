"""How well an encoder finds products: anchors that it has not seen, among the pictures of their and other products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from shopvision.encoders.image_encoder import ImageEncoder
from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import RESAMPLES
from shopvision.evaluation.report import EvaluationReport, Part
from shopvision.fashion.composition.predict import ComposedEncoder
from shopvision.fashion.encoding.measure import Measures, measure_difference, measure_search
from shopvision.fashion.encoding.pairs import PairData
from shopvision.fashion.encoding.searching import Search
from shopvision.fashion.encoding.views import View, read_views
from shopvision.models.kinds import find_kind
from shopvision.models.version_folder import read_card

if TYPE_CHECKING:
    from shopvision.evaluation.product_retrieval import Retrieved, Vectors
    from shopvision.images import Box, PictureDoor
    from shopvision.training.features import OnProgress

Encoder: TypeAlias = ImageEncoder | ComposedEncoder


@dataclass(frozen=True, kw_only=True)
class EncoderEvaluation:
    """What was measured.

    Attributes:
        model: ``name:tag``.
        metrics: ``recall_K`` and ``map``, means over queries with intervals over products.
        categories: category -> the same of its queries.
        products: that were asked for.
        queries: how many.
        gallery: pictures that were searched among.
        unreadable: pictures left out because they could not be read, or have no vector.
        data_fingerprint: sha256 of the pairs and further products.
        against: ``name:tag`` of the encoder that it is compared with; None without one.
        other: what that one finds.
        difference: by how much this one finds more, with the interval of the paired difference.
        notes: what a reader of the numbers should know.
    """

    model: str
    metrics: Measures
    categories: dict[str, Measures]
    products: int
    queries: int
    gallery: int
    unreadable: int
    data_fingerprint: str
    against: str | None = None
    other: Measures = field(default_factory=dict)
    difference: Measures = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def summary(self) -> EvaluationReport:
        """In the shape of every evaluation."""
        parts = [
            Part("category", name or "none", metrics, shown=("recall_1",)) for name, metrics in self.categories.items()
        ]
        if self.against is not None:
            parts = [
                Part("baseline", self.against, self.other),
                Part("ahead of", self.against, self.difference),
                *parts,
            ]
        return EvaluationReport(
            name=self.model,
            data=f"pairs, content sha256 {self.data_fingerprint}",
            counts={
                "products": self.products,
                "queries": self.queries,
                "pictures searched among": self.gallery,
                "unreadable pictures left out": self.unreadable,
            },
            metrics=self.metrics,
            parts=parts,
            notes=self.notes,
        )


def evaluate_encoder(
    folder: Path,
    data: PairData,
    door: PictureDoor,
    *,
    against: Path | None = None,
    device: str | None = None,
    resamples: int = RESAMPLES,
    on_progress: OnProgress = lambda *_: None,
) -> EncoderEvaluation:
    """A model version on pairs, with the preprocessing that it serves with.

    Args:
        folder: of an image encoder or a composed one.
        data: pairs that it was not trained on, and further products to search among.
        door: that the pictures come through.
        against: folder of another version, to be measured on the same.
        device: by default the GPU where there is one.
        resamples: of the bootstrap; 0 leaves intervals out.
        on_progress: called with (pictures done, all).

    Raises:
        UserError: no such kind of model, nothing to measure, or nothing is left of what can be read.
        TransientError: a source of pictures is away for the moment.
    """
    if not data.measured:
        raise UserError("There is no pair of two pictures to measure on: choose another file.")
    folders = [folder] if against is None else [folder, against]
    encoders = [load_encoder(one, device=device) for one in folders]
    search = Search.of(data)
    total, before = len(encoders) * len(search.views), 0
    encoded, bad = [], set[int]()
    for encoder in encoders:
        vectors, failed, contents = _encode(encoder, search, door, partial(_told, on_progress, before, total))
        encoded.append(vectors)
        bad |= failed
        before += len(search.views)
    good = {view: row for row, view in enumerate(search.views) if row not in bad}
    kept = data.readable(good)
    if not kept.measured:
        raise UserError("Not one pair of two pictures can be read: check the picture folder.")
    search = Search.of(kept, {view: contents[row] for view, row in good.items()})
    rows = np.array([good[view] for view in search.views])
    found = [search.retrieve(vectors[rows]) for vectors in encoded]
    evaluation = EncoderEvaluation(
        model=read_card(folder).spec,
        metrics=measure_search(search, found[0], resamples=resamples),
        categories=_by_category(search, found[0], resamples),
        products=len(np.unique(search.products)),
        queries=len(search.queries),
        gallery=len(search.gallery),
        unreadable=len(bad),
        data_fingerprint=kept.fingerprint(),
        notes=_notes(encoders, search.views),
    )
    if against is None:
        return evaluation
    return replace(
        evaluation,
        against=read_card(against).spec,
        other=measure_search(search, found[1], resamples=resamples),
        difference=measure_difference(search, found[0], found[1], resamples=resamples),
    )


def _told(on_progress: OnProgress, before: int, total: int, done: int) -> None:
    on_progress(before + done, total)


def load_encoder(folder: Path, *, device: str | None = None) -> Encoder:
    """The encoder of a model version.

    Raises:
        UserError: it is of a kind that makes no vectors of pictures, or there is no such device.
        JobError: the weights do not fit the card.
    """
    card = read_card(folder)
    loaded = find_kind(card.kind).load(folder, device=device)
    if not isinstance(loaded, (ImageEncoder, ComposedEncoder)):
        raise UserError(f"{card.spec} is a {card.kind}: name an image encoder or a composed encoder.")
    return loaded


def _encode(
    encoder: Encoder, search: Search, door: PictureDoor, on_done: Callable[[int], None]
) -> tuple[Vectors, set[int], list[int]]:
    """(views, d) vectors of a search's views; rows that have none; for each view the number of its content."""
    views = [_cropped(encoder, view) for view in search.views]
    labels = _labels(search)
    vectors = np.zeros((len(views), encoder.dimension), np.float32)
    numbers: dict[tuple[bytes, Box | None], int] = {}
    contents, failed, done = [0] * len(views), set[int](), 0
    reading = read_views(views, door, encoder.preprocessing)
    while batch := list(islice(reading, encoder.batch_size)):
        rows, pixels = [], []
        for read in batch:
            contents[read.place] = numbers.setdefault((read.sha256, views[read.place].box), len(numbers))
            if isinstance(read.pixels, np.ndarray):
                rows.append(read.place)
                pixels.append(read.pixels)
            else:
                failed.add(read.place)
        if rows:
            stacked = np.stack(pixels)
            if isinstance(encoder, ComposedEncoder):
                vectors[rows] = encoder.encode(stacked, [labels[row] for row in rows])
            else:
                vectors[rows] = encoder.encode(stacked)
        done += len(batch)
        on_done(done)
    # NaN compares false.
    failed |= set(np.flatnonzero(~(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 0.01)).tolist())
    return vectors, failed, contents


def _cropped(encoder: Encoder, view: View) -> View:
    """A view as an encoder cuts it out: composed ones leave a margin around a box."""
    if view.box is None or not isinstance(encoder, ComposedEncoder):
        return view
    left, top, right, bottom = view.box
    wide, high = (encoder.policy.margin * side for side in (right - left, bottom - top))
    return View(view.uri, (left - wide, top - high, right + wide, bottom + high))


def _labels(search: Search) -> dict[int, str]:
    """Row of a view -> its category, by which a composed encoder chooses among its own."""
    rows = np.concatenate([search.queries, search.gallery]).tolist()
    return dict(zip(rows, [*search.categories.tolist(), *search.gallery_categories.tolist()], strict=True))


def _by_category(search: Search, found: Retrieved, resamples: int) -> dict[str, Measures]:
    return {
        str(name): measure_search(search, found, resamples=resamples, queries=search.categories == name)
        for name in np.unique(search.categories)
    }


def _notes(encoders: Sequence[Encoder], views: Sequence[View]) -> tuple[str, ...]:
    if any(isinstance(encoder, ComposedEncoder) for encoder in encoders) and any(view.box is None for view in views):
        return ("Pictures without a box are embedded whole: `evaluate detector` measures who would cut them.",)
    return ()
