"""How many photos a detector looks at together, measured on made-up ones of one shape."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from shopvision.images import decoding

if TYPE_CHECKING:
    import torch

    from shopvision.encoders.tuning.record import Setting
    from shopvision.fashion.detection.predict import Detector, PreparedPicture
    from shopvision.models.part import ModelPart
    from shopvision.settings import TuningChoice, Way

# (width, height) of a photo as people post them.
PHOTO = (1080, 1350)
_OTHER_SIZES = (0.5, 0.25, 2)


class TunableDetector:
    """A detector as ``shopvision.encoders.tuning.part.TunablePart``."""

    unit = "photos"
    ways: tuple[Way, ...] = ("eager",)
    batches_at_once = 1
    precision = "float32"  # see ``load_detector``

    def __init__(self, detector: Detector, part: ModelPart | None, *, device: torch.device, usual: int) -> None:
        """Say what is measured.

        Args:
            detector: whose batches they are.
            part: which network of which model version it is.
            device: where it runs.
            usual: photos at once that are usual on this device.
        """
        self.part, self.device = part, device
        self._detector = detector
        self.batch_sizes = (usual, *(int(usual * factor) for factor in _OTHER_SIZES))

    def trial(self, setting: Setting, work: int) -> Callable[[], None]:
        """See ``TunablePart``."""
        photos = [self._photo()] * setting.batch_size

        def compute() -> None:
            for _ in range(max(1, work // setting.batch_size)):
                self._detector.boxes(photos, most=setting.batch_size)

        return compute

    def vectors(self, count: int) -> None:
        """See ``TunablePart``: boxes are no vectors."""

    def use(self, chosen: TuningChoice) -> None:
        """See ``TunablePart``."""
        self._detector.use_batches(chosen.batch_size or self.batch_sizes[0])

    def _photo(self) -> PreparedPicture:
        from PIL import Image

        coarse = np.random.default_rng(0).integers(0, 256, (27, 22, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        with decoding(file.getvalue(), target=self._detector.target) as decoded:
            return self._detector.prepare(decoded)
