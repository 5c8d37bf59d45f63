"""Pictures cut to what a detector finds in them, before a pair model looks: the detector is a part of the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import PrivateAttr

from shopvision.errors import ItemError, UserError
from shopvision.fashion.composition.found import WHOLE
from shopvision.fashion.composition.policy import CropPolicy, crop_box
from shopvision.fashion.composition.wanted import wanted_regions
from shopvision.fashion.kinds import KIND
from shopvision.images.preprocessing import Preprocessing
from shopvision.models.version_folder import FileWriter, member_folder, read_card

if TYPE_CHECKING:
    from shopvision.fashion.detection.predict import Detector
    from shopvision.images.decoding import Decoded

DETECTOR_FOLDER = "detector"
_POLICY = CropPolicy(crop="main")
# Of a garment that fills a third of the picture's side, the encoder still gets every pixel that it can use.
_CLOSER = 3


class RegionPreprocessing(Preprocessing):
    """As ``Preprocessing``, of the main garment of a picture; of the whole picture where none is found.

    Attributes:
        detector: ``name:tag`` of what finds it.
    """

    detector: str
    _folder: Path = PrivateAttr()
    _detector: Detector = PrivateAttr()

    @classmethod
    def of(cls, preprocessing: Preprocessing, folder: Path) -> Self:
        """Let the detector in ``folder`` find what of a picture is prepared.

        Raises:
            UserError: it holds no detector.
            JobError: it is damaged.
        """
        from shopvision.fashion.detection.predict import load_detector

        fields = {name: getattr(preprocessing, name) for name in Preprocessing.model_fields}
        made = cls(**fields, detector=read_card(folder, KIND).spec)
        made._folder, made._detector = folder, load_detector(folder)
        return made

    @property
    def target(self) -> tuple[int, int]:
        """See ``Preprocessing``: enough for the detector, and for a part of the picture."""
        height, width = self.resized
        return max(self._detector.target[0], _CLOSER * height), max(self._detector.target[1], _CLOSER * width)

    @property
    def whole(self) -> Preprocessing:
        """See ``Preprocessing``."""
        return Preprocessing(**{name: getattr(self, name) for name in Preprocessing.model_fields})

    def part(self, decoded: Decoded) -> Decoded:
        """See ``Preprocessing``."""
        try:
            (found,) = self._detector.detect([self._detector.prepare(decoded)])
        except ItemError:  # too long and narrow for detectors
            return decoded
        if isinstance(found, ItemError):
            return decoded
        (number,) = wanted_regions(_POLICY, {}, found, decoded.size, None)
        if number == WHOLE:
            return decoded
        return decoded.region(crop_box(found[number - 1].box, decoded.size, _POLICY.margin))

    def detector_files(self) -> FileWriter:
        """Writes the detector into a model version."""
        return member_folder(self._folder, DETECTOR_FOLDER)


def with_detector(preprocessing: Preprocessing | None, folder: Path) -> Preprocessing | None:
    """How a model version in ``folder`` prepares pictures: with its own detector, where it has one.

    Raises:
        UserError: what lies in its place is none.
        JobError: it is damaged.
    """
    place = folder / DETECTOR_FOLDER
    return (
        preprocessing if preprocessing is None or not place.is_dir() else RegionPreprocessing.of(preprocessing, place)
    )


def detector_folder(detector: str | None) -> Path:
    """The model version of a detector: a folder, ``name:tag`` of a registered one, or None for the active one.

    Raises:
        UserError: there is none of that name, or it is of another kind.
        JobError: none is active.
    """
    from shopvision import models

    if detector is not None and Path(detector).is_dir():
        return Path(detector)
    if detector is not None and "/" in detector:
        raise UserError(f"model.detector: {detector} is no folder: name the folder of a model version, or NAME:TAG.")
    return models.local_copy(models.resolve(detector, KIND))
