"""Kinds of model that know garments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.models.kinds import ImportScheme, ModelKind, Precision

if TYPE_CHECKING:
    from shopvision.fashion.composition.predict import ComposedEncoder
    from shopvision.fashion.detection.predict import Detector
    from shopvision.fashion.thumbnails.classifier import ThumbnailClassifier
    from shopvision.models.card import ModelCard

KIND = "fashion_detector"
COMPOSED_KIND = "composed_encoder"
CLASSIFIER_KIND = "thumbnail_classifier"
# Boxes drawn at random are far below; one that is of use to a shop is far above.
LEAST_MAP_50 = 0.1


def _from_transformers(source: str, folder: Path) -> ModelCard:
    from shopvision.fashion.detection.sources import import_detector

    return import_detector(source, folder)


def _from_published(file: str, folder: Path, *, labels: str | None = None) -> ModelCard:
    from shopvision.fashion.thumbnails.published_classifier import import_classifier

    return import_classifier(file, folder, labels=labels)


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


class ThumbnailClassifierKind(ModelKind):
    """What a product's picture shows."""

    name = CLASSIFIER_KIND
    roles = (CLASSIFIER_KIND,)
    schemes = (
        ImportScheme(
            "classifier", "FILE", "a published thumbnail classifier (ViT), a file of PyTorch", _from_published,
            {"labels": "its classes in their order, with commas between, where they are others than the published"},
        ),
    )  # fmt: skip

    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> ThumbnailClassifier:
        """See ``ModelKind``."""
        from shopvision.fashion.thumbnails.classifier import load_classifier

        return load_classifier(folder, device=device, precision=precision)

    def doubt(self, card: ModelCard, role: str) -> str | None:  # noqa: ARG002 - it serves one role
        """See ``ModelKind``."""
        found, constant = (card.metrics.get(name) for name in ("accuracy", "constant_answer_accuracy"))
        if found is None or constant is None or found > constant:
            return None
        return f"is right no more often than who always says the most frequent class ({found:.2f} and {constant:.2f})"


class ComposedEncoderKind(ModelKind):
    """Pictures to vectors of the garments in them, by a detector and encoders; ``shopvision models compose``."""

    name = COMPOSED_KIND
    roles = ("catalogue_encoder",)

    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> ComposedEncoder:
        """See ``ModelKind``."""
        from shopvision.fashion.composition.predict import load_composed

        return load_composed(folder, device=device, precision=precision)


KINDS = (FashionDetectorKind(), ThumbnailClassifierKind(), ComposedEncoderKind())
