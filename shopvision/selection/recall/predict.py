"""Pictures and texts to comparable vectors without any queue or database."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from shopvision.encoders._fast import accelerate_text_encoder
from shopvision.encoders.devices import choose_device, choose_dtype
from shopvision.encoders.image_encoder import PART, ImageEncoder
from shopvision.models.part import part_of
from shopvision.selection.recall.card import load_recall
from shopvision.selection.recall.texts import recall_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.encoders.compiled.module import CompiledModule
    from shopvision.images.given import Picture
    from shopvision.items.item import Item
    from shopvision.models.kinds import Precision

TEXTS_AT_ONCE = 256


class RecallModel:
    """Which pictures show what a text says: the dot product of their vectors says how well.

    ``RecallModel(folder).scores(["red shoes"], ["a.jpg", "https://shop.example/b.jpg"])``

    Attributes:
        card: of the model version.
        dimension: length of the vectors.
        preprocessing: how pictures must be prepared before ``encode``.
        device: where it runs.
        logit_scale: what training multiplied cosines with.
    """

    def __init__(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> None:
        """Load a model version.

        Args:
            folder: from ``shopvision.models.local_copy`` or a finished training.
            device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default the GPU where there is one.
            precision: of the image network; ``auto`` takes the fastest that the device computes in. Texts are always
                computed in float32: they are few, and one text's error moves all its pictures.

        Raises:
            UserError: no model of this kind, or no such device.
            JobError: the weights do not fit the architecture exactly.
        """
        self.device = choose_device(device)
        self._precision: Precision = precision
        loaded = load_recall(folder)
        self.card = loaded.card
        self.dimension = loaded.arguments.dimension
        self.preprocessing = loaded.preprocessing
        self.logit_scale = loaded.network.factor().item()
        self._text_form = loaded.arguments.text_form
        self._tokenizer = loaded.tokenizer
        # The picture tower goes to the device in its own precision, and not before there are pictures to encode.
        self._image_tower = loaded.network.image
        self._text_tower = loaded.network.text.requires_grad_(requires_grad=False).to(self.device)
        accelerate_text_encoder(self._text_tower.network, pooling=self._text_tower.pooling)

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        """Pictures to unit vectors."""
        part = part_of(self.card, PART)
        return ImageEncoder(
            self._image_tower,
            self.preprocessing,
            self.dimension,
            device=self.device,
            dtype=choose_dtype(self._precision, self.device, part),
            part=part,
        )

    @property
    def precision(self) -> str:
        """What the image network computes in."""
        return self.image_encoder.precision

    @property
    def decoding_threads(self) -> int | None:
        """How many pictures should be decoded at the same time beside it; None where nobody knows."""
        return self.image_encoder.decoding_threads

    @property
    def tunable_parts(self) -> tuple[ImageEncoder, ...]:
        """See ``shopvision.encoders.tuning.part.Tunable``. Texts are few."""
        return (self.image_encoder,)

    @property
    def compiled_modules(self) -> tuple[CompiledModule, ...]:
        """What of it may run compiled."""
        return self.image_encoder.compiled_modules

    @property
    def batch_size(self) -> int:
        """How many pictures at once are fast on this device."""
        return self.image_encoder.batch_size

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Vectors of prepared pictures; see ``ImageEncoder.encode``.

        Args:
            batch: (n, H, W, 3) uint8, from ``shopvision.images.preprocessing.prepare``.

        Returns:
            (n, dimension) float32 of unit length.
        """
        return self.image_encoder.encode(batch)

    @property
    def max_tokens(self) -> int:
        """Most tokens of a text, the two special ones included; the rest is cut off."""
        return self._tokenizer.max_length

    def are_cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is longer than the model reads."""
        return self._tokenizer.are_cut(texts)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts; what is longer than the model reads is cut off.

        Args:
            texts: n texts.

        Returns:
            (n, dimension) float32 of unit length.
        """
        vectors = torch.empty(len(texts), self.dimension)
        tokens = self._tokenizer.encode(texts)
        # Texts of like length together, because each batch is padded to its longest.
        order = tokens.attention_mask.sum(1).argsort(stable=True)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            rows = order[start : start + TEXTS_AT_ONCE]
            vectors[rows] = self._text_tower(tokens.rows(rows).to(self.device)).cpu()
        found: NDArray[np.float32] = vectors.numpy()
        return found

    def longer_than_read(self, texts: Sequence[str]) -> int:
        """How many texts are longer than the model reads; the rest of them is cut off."""
        return self._tokenizer.longer(texts)

    def text_of(self, item: Item) -> str:
        """What this model reads of an item."""
        return recall_text(item, self._text_form)

    def scores(self, texts: Sequence[str], pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """How well each picture shows what each text says.

        Args:
            texts: n texts.
            pictures: m paths, addresses (``https://``, ``s3://``, ``file://``: the rules of the picture door apply) or
                uint8 arrays (height, width, 3), RGB.

        Returns:
            (n, m) float32 cosines.

        Raises:
            UserError: an array is no picture.
            ItemError: a picture cannot be read; the message says which.
        """
        return self.encode_texts(texts) @ self.image_encoder(pictures).T
