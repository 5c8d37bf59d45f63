"""Ranking the pictures of an item by the clicks they can expect, without any queue or database."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shopvision.encoders.devices import choose_device
from shopvision.errors import JobError
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.kinds import Precision
from shopvision.models.loaded import load
from shopvision.selection.click.card import load_ranker
from shopvision.selection.click.context import Entity, ItemContext, Vector, context_text, entity_features

if TYPE_CHECKING:
    from shopvision.encoders.compiled.module import CompiledModule
    from shopvision.encoders.tuning.part import TunablePart

PICTURES_AT_ONCE = 4096


class DualTower(Protocol):
    """What a ranker needs of the recall model that it stands on.

    Attributes:
        preprocessing: how pictures must be prepared before ``encode``.
        batch_size: how many pictures at once are fast.
        dimension: d.
        tunable_parts: see ``shopvision.encoders.tuning.part.Tunable``.
        compiled_modules: what of it may run compiled.
    """

    preprocessing: Preprocessing
    batch_size: int
    dimension: int
    tunable_parts: tuple[TunablePart, ...]
    compiled_modules: tuple[CompiledModule, ...]

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, H, W, 3) uint8 -> (n, d) float32 of unit length."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """n texts -> (n, d) float32 of unit length."""


class ImageRanker:
    """Which picture of an item people will click. Not thread-safe.

    ``context = ranker.context(ranker.text_of(title, names), entities)``, then ``ranker.scores(vectors, context)``.

    Attributes:
        card: of the model version.
        preprocessing: how pictures must be prepared before ``encode``.
        dimension: d, of pictures' and texts' vectors.
        device: where it runs.
        recall_spec: the recall model version whose vectors of pictures it reads; None where only its own will do.
        entities: how many entities of an item it looks at.
        text_rule: which text it is told of an item, see ``context_text``.
    """

    def __init__(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> None:
        """Load a model version.

        Args:
            folder: from ``shopvision.models.local_copy`` or a finished training.
            device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default the GPU where there is one.
            precision: of the recall model's image tower. What stands on it is computed in float32: it costs little.

        Raises:
            UserError: no model of this kind, or no such device.
            JobError: the weights do not fit the architecture exactly.
        """
        self.device = choose_device(device)
        self._asked_device, self._precision = device, precision
        loaded = load_ranker(folder)
        self.card, self.preprocessing = loaded.card, loaded.preprocessing
        self.dimension = loaded.arguments.dimension
        self.recall_spec = loaded.arguments.recall
        self.entities, self.text_rule = loaded.arguments.entities, loaded.arguments.text
        self._recall_folder = loaded.recall_folder
        self._network = loaded.network.requires_grad_(requires_grad=False).to(self.device)

    @cached_property
    def towers(self) -> DualTower:
        """The recall model inside, loaded when it is first needed: stored vectors of pictures need none of it."""
        model: DualTower = load(self._recall_folder, device=self._asked_device, precision=self._precision)
        return model

    @property
    def batch_size(self) -> int:
        """How many pictures at once are fast."""
        return self.towers.batch_size

    @property
    def tunable_parts(self) -> tuple[TunablePart, ...]:
        """See ``Tunable``: none where another version makes the vectors of pictures, for they are that one's."""
        return self.towers.tunable_parts if self.recall_spec is None else ()

    @property
    def compiled_modules(self) -> tuple[CompiledModule, ...]:
        """What of it may run compiled; likewise."""
        return self.towers.compiled_modules if self.recall_spec is None else ()

    @property
    def vectors_of(self) -> str:
        """The model version whose vectors of pictures and entities it reads: the recall model's, or its own."""
        return self.recall_spec or self.card.spec

    def require_vectors_of(self, spec: str) -> None:
        """Refuse vectors that another model version made.

        Raises:
            JobError: names both.
        """
        if spec != self.vectors_of:
            raise JobError(
                f"{self.card.spec} reads vectors of {self.vectors_of}, not of {spec}: embed the pictures with that "
                "model version."
            )

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Vectors of prepared pictures, (n, H, W, 3) uint8 -> (n, d) float32 of unit length."""
        return self.towers.encode(batch)

    def text_of(self, title: str, names: Sequence[str]) -> str:
        """The text of an item as this ranker was taught it, from its title and the names of all its entities."""
        return context_text(title, names, self.text_rule)

    def context(self, text: str, entities: Sequence[Entity]) -> ItemContext:
        """The context of one item, see ``contexts``."""
        return self.contexts([text], [entities])[0]

    def contexts(self, texts: Sequence[str], entities: Sequence[Sequence[Entity]]) -> list[ItemContext]:
        """The contexts of items; their texts are encoded together, each distinct one once.

        Args:
            texts: of n items, from ``text_of``; an empty one becomes zeros.
            entities: of each item, the most telling first; those beyond ``self.entities`` are not looked at.

        Raises:
            JobError: an entity's vectors are of another length.
        """
        features = [entity_features(of_item, self.dimension, self.entities) for of_item in entities]
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        encoded = dict(zip(distinct, self.towers.encode_texts(distinct), strict=True)) if distinct else {}
        nothing = np.zeros(self.dimension, np.float32)
        return [ItemContext(encoded.get(text, nothing), of_item) for text, of_item in zip(texts, features, strict=True)]

    def context_of(self, text: Vector, entities: Sequence[Entity]) -> ItemContext:
        """As ``context``, of a text's vector (d,) from the recall model; zeros stand for no text."""
        return ItemContext(text, entity_features(entities, self.dimension, self.entities))

    def scores(self, pictures: Vector, context: ItemContext) -> NDArray[np.float32]:
        """How attractive an item's pictures are.

        Args:
            pictures: (n, d) float32, vectors of the model version ``vectors_of``.
            context: of the item.

        Returns:
            (n,), higher is better. ``sigmoid`` of a difference is, of two pictures that are shown equally often, the
            first one's share of the clicks; where training did not know how often they were clicked, the probability
            that the first gets the higher click rate.

        Raises:
            JobError: vectors of another length.
        """
        return self.scores_of_items([pictures], [context])[0]

    def scores_of_items(self, pictures: Sequence[Vector], contexts: Sequence[ItemContext]) -> list[NDArray[np.float32]]:
        """As ``scores``, of many items at once, which is many times faster than one by one."""
        for vectors in pictures:
            if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
                raise JobError(
                    f"{self.card.spec} reads vectors (n, {self.dimension}), not {vectors.shape}: embed the pictures "
                    f"with {self.vectors_of}."
                )
        if not pictures:
            return []
        sizes = [len(vectors) for vectors in pictures]
        scores = self.scores_of_rows(np.concatenate(pictures), np.repeat(np.arange(len(pictures)), sizes), contexts)
        return np.split(scores, np.cumsum(sizes)[:-1])

    def scores_of_rows(
        self, pictures: Vector, owners: NDArray[np.int64], contexts: Sequence[ItemContext]
    ) -> NDArray[np.float32]:
        """As ``scores``, of (n, d) pictures in any order; ``owners`` (n,) says whose of the ``contexts`` they are."""
        texts, entities, counts = stack_contexts(contexts, self.dimension)
        vectors = pictures.astype(np.float32, copy=False)
        scores = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), PICTURES_AT_ONCE):
            rows = slice(start, start + PICTURES_AT_ONCE)
            scores[rows] = self._scores(vectors[rows], texts, entities, counts, owners[rows])
        return scores

    @torch.inference_mode()
    def _scores(
        self,
        pictures: Vector,
        texts: Vector,
        entities: Vector,
        counts: NDArray[np.int64],
        owners: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        inputs = (pictures, texts[owners], entities[owners], counts[owners])
        scores: NDArray[np.float32] = (
            self._network(*(torch.from_numpy(array).to(self.device) for array in inputs)).cpu().numpy()
        )
        return scores


def stack_contexts(contexts: Sequence[ItemContext], dimension: int) -> tuple[Vector, Vector, NDArray[np.int64]]:
    """(n, d) texts, (n, K, 2d) entities padded with zeros, and (n,) how many entities each item has."""
    counts = np.array([len(context.entities) for context in contexts], np.int64)
    texts = np.zeros((len(contexts), dimension), np.float32)
    entities = np.zeros((len(contexts), int(counts.max(initial=0)), 2 * dimension), np.float32)
    for row, context in enumerate(contexts):
        texts[row] = context.text
        entities[row, : counts[row]] = context.entities
    return texts, entities, counts
