"""What a network is run with: the settings' word first, then what was measured here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shopvision.encoders.tuning.machine import this_machine
from shopvision.encoders.tuning.store import TuningStore
from shopvision.settings import TuningChoice, get_settings

if TYPE_CHECKING:
    from shopvision.models.part import ModelPart


def tuning_of(part: ModelPart | None, *, threads: int, device: str = "cpu") -> TuningChoice:
    """How to run ``part`` in this process; what is None is left to the caller's default.

    ``SHOPVISION_TUNING`` comes before what was measured. With ``SHOPVISION_FAST_PATHS=false`` nothing measured is used.

    Args:
        part: of a model version; None for a network of none, which is never measured.
        threads: that this process computes with.
        device: see ``this_machine``.
    """
    settings = get_settings()
    if part is None:
        return TuningChoice()
    found = TuningStore(settings.home).load(part, this_machine(threads, device)) if settings.fast_paths else None
    return with_settings(part, TuningChoice() if found is None else found.chosen)


def with_settings(part: ModelPart, chosen: TuningChoice) -> TuningChoice:
    """``chosen``, with what ``SHOPVISION_TUNING`` says of ``part`` in its place."""
    settings = get_settings()
    for name in ("*", part.spec.partition(":")[0], part.spec, f"{part.spec}/{part.name}"):
        if name in settings.tuning:
            chosen = chosen.model_copy(update=settings.tuning[name].model_dump(exclude_none=True))
    return chosen
