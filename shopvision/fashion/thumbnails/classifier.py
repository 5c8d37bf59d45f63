"""Pictures of products to probabilities of classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from shopvision.encoders.compiled.module import CompiledModule
from shopvision.encoders.devices import choose_device, choose_dtype
from shopvision.encoders.image_encoder import PART, ImageEncoder
from shopvision.encoders.image_networks import image_dimension
from shopvision.fashion.thumbnails.card import load_network
from shopvision.models.part import part_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shopvision.fashion.thumbnails.network import ClassifierNetwork
    from shopvision.images.preprocessing import Preprocessing
    from shopvision.models.kinds import Precision
    from shopvision.models.part import ModelPart


class ThumbnailClassifier:
    """A classifier on one device. Threads take turns.

    Attributes:
        labels: the classes that it knows.
        preprocessing: how pictures must be prepared before ``probabilities``.
        batch_size: pictures at once that are fast on this device.
        temperature: that calibrates the probabilities.
    """

    def __init__(
        self,
        network: ClassifierNetwork,
        preprocessing: Preprocessing,
        *,
        device: torch.device,
        dtype: torch.dtype,
        part: ModelPart | None = None,
    ) -> None:
        """Take over ``network`` (float32, CPU, evaluation mode); ``part`` is that of its image network."""
        arguments = network.arguments
        self.labels, self.temperature = arguments.labels, arguments.temperature
        self.preprocessing = preprocessing
        self._network = network
        self._features = ImageEncoder(
            network.backbone,
            preprocessing,
            image_dimension(network.backbone),
            device=device,
            dtype=dtype,
            unit_length=arguments.unit_features,
            part=part,
        )

    @property
    def batch_size(self) -> int:
        """See the class."""
        return self._features.batch_size

    @property
    def tunable_parts(self) -> tuple[ImageEncoder, ...]:
        """See ``shopvision.encoders.tuning.part.Tunable``."""
        return (self._features,)

    @property
    def compiled_modules(self) -> tuple[CompiledModule, ...]:
        """What of it may run compiled."""
        return self._features.compiled_modules

    def probabilities(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Calibrated probabilities of prepared pictures.

        Args:
            batch: (n, H, W, 3) uint8, C-contiguous, from ``shopvision.images.preprocessing``.

        Returns:
            (n, classes) float32; rows sum to 1. A row that is not finite is a picture the network cannot place.

        Raises:
            JobError: wrong size or dtype, or not even one picture fits into memory.
        """
        features = torch.from_numpy(self._features.encode(batch))
        with torch.inference_mode():
            found: NDArray[np.float32] = (self._network.logits(features) / self.temperature).softmax(1).numpy()
        return found


def load_classifier(folder: Path, *, device: str | None = None, precision: Precision = "auto") -> ThumbnailClassifier:
    """The classifier of a model version.

    Args:
        folder: from ``shopvision.models.registry.local_copy``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default the GPU where there is one.
        precision: of the image network; the linear layer computes in float32.

    Raises:
        UserError: the card is of another kind or builds nothing, or there is no such device.
        JobError: the weights do not fit the architecture exactly.
    """
    network, preprocessing, card = load_network(folder)
    place, part = choose_device(device), part_of(card, PART)
    dtype = choose_dtype(precision, place, part)
    return ThumbnailClassifier(network, preprocessing, device=place, dtype=dtype, part=part)
