"""Ranking the pictures of a plan without any queue or database."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from shopvision.encoders.image_encoder import ImageEncoder, best_precision, choose_device
from shopvision.errors import ItemError, UserError
from shopvision.images.door import PictureDoor
from shopvision.images.preprocessing import prepare
from shopvision.images.transfer import check_length
from shopvision.models.kinds import Precision
from shopvision.selection.clik.card import load_clik
from shopvision.selection.topic import Topic
from shopvision.settings import Settings, get_settings

Picture: TypeAlias = str | Path | NDArray[np.uint8]

THREADS = 8
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
            folder: from ``shopvision.models.registry.local_copy`` or a finished training.
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
        precision = self._precision
        return ImageEncoder(
            self._image_tower,
            self._preprocessing,
            self._image_tower.proj.linear_out.out_features,
            device=self.device,
            dtype=best_precision(self.device) if precision == "auto" else getattr(torch, precision),
        )

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
        self, plan: Topic | Mapping[str, object], pictures: Sequence[Picture], top_k: int | None = None
    ) -> list[RankedPicture]:
        """Rank a plan's pictures. All must be readable: a ranking that silently lacks one could hide the best.

        Args:
            plan: its topic, or slot -> text.
            pictures: paths, addresses (``https://``, ``s3://``, ``file://``: the rules of the picture door apply) or
                uint8 arrays (height, width, 3), RGB.
            top_k: how many to return; by default all.

        Returns:
            The best first; of equal scores the earlier picture.

        Raises:
            UserError: wrong slots, no picture array, or top_k below 1.
            ItemError: a picture cannot be read; the message says which.
        """
        if top_k is not None and top_k < 1:
            raise UserError(f"top_k is {top_k}: ask for at least 1 picture.")
        topic = plan if isinstance(plan, Topic) else Topic.from_mapping(plan)
        query = self.query_vectors([topic])[0]
        # Not a matrix product, whose rounding depends on the row: a picture given twice would get two scores.
        scores = (self._image_vectors(pictures) * query).sum(axis=1)
        order = np.argsort(-scores, kind="stable")[:top_k]
        return [RankedPicture(int(index), float(scores[index])) for index in order]

    def _image_vectors(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        vectors = np.empty((len(pictures), self._image_tower.proj.linear_out.out_features), np.float32)
        if not len(pictures):
            return vectors
        size = self.image_encoder.batch_size
        settings = get_settings()
        first: dict[bytes, int] = {}
        with PictureDoor(settings) as door, ThreadPoolExecutor(THREADS) as threads:

            def pixels(index: int) -> NDArray[np.uint8]:
                with _naming(index, pictures[index]):
                    data = _read(pictures[index], door, settings)
                    return prepare(data, self._preprocessing, door.limits)

            for start in range(0, len(pictures), size):
                batch = list(threads.map(pixels, range(start, min(start + size, len(pictures)))))
                # Equal pictures share a vector: its last bits depend on the place in the batch, and they must tie.
                places = [first.setdefault(blake2b(one.data).digest(), start + row) for row, one in enumerate(batch)]
                new = [row for row, place in enumerate(places) if place == start + row]
                if new:
                    vectors[[start + row for row in new]] = self.image_encoder.encode(
                        np.stack([batch[row] for row in new])
                    )
                vectors[start : start + len(batch)] = vectors[places]
        # NaN compares false.
        for index in np.flatnonzero(~(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) < 0.01)).tolist():
            with _naming(index, pictures[index]):
                raise ItemError("bad_vector", "The model gives this picture no finite vector.")
        return vectors


@contextmanager
def _naming(index: int, picture: Picture) -> Iterator[None]:
    """Errors of one picture say which one it is."""
    try:
        yield
    except (ItemError, UserError) as error:
        text = str(error)
        address = "" if isinstance(picture, np.ndarray) or str(picture) in text else f" ({picture})"
        message = f"Picture {index}{address}: {text}"
        raise (ItemError(error.code, message) if isinstance(error, ItemError) else UserError(message)) from None


def _read(picture: Picture, door: PictureDoor, settings: Settings) -> bytes:
    """An encoded picture; arrays are encoded without loss, so that all pictures are prepared in one way."""
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise UserError(f"An array must be uint8 (height, width, 3), RGB, not {picture.dtype} {picture.shape}.")
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "BMP")
        return file.getvalue()
    if isinstance(picture, str) and "://" in picture:
        return door.fetch(picture).data
    # A path comes from our caller, who may read the file anyway: allowed folders are for addresses from elsewhere.
    try:
        check_length(settings, Path(picture).stat().st_size, picture)
        return Path(picture).read_bytes()
    except OSError as error:
        code = {FileNotFoundError: "not_found", PermissionError: "forbidden", IsADirectoryError: "not_a_file"}
        raise ItemError(code.get(type(error), "unavailable"), f"{picture}: {error.strerror}.") from None
