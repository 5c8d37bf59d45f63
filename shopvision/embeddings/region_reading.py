"""Pictures on their way to detector and encoder: decoded once, at a scale that both can use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shopvision.embeddings.region_tasks import RegionTask
from shopvision.errors import ItemError
from shopvision.images.decoding import Decoded
from shopvision.images.reader import PictureReader, PictureRequest
from shopvision.images.reducing import reduced

if TYPE_CHECKING:
    from shopvision.fashion.composition.predict import ComposedEncoder
    from shopvision.fashion.detection.predict import PreparedPicture
    from shopvision.images.door import PictureDoor

# What is kept of one picture until its garments are cut out: 16 MiB. Most take a quarter of that; the bound is for
# banners and other shapes that cannot be made small.
KEPT_PIXELS = 2**22


@dataclass(frozen=True, slots=True)
class Looked:
    """A picture between decoding and cropping.

    Attributes:
        kept: its pixels.
        inputs: what the detector reads of it; None where nothing is to be detected, because its garments are known or
            because its shape is not for detectors.
    """

    kept: Decoded
    inputs: PreparedPicture | None = None


class RegionReader(PictureReader[Looked]):
    """Keeps pixels and, where the garments are not known, prepares what the detector reads."""

    def __init__(
        self,
        door: PictureDoor,
        encoder: ComposedEncoder,
        groups: Sequence[Sequence[RegionTask]],
        *,
        threads: int,
        ahead: int,
    ) -> None:
        """Say how; nothing is read yet.

        Args:
            door: open for as long as pictures are read.
            encoder: says at which scale.
            groups: tasks by address; the place of each is the key of its request.
            threads: that fetch, decode and prepare.
            ahead: pictures that are being read or wait to be used, at most.
        """
        target = encoder.target

        def keep(decoded: Decoded) -> Looked:
            return Looked(reduced(decoded, target, KEPT_PIXELS))

        decoders = getattr(encoder, "decoding_threads", None)
        super().__init__(door, keep, target=target, threads=threads, decoders=decoders, ahead=ahead)
        self._detector = encoder.detector
        self._known = [{task.found_sha256 for task in group} for group in groups]

    def parts(self, request: PictureRequest, sha256: bytes, decoded: Decoded) -> tuple[Looked | ItemError, ...]:
        """See ``PictureReader``."""
        looked = self.prepare(decoded)
        if sha256 in self._known[request.key]:
            return (looked,)
        try:
            return (replace(looked, inputs=self._detector.prepare(looked.kept)),)
        except ItemError:  # too long and narrow: a banner, which a shop wants to be found all the same
            return (looked,)
