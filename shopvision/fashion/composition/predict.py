"""Pictures to garments to vectors: a detector and encoders that were composed, on one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shopvision.encoders.compiled.module import CompiledModule
from shopvision.encoders.image_encoder import ImageEncoder, load_image_encoder
from shopvision.errors import UserError
from shopvision.fashion.composition.arguments import DETECTOR_FOLDER, CompositionArguments
from shopvision.fashion.composition.card import (
    ENCODER_FOLDER,
    class_folder,
    require_same_input,
)
from shopvision.fashion.composition.categories import require_classes
from shopvision.fashion.composition.policy import crop_box
from shopvision.fashion.detection.predict import Detector, load_detector
from shopvision.fashion.kinds import COMPOSED_KIND
from shopvision.images.given import Picture, embed
from shopvision.images.preprocessing import fit
from shopvision.models.version_folder import read_arguments, read_card

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.encoders.tuning.part import TunablePart
    from shopvision.images import Box, Decoded
    from shopvision.models.kinds import Precision

# Pictures are decoded for so many times what the encoder reads, because it reads parts of them: of a garment that
# fills a third of the picture's side, the encoder still gets every pixel that it can use. Smaller ones (a shoe in a
# photo from head to toe) are enlarged a little. Twice the factor would take four times the time and memory, and most
# photos of shops have no more pixels than this anyway.
CLOSER = 3


class ComposedEncoder:
    """A detector and the encoders of what it finds, on one device. Threads take turns.

    Attributes:
        detector: finds garments.
        detector_spec: ``name:tag`` of the detector, by which the registry knows it.
        policy: what of a picture gets a vector.
        classes: category path -> class of the detector.
        routes: which labels have an encoder of their own.
        preprocessing: how a whole picture or a crop must be prepared before ``encode``.
        dimension: length of the vectors.
        batch_size: how many crops at once are fast on this device.
        device: where everything runs.
    """

    def __init__(
        self,
        detector: Detector,
        encoder: ImageEncoder,
        by_class: Mapping[str, ImageEncoder],
        arguments: CompositionArguments,
    ) -> None:
        """Put together what was loaded for one device."""
        self.detector, self.detector_spec = detector, arguments.detector
        self.policy, self.classes, self.routes = arguments.policy, arguments.classes, arguments.routes
        self._encoders = (encoder, *(by_class[label] for label in self.routes.labels))
        self.preprocessing, self.device = encoder.preprocessing, encoder.device
        self.dimension = encoder.dimension + self.routes.coordinates

    @property
    def compiled_modules(self) -> tuple[CompiledModule, ...]:
        """What of its detector and encoders may run compiled."""
        encoders = (module for encoder in self._encoders for module in encoder.compiled_modules)
        return (*self.detector.compiled_modules, *encoders)

    def __call__(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Vectors of whole pictures; see ``ImageEncoder``."""
        return embed(pictures, self, self.dimension)

    @property
    def batch_size(self) -> int:
        """See the class."""
        return self._encoders[0].batch_size

    @property
    def decoding_threads(self) -> int | None:
        """How many pictures should be decoded at the same time beside it; None where nobody knows."""
        return self._encoders[0].decoding_threads

    @property
    def tunable_parts(self) -> tuple[TunablePart, ...]:
        """See ``shopvision.encoders.tuning.part.Tunable``."""
        return (*self._encoders, *self.detector.tunable_parts)

    @property
    def precision(self) -> str:
        """What the encoders compute in."""
        return self._encoders[0].precision

    @property
    def target(self) -> tuple[int, int]:
        """(height, width) to decode pictures for, so that the detector and crops of garments have enough pixels."""
        height, width = self.preprocessing.resized
        return max(self.detector.target[0], CLOSER * height), max(self.detector.target[1], CLOSER * width)

    def crop(self, box: Box, size: tuple[int, int]) -> Box:
        """What is cut out for a garment: with the policy's margin, within the picture, at whole pixels.

        Args:
            box: of the garment, in pixels of the upright picture at full scale.
            size: (width, height) of that picture.
        """
        return crop_box(box, size, self.policy.margin)

    def prepare_crop(self, decoded: Decoded, box: Box) -> NDArray[np.uint8]:
        """A garment of a picture as ``encode`` reads it: (H, W, 3) uint8."""
        return fit(decoded.region(self.crop(box, decoded.size)), self.preprocessing)

    def encode(self, batch: NDArray[np.uint8], labels: Sequence[str | None] | None = None) -> NDArray[np.float32]:
        """Vectors of prepared pictures or crops.

        Args:
            batch: (n, H, W, 3) uint8, C-contiguous.
            labels: (n) classes of the garments; each goes to the encoder of its class, or to the common one where the
                class has none, is unknown or None. Without, all go to the common one.

        Returns:
            (n, dimension) float32 of unit length. A row that is not of unit length is a picture that the network cannot
            place.

        Raises:
            JobError: wrong size or dtype, or not even one picture fits into memory.
        """
        routes = np.array([self.routes.of(label) for label in labels or [None] * len(batch)], np.int64)
        vectors = np.empty((len(batch), self._encoders[0].dimension), np.float32)
        for route in np.unique(routes).tolist():
            rows = np.flatnonzero(routes == route)
            vectors[rows] = self._encoders[route].encode(batch if len(rows) == len(batch) else batch[rows])
        return self.routes.extend(vectors, routes.tolist())

    def similarity(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores that an index of these vectors gives (inner products) -> cosines of what the encoders gave."""
        return self.routes.similarity(scores)


def load_composed(folder: Path, *, device: str | None = None, precision: Precision = "auto") -> ComposedEncoder:
    """The composed encoder of a model version.

    Args:
        folder: from ``shopvision.models.local_copy``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ...; by default the GPU where there is one.
        precision: of the encoders and the detector; see ``load_image_encoder`` and ``load_detector``.

    Raises:
        UserError: the card is of another kind, its members do not fit together, or there is no such device.
        JobError: the weights of a member do not fit its card exactly.
    """
    card = read_card(folder, COMPOSED_KIND)
    arguments = read_arguments(folder, card, CompositionArguments)
    places = {label: folder / class_folder(label) for label in arguments.routes.labels}
    common = read_card(folder / ENCODER_FOLDER)
    for place in places.values():
        require_same_input(common, read_card(place))
    if card.preprocessing != common.preprocessing:
        raise UserError(f"{card.spec} is not prepared as its encoder {common.spec} is: compose it anew.")
    detector = load_detector(folder / DETECTOR_FOLDER, device=device, precision=precision)
    require_classes(
        {f"the category {path}": label for path, label in arguments.classes.items()}
        | {f"the encoder for {label}": label for label in arguments.by_class},
        detector.labels,
        arguments.detector,
    )
    encoder = load_image_encoder(folder / ENCODER_FOLDER, device=device, precision=precision)
    by_class = {label: load_image_encoder(place, device=device, precision=precision) for label, place in places.items()}
    composed = ComposedEncoder(detector, encoder, by_class, arguments)
    if card.dimension != composed.dimension:
        raise UserError(
            f"{card.spec} says {card.dimension} dimensions, its encoders give {composed.dimension}: compose it anew."
        )
    return composed
