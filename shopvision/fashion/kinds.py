"""Detectors of garments as a kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.models.kinds import ImportScheme, ModelKind, Precision

if TYPE_CHECKING:
    from shopvision.fashion.detection.predict import Detector
    from shopvision.models.card import ModelCard

KIND = "fashion_detector"
# Boxes drawn at random are far below; one that is of use to a shop is far above.
LEAST_MAP_50 = 0.1


def _from_transformers(source: str, folder: Path) -> ModelCard:
    from shopvision.fashion.detection.sources import import_detector

    return import_detector(source, folder)


class FashionDetectorKind(ModelKind):
    """Which garments are in a picture, and where."""

    name = KIND
    roles = (KIND,)
    schemes = (
        ImportScheme(
            "detector", "SOURCE", "an object detector of transformers: local-dir:DIR or hf-hub:ORG/NAME",
            _from_transformers,
        ),
    )  # fmt: skip

    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> Detector:
        """See ``ModelKind``."""
        from shopvision.fashion.detection.predict import load_detector

        return load_detector(folder, device=device, precision=precision)

    def doubt(self, card: ModelCard, role: str) -> str | None:  # noqa: ARG002 - it serves one role
        """See ``ModelKind``."""
        measured = card.metrics.get("map_50")
        if measured is None or measured >= LEAST_MAP_50:
            return None
        return f"finds hardly any garment where it is (mAP50 {measured:.2f})"


KINDS = (FashionDetectorKind(),)
