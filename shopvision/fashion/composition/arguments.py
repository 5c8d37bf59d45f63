"""What a composed encoder is made of, as its card says it. Loads no network, so that any process can read it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from shopvision.fashion.composition.policy import CropPolicy
from shopvision.fashion.composition.routing import Routes

# Where in a version the detector lies.
DETECTOR_FOLDER = "detector"


class CompositionArguments(BaseModel):
    """``architecture.arguments`` of a composed encoder's card.

    Attributes:
        detector: ``name:tag`` of the detector.
        encoder: of the encoder for whatever has none of its own.
        by_class: class -> of the encoder for it.
        policy: what of a picture gets a vector.
        classes: category path -> class of the detector.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str
    encoder: str
    by_class: dict[str, str] = {}
    policy: CropPolicy = CropPolicy()
    classes: dict[str, str] = {}

    @property
    def routes(self) -> Routes:
        """Which labels have an encoder of their own, in the order of their names."""
        return Routes(tuple(sorted(self.by_class)))
