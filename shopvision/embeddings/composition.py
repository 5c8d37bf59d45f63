"""What the database must know of a composed encoder: its detector's version, and which regions it wants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from shopvision.errors import UserError
from shopvision.fashion.composition.arguments import DETECTOR_FOLDER, CompositionArguments
from shopvision.fashion.composition.found import WHOLE, FoundRegion, size_of
from shopvision.fashion.composition.wanted import wanted_regions
from shopvision.fashion.kinds import COMPOSED_KIND

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef


@dataclass(frozen=True)
class Composition:
    """A composed encoder that embeds garments.

    Attributes:
        model_version_id: of the encoder.
        detector_version_id: of its detector.
        arguments: what it is made of.
    """

    model_version_id: int
    detector_version_id: int
    arguments: CompositionArguments

    def wanted(self, found: Sequence[FoundRegion], category: str | None) -> tuple[int, ...]:
        """Numbers of the regions of a picture that get a vector, by what was found in it, region 0 first."""
        garments = found[WHOLE + 1 :]
        return wanted_regions(self.arguments.policy, self.arguments.classes, garments, size_of(found), category)

    @property
    def goes_by_category(self) -> bool:
        """Whether another category of an item can mean another region."""
        return self.arguments.policy.crop == "main" and bool(self.arguments.classes)


def composition_of(ref: ModelVersionRef) -> Composition | None:
    """What has to be known of ``ref`` to embed garments; None where whole pictures are embedded.

    Raises:
        UserError: the card is wrong, or the registry does not hold the encoder's detector.
    """
    if ref.card.kind != COMPOSED_KIND:
        return None
    try:
        arguments = CompositionArguments.model_validate(ref.card.architecture.arguments)
    except ValidationError as error:
        raise UserError(f"The card of {ref.spec} is wrong ({error.errors()[0]['msg']}): compose it anew.") from None
    if arguments.policy.crop == "whole":
        return None
    return Composition(ref.model_version_id, _detector_version(ref, arguments.detector), arguments)


def _detector_version(ref: ModelVersionRef, spec: str) -> int:
    from shopvision import models

    try:
        detector = models.find(spec)
    except UserError:
        raise UserError(
            f"{ref.spec} finds garments with the detector {spec}, which the registry does not hold: import it with "
            "`shopvision models import local-dir:FOLDER`, or compose the encoder anew with one of `shopvision models "
            "list`."
        ) from None
    inside = {f"{DETECTOR_FOLDER}/{name}": digest for name, digest in detector.card.files.items()}
    if not inside.items() <= ref.card.files.items():
        raise UserError(f"{ref.spec} holds another detector than the registry does as {spec}: compose it anew.")
    return detector.model_version_id
