"""The models that make vectors of photos: those that made the vectors of a generation, and whoever finds garments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shopvision import models
from shopvision.errors import ItemError, UserError
from shopvision.fashion.composition.colour import region_colours
from shopvision.fashion.composition.found import Lab
from shopvision.fashion.composition.predict import CLOSER, ComposedEncoder
from shopvision.fashion.composition.routing import Routes
from shopvision.fashion.detection.predict import Detector, PreparedPicture
from shopvision.fashion.detection.regions import Region
from shopvision.fashion.kinds import KIND as DETECTOR_ROLE
from shopvision.images import Decoded
from shopvision.images.preprocessing import fit
from shopvision.search.garments import Part

if TYPE_CHECKING:
    from shopvision.encoders.image_encoder import ImageEncoder

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class QueryModels:
    """What turns photos into vectors.

    Attributes:
        encoder: made the generation's vectors.
        detector: finds garments: the encoder's own, or the one that serves; None where there is neither.
        detector_spec: ``name:tag``, likewise.
    """

    encoder: ImageEncoder | ComposedEncoder
    detector: Detector | None
    detector_spec: str | None

    @property
    def has_regions(self) -> bool:
        """Whether the detector has looked at the catalogue's pictures too."""
        return isinstance(self.encoder, ComposedEncoder) and self.encoder.policy.crop != "whole"

    @property
    def classes(self) -> Mapping[str, str]:
        """Category path -> class; empty where the model does not know."""
        return self.encoder.classes if isinstance(self.encoder, ComposedEncoder) else {}

    @property
    def target(self) -> tuple[int, int]:
        """(height, width) to decode photos for."""
        if isinstance(self.encoder, ComposedEncoder):
            return self.encoder.target
        height, width = self.encoder.preprocessing.resized
        if self.detector is None:
            return CLOSER * height, CLOSER * width  # a box may be given
        return max(self.detector.target[0], CLOSER * height), max(self.detector.target[1], CLOSER * width)

    def require_label(self, label: str) -> None:
        """Refuse a class that no garment can be of.

        Raises:
            UserError: lists those there are.
        """
        if self.detector is None:
            raise UserError(
                f"Nobody finds garments of the class {label!r}: `shopvision models activate {DETECTOR_ROLE} NAME:TAG` "
                "lets a detector do so."
            )
        if label not in self.detector.labels:
            raise UserError(
                f"{self.detector_spec} knows no class {label!r}: it knows {', '.join(sorted(self.detector.labels))}."
            )

    def detect(self, photos: Sequence[PreparedPicture]) -> list[tuple[Region, ...] | ItemError]:
        """The garments of each photo, the best first; or why there can be none."""
        return [] if self.detector is None else self.detector.detect(photos)

    def crop(self, decoded: Decoded, part: Part) -> Pixels:
        """A part as the encoder reads it, cut out as those of the catalogue are."""
        if part.is_whole:
            return fit(decoded, self.encoder.preprocessing)
        if isinstance(self.encoder, ComposedEncoder):
            return self.encoder.prepare_crop(decoded, part.box)
        return fit(decoded.region(part.box), self.encoder.preprocessing)

    def encode(self, crops: Sequence[Pixels], labels: Sequence[str | None]) -> NDArray[np.float32]:
        """Vectors of whole photos and crops: (n, d) float32; a row is not of unit length where there is none."""
        size = self.encoder.batch_size
        vectors = [np.empty((0, self.encoder.dimension), np.float32)]
        for start in range(0, len(crops), size):
            batch = np.stack(crops[start : start + size])
            if isinstance(self.encoder, ComposedEncoder):
                vectors.append(self.encoder.encode(batch, labels[start : start + size]))
            else:
                vectors.append(self.encoder.encode(batch))
        return np.concatenate(vectors)

    def colour(self, decoded: Decoded, part: Part) -> Lab | None:
        """The colour of a garment, as those of the catalogue's are noted; None for a whole photo."""
        return None if part.is_whole else region_colours(decoded, [part.box])[0]

    @property
    def routes(self) -> Routes:
        """Which encoders the vectors of the index are of."""
        return self.encoder.routes if isinstance(self.encoder, ComposedEncoder) else Routes()


def query_models(spec: str, load: Callable[[str], Any]) -> QueryModels:
    """The models for a generation that was made with ``spec``.

    Args:
        spec: ``name:tag``.
        load: gives the model of a version.
    """
    model = load(spec)
    if isinstance(model, ComposedEncoder):
        return QueryModels(model, model.detector, model.detector_spec)
    serving = models.serves(DETECTOR_ROLE)
    return QueryModels(model, None if serving is None else load(serving), serving)
