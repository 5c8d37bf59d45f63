"""Ranking the pictures of a plan without any queue or database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from shopvision.encoders.compiled.module import CompiledModule
from shopvision.encoders.devices import choose_device, choose_dtype
from shopvision.encoders.image_encoder import PART, ImageEncoder
from shopvision.errors import UserError
from shopvision.images.given import Picture
from shopvision.models.kinds import Precision
from shopvision.models.part import part_of
from shopvision.selection.clik.card import load_clik
from shopvision.selection.topic import Topic

TOPICS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class RankedPicture:
    """One picture's place in the ranking of its plan.

    Attributes:
        index: where it stands in the pictures that were given.
        score: compatibility of plan and picture, -1 to 1.
    """

    index: int
    score: float


class PlanRanker:
    """Which pictures fit a plan's topic best. Not thread-safe.

    ``PlanRanker(folder)({"name": "Summer dresses"}, ["a.jpg", "https://shop.example/b.jpg"], top_k=1)``

    Attributes:
        card: of the model version.
        device: where it runs.
    """

    def __init__(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> None:
        """Load a model version.

        Args:
            folder: from ``shopvision.models.local_copy`` or a finished training.
            device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default the GPU where there is one.
            precision: of the image encoder; ``auto`` takes the fastest that the device computes in. Topics are always
                computed in float32: they are few, and one topic's error moves all its pictures.

        Raises:
            UserError: no model of this kind, or no such device.
            JobError: the weights do not fit the architecture exactly.
        """
        self.device = choose_device(device)
        self._precision: Precision = precision
        loaded = load_clik(folder)
        self.card = loaded.card
        self._preprocessing = loaded.preprocessing
        self._topic_tokenizer = loaded.topic_tokenizer
        # The image tower goes to the device in its own precision, and not before there are pictures to encode.
        self._image_tower = loaded.clik.img_encoder
        del loaded.clik.img_encoder
        self._clik = loaded.clik.requires_grad_(requires_grad=False).to(self.device)

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        """Pictures to unit vectors; a picture's score is the dot product with its plan's query vector."""
        part = part_of(self.card, PART)
        return ImageEncoder(
            self._image_tower,
            self._preprocessing,
            self._image_tower.proj.linear_out.out_features,
            device=self.device,
            dtype=choose_dtype(self._precision, self.device, part),
            part=part,
        )

    @property
    def compiled_modules(self) -> tuple[CompiledModule, ...]:
        """What of it may run compiled."""
        return self.image_encoder.compiled_modules

    @property
    def tunable_parts(self) -> tuple[ImageEncoder, ...]:
        """See ``shopvision.encoders.tuning.part.Tunable``. Topics are few."""
        return (self.image_encoder,)

    @torch.inference_mode()
    def query_vectors(self, topics: Sequence[Topic]) -> NDArray[np.float32]:
        """What the pictures of each topic are compared with.

        Args:
            topics: n topics.

        Returns:
            (n, dimension) float32 of unit length.

        Raises:
            UserError: the categories of a topic alone are too long for the model.
        """
        vectors = torch.empty(len(topics), self._image_tower.proj.linear_out.out_features)
        tokens = self._topic_tokenizer.encode(topics)
        # Topics of like length together, because each batch is padded to its longest.
        order = tokens.attention_mask.sum(1).argsort(stable=True)
        for start in range(0, len(topics), TOPICS_AT_ONCE):
            rows = order[start : start + TOPICS_AT_ONCE]
            topic_vectors = self._clik.txt_encoder(tokens.rows(rows).to(self.device))
            vectors[rows] = self._clik.query_vectors(topic_vectors).cpu()
        queries: NDArray[np.float32] = vectors.numpy()
        return queries

    def __call__(
        self,
        plan: Topic | Mapping[str, object],
        pictures: Sequence[Picture],
        top_k: int | None = None,
        *,
        undated: str | None = None,
    ) -> list[RankedPicture]:
        """Rank a plan's pictures. All must be readable: a ranking that silently lacks one could hide the best.

        Args:
            plan: its topic, or slot -> text.
            pictures: paths, addresses (``https://``, ``s3://``, ``file://``: the rules of the picture door apply) or
                uint8 arrays (height, width, 3), RGB.
            top_k: how many to return; by default all.
            undated: as beginning on which day a plan without a date is ranked: ``YYYY-MM-DD``, or ``today`` in the
                shop, as the published interface takes it; by default it has no season.

        Returns:
            The best first; of equal scores the earlier picture.

        Raises:
            UserError: wrong slots, no picture array, or top_k below 1.
            ItemError: a picture cannot be read; the message says which.
        """
        if top_k is not None and top_k < 1:
            raise UserError(f"top_k is {top_k}: ask for at least 1 picture.")
        topic = plan if isinstance(plan, Topic) else Topic.from_mapping(plan)
        query = self.query_vectors([topic.dated(undated)])[0]
        # Not a matrix product, whose rounding depends on the row: a picture given twice would get two scores.
        scores = (self.image_encoder(pictures) * query).sum(axis=1)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [RankedPicture(int(index), float(scores[index])) for index in order]
