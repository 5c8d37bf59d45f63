"""Composing from what the registry holds, and into it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from shopvision import models
from shopvision.errors import UserError
from shopvision.fashion.composition.card import compose
from shopvision.fashion.composition.policy import CropPolicy
from shopvision.fashion.kinds import KIND as DETECTOR_KIND
from shopvision.models import ModelVersionRef
from shopvision.models.version_folder import read_card


def compose_version(
    detector: Path,
    encoder: Path,
    *,
    by_class: Mapping[str, Path],
    policy: CropPolicy,
    classes: Mapping[str, str],
    name: str,
    tag: str | None = None,
) -> ModelVersionRef:
    """Compose an encoder of model versions and bring it into the registry; see ``compose``.

    Raises:
        UserError: see ``compose``; or the registry does not hold the detector, by which what it finds is stored.
    """
    require_registered(detector)
    with tempfile.TemporaryDirectory(prefix="compose-") as temporary:
        folder = Path(temporary, "model")
        compose(
            folder, detector=detector, encoder=encoder, by_class=by_class, policy=policy, classes=classes, name=name,
            tag=tag,
        )  # fmt: skip
        return models.import_model(f"local-dir:{folder}")


def require_registered(folder: Path) -> None:
    """Refuse a detector that the registry does not hold as it is.

    Raises:
        UserError: it is none, or says how to bring it in.
    """
    card = read_card(folder, DETECTOR_KIND)
    if not any(ref.spec == card.spec and ref.card == card for ref in models.list_versions()):
        raise UserError(
            f"The registry does not hold the detector {card.spec} of {folder}, and what a detector finds is stored by "
            f"its version there: `shopvision models import local-dir:{folder}` brings it in."
        )
