"""Scoring pairs of items without any queue or database.

A pair's probability does not depend on the other pairs of its batch, but for the rounding of half precision.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shopvision.encoders.compiled.module import CompiledModule
from shopvision.encoders.devices import choose_device, choose_dtype
from shopvision.encoders.image_encoder import PART, ImageEncoder
from shopvision.encoders.image_networks import image_dimension
from shopvision.errors import UserError
from shopvision.evaluation.calibration import apply, verdicts
from shopvision.images import PictureDoor
from shopvision.items.item import Item, pair_key
from shopvision.matching.families._network import ItemNetwork, ItemReader, PairNetwork, PairReader
from shopvision.matching.families.card import load_matcher
from shopvision.matching.scoring.inference import OneTowerRunner, TwoTowerRunner
from shopvision.matching.scoring.item_pictures import Picture, vectors_in_batches
from shopvision.matching.scoring.tunable_tokens import TunableTokens
from shopvision.models.part import part_of
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from shopvision.encoders.tuning.part import TunablePart
    from shopvision.images.preprocessing import Preprocessing
    from shopvision.matching.scoring.batching import ShouldStop
    from shopvision.matching.scoring.head_similarity import HeadSimilarity
    from shopvision.models.card import ModelCard
    from shopvision.models.kinds import Precision

Floats: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = NDArray[np.integer[Any]]

# Items of which it is known whether a model reads a text of theirs: those of some chunks.
REMEMBERED_ITEMS = 20_000


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """What a model says of a pair.

    Attributes:
        probability: that both items are the same product.
        verdict: ``same``, ``different`` or ``review``.
    """

    probability: float
    verdict: str


class BaseScorer(ABC):
    """What all scorers of pairs share: one model, or several as one.

    Attributes:
        card: of the model version; of a cascade that of its last model, whose thresholds hold.
        needs_text: whether it reads texts.
        needs_picture: whether it reads pictures.
        preprocessing: how pictures must be prepared; None where it reads none, several where its members want several.
        vector_dimension: length of what is kept of an item between ``item_vectors`` and ``score``: a vector, or the
            features of its picture; None where nothing is.
    """

    card: ModelCard
    needs_text: bool
    needs_picture: bool
    preprocessing: Preprocessing | tuple[Preprocessing, ...] | None
    vector_dimension: int | None

    @property
    def tunable_parts(self) -> tuple[TunablePart, ...]:
        """See ``shopvision.encoders.tuning.part.Tunable``; none where a scorer runs no network."""
        return ()

    @abstractmethod
    def check(self, item: Item) -> None:
        """Refuse an item that gives the model nothing to read.

        Raises:
            ItemError: ``no_text`` or ``no_picture``.
        """

    @abstractmethod
    def item_vectors(self, items: Sequence[Item], pictures: Sequence[Picture | None] | None) -> Floats:
        """What is kept of items.

        Args:
            items: m items.
            pictures: m prepared pictures, where the model reads pictures; None of an item that has none. Of one that is
                prepared in several ways a tuple.

        Returns:
            (m, ``vector_dimension``) float32.

        Raises:
            UserError: nothing is kept of items, or pictures are missing altogether.
            ItemError: ``no_picture``, of an item that cannot do without.
        """

    def readable_pairs(self, items: Sequence[Item], left: Rows, right: Rows) -> NDArray[np.bool_]:  # noqa: ARG002 - of most models both items of a pair are read alike
        """(n,) whether something reads both items of a pair, each of which ``check`` lets through.

        Args:
            items: m items.
            left: (n,) rows of the first items.
            right: (n,) rows of the second items.
        """
        return np.ones(len(left), np.bool_)

    @abstractmethod
    def _score(
        self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None, should_stop: ShouldStop | None
    ) -> Floats:
        """What ``score`` gives, of rows and vectors that fit; ``vectors`` is None where nothing is kept of items."""

    def score(
        self,
        items: Sequence[Item],
        left: Rows,
        right: Rows,
        vectors: Floats | None = None,
        *,
        should_stop: ShouldStop | None = None,
    ) -> Floats:
        """Calibrated probabilities that pairs are the same product.

        Args:
            items: m items.
            left: (n,) rows of the first items.
            right: (n,) rows of the second items.
            vectors: (m, ``vector_dimension``) from ``item_vectors``; by default they are made, and pictures read.
            should_stop: asked between batches.

        Returns:
            (n,) float32, in the order given; NaN for pairs that were not reached before it was asked to stop, and for
            those that are no ``readable_pairs``.

        Raises:
            UserError: vectors of another shape, or rows that are no items.
            ItemError: an item has nothing that the model reads, or its picture cannot be read.
        """
        return self._score(items, left, right, self._checked(items, left, right, vectors), should_stop)

    def verdicts(self, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.str_]:
        """(n,) ``same``, ``different`` or ``review`` of (n,) probabilities, by the card's thresholds."""
        zone = self.card.thresholds
        return verdicts(probabilities, same=zone["same"], different=zone["different"])

    def __call__(self, pairs: Sequence[tuple[Item, Item]]) -> list[ScoredPair]:
        """Score pairs of items; their pictures are read through the picture door.

        Raises:
            ItemError: a pair of an item with itself, an item with nothing to read, or a picture that cannot be read.
            UserError: two different items have one id.
        """
        places: dict[str, int] = {}
        items: list[Item] = []
        for item in (item for pair in pairs for item in pair):
            if places.setdefault(item.item_id, len(items)) == len(items):
                self.check(item)
                items.append(item)
            elif items[places[item.item_id]] != item:
                raise UserError(f"Two different items are called {item.item_id!r}: give each an id of its own.")
        for a, b in pairs:
            pair_key(a.item_id, b.item_id)
        rows = np.array([[places[item.item_id] for item in pair] for pair in pairs], np.int64).reshape(-1, 2)
        probabilities = self.score(items, rows[:, 0], rows[:, 1])
        decided = self.verdicts(probabilities)
        return [ScoredPair(*pair) for pair in zip(probabilities.tolist(), decided.tolist(), strict=True)]

    def _vectors_from_pictures(self, items: Sequence[Item]) -> Floats:
        """``item_vectors``, with the pictures read."""
        vectors = np.empty((len(items), self.vector_dimension or 0), np.float32)
        with PictureDoor(get_settings()) as door:
            for batch in vectors_in_batches(self, items, door):
                for error in batch.failed.values():
                    raise error
                vectors[batch.rows] = batch.vectors
        return vectors

    def _checked(self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None) -> Floats | None:
        """The vectors, made where they are needed and not given."""
        for rows in (left, right):
            if len(rows) and not 0 <= rows.min() <= rows.max() < len(items):
                raise UserError(f"A pair names row {rows.max()} of {len(items)} items: give rows of these items.")
        if len(left) != len(right):
            raise UserError(f"{len(left)} first items and {len(right)} second ones are no pairs.")
        if self.vector_dimension is None:
            return None
        if vectors is None:
            return self._vectors_from_pictures(items)
        if vectors.shape != (len(items), self.vector_dimension):
            raise UserError(
                f"Vectors have the shape {vectors.shape}, not {(len(items), self.vector_dimension)}: make them anew."
            )
        return vectors


class PairScorer(BaseScorer):
    """Which pairs of items are the same product, by one model. Not thread-safe.

    ``PairScorer(folder)([(Item("1", "red shoe"), Item("2", "shoe, red"))])``

    Attributes:
        card: of the model version.
        device: where it runs.
        dtype: what it computes in.
    """

    def __init__(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> None:
        """Load a model version.

        Args:
            folder: from ``shopvision.models.local_copy`` or a finished training.
            device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default the GPU where there is one.
            precision: of the encoders; ``auto`` takes the fastest that the device computes in.

        Raises:
            UserError: no pair scorer of a known family, thresholds out of order, or no such device.
            JobError: the weights do not fit the architecture exactly.
        """
        self.device = choose_device(device)
        loaded = load_matcher(folder)
        model, parts = loaded.model, loaded.model.parts
        self.card = loaded.card
        part = part_of(self.card, "pairs")
        self.dtype = choose_dtype(precision, self.device, part)
        self.needs_text = model.family.reads_text
        self.needs_picture = model.family.reads_pictures
        self.preprocessing = parts.preprocessing
        self.vector_dimension = model.kept_dimension
        self._prepares, self._family = parts.preprocessing, model.family
        self._calibration = model.arguments.calibration
        self._features: ImageEncoder | None = None
        if parts.image_encoder is not None and parts.preprocessing is not None:
            dimension = image_dimension(parts.image_encoder)
            self._features = ImageEncoder(
                parts.image_encoder,
                parts.preprocessing,
                dimension,
                device=self.device,
                dtype=self.dtype,
                unit_length=parts.unit_features,
                part=part_of(self.card, PART),
            )
        self._runner: OneTowerRunner | TwoTowerRunner
        options: Any = {"device": self.device, "dtype": self.dtype, "symmetric": model.arguments.symmetric}
        network, reader = model.network, model.reader
        self._reads_text_of = reader.has_text
        self._with_text: dict[int, tuple[Item, bool]] = {}
        if isinstance(network, PairNetwork) and isinstance(reader, PairReader):
            self._runner = OneTowerRunner(network, reader, **options)
        elif isinstance(network, ItemNetwork) and isinstance(reader, ItemReader):
            self._runner = TwoTowerRunner(network, reader, **options)
        self._tokens = TunableTokens(
            self._runner,
            part,
            device=self.device,
            dtype=self.dtype,
            features=None if self._features is None else self._features.dimension,
        )

    @property
    def tunable_parts(self) -> tuple[TunablePart, ...]:
        """See ``Tunable``."""
        parts: tuple[TunablePart, ...] = () if self._features is None else (self._features,)
        reads_pixels = self.needs_picture and self._features is None
        return parts if reads_pixels or not self.needs_text else (*parts, self._tokens)

    @property
    def head_similarity(self) -> HeadSimilarity | None:
        """What compares item vectors, where that is learnt; None of a metric, and of a model without item vectors."""
        return self._runner.head_similarity if isinstance(self._runner, TwoTowerRunner) else None

    @property
    def compiled_modules(self) -> tuple[CompiledModule, ...]:
        """What of it may run compiled."""
        return () if self._features is None else self._features.compiled_modules

    def check(self, item: Item) -> None:
        """See ``BaseScorer``."""
        self._family.check(item, has_text=self._has_text(item))

    def _has_text(self, item: Item) -> bool:
        """Whether the model reads any text of the item; asked for several times, its text is built once."""
        known = self._with_text.get(id(item))
        if known is None or known[0] is not item:
            if len(self._with_text) >= REMEMBERED_ITEMS:
                self._with_text.clear()
            known = self._with_text[id(item)] = (item, self._reads_text_of(item))
        return known[1]

    def item_vectors(self, items: Sequence[Item], pictures: Sequence[Picture | None] | None) -> Floats:
        """See ``BaseScorer``."""
        if self.vector_dimension is None:
            raise UserError(f"{self.card.spec} keeps nothing of items: it reads both items of a pair at once.")
        if not self.needs_picture:
            assert isinstance(self._runner, TwoTowerRunner)  # noqa: S101 - for the type checker: it keeps vectors
            return self._runner.vectors(items)
        if pictures is None or len(pictures) != len(items):
            raise UserError(f"{self.card.spec} reads pictures: give one for each of the {len(items)} items.")
        if self._family.needs_every_picture:
            for item, picture in zip(items, pictures, strict=True):
                if picture is None:
                    self._family.check(replace(item, picture=""), has_text=False)
        prepared = [picture if isinstance(picture, np.ndarray) else None for picture in pictures]
        if self._features is not None:
            features = self._picture_features(prepared, self._features)
            return features if isinstance(self._runner, OneTowerRunner) else self._runner.vectors(items, features)
        assert isinstance(self._runner, TwoTowerRunner)  # noqa: S101 - as above
        assert self._prepares is not None  # noqa: S101 - for the type checker: it reads pictures
        nothing = np.zeros((*self._prepares.size, 3), np.uint8)
        return self._runner.vectors_of_pixels(items, [nothing if picture is None else picture for picture in prepared])

    def _picture_features(self, pictures: Sequence[NDArray[np.uint8] | None], encoder: ImageEncoder) -> Floats:
        """(m, d); zeros where an item has no picture."""
        rows = [row for row, picture in enumerate(pictures) if picture is not None]
        given = [picture for picture in pictures if picture is not None]
        features = np.zeros((len(pictures), encoder.dimension), np.float32)
        for start in range(0, len(given), encoder.batch_size):
            part = slice(start, start + encoder.batch_size)
            features[rows[part]] = encoder.encode(np.stack(given[part]))
        return features

    def log_odds(self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None = None) -> Floats:
        """As ``score``, before calibration: what the network says."""
        return self._log_odds(items, left, right, self._checked(items, left, right, vectors), None)

    def _score(
        self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None, should_stop: ShouldStop | None
    ) -> Floats:
        return apply(self._calibration, self._log_odds(items, left, right, vectors, should_stop)).astype(np.float32)

    def _log_odds(
        self, items: Sequence[Item], left: Rows, right: Rows, vectors: Floats | None, should_stop: ShouldStop | None
    ) -> Floats:
        """Averaged over both orders where the card wants it.

        Averaged are log-odds and not probabilities, because calibration works on log-odds, and a very sure order would
        count no more than a rather sure one.
        """
        if isinstance(self._runner, OneTowerRunner):
            return self._runner.log_odds(items, left, right, vectors, should_stop)
        assert vectors is not None  # noqa: S101 - for the type checker: two-tower models keep vectors
        return self._runner.log_odds(vectors, left, right, should_stop)
