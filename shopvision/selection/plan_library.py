"""The library as plans use it: one without pictures of its own looks there, and others where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from shopvision.errors import ShopvisionError, TransientError, UserError
from shopvision.index.names import RECALL_ROLE
from shopvision.selection import store
from shopvision.selection.library import (
    FoundPicture,
    Library,
    Wanted,
    calibrated_score,
    library_generation,
    require_score,
)
from shopvision.selection.plan_methods import plan_as_item
from shopvision.selection.topic import Topic

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

log = structlog.get_logger(__name__)


def recall_of(spec: str | None, least: float | None, *, insists: bool) -> str | None:
    """The recall model that finds pictures for plans; None where none serves, and nobody insists.

    Args:
        spec: ``name:tag`` of the one that is asked for.
        least: score from which on a picture is found; by default the model's own.
        insists: the job is to look at the library.

    Raises:
        UserError: no such model, it is of another kind, or nothing tells which score is enough.
        JobError: no model serves the role.
    """
    from shopvision import models

    if spec is None and not insists:
        serving = models.serves(RECALL_ROLE)
        if serving is None or (least is None and calibrated_score(models.find(serving)) is None):
            return None
        return serving
    ref = models.resolve(spec, RECALL_ROLE)
    require_score(ref, least)
    return ref.spec


def open_library(spec: str | None, least: float | None, most: int, *, insists: bool) -> Library | None:
    """The library of a pinned recall model; None where it cannot be looked at, and nobody insists.

    Raises:
        UserError: nothing was published yet.
        JobError: another model made the index for texts.
    """
    from shopvision import models

    if spec is None:
        return None
    ref: ModelVersionRef = models.find(spec)
    try:
        return Library(library_generation(ref), ref, require_score(ref, least), most)
    except TransientError:
        raise
    except ShopvisionError as error:
        if insists:
            raise
        log.info("plans_without_library", reason=str(error))
        return None


def find_pictures(
    library: Library | None, plan_ids: Sequence[str], members: Mapping[str, Sequence[int]], *, every_plan: bool
) -> dict[str, list[FoundPicture]]:
    """What the library holds for some plans' words.

    Args:
        library: where to look, if anywhere.
        plan_ids: the plans.
        members: the pictures of their members.
        every_plan: look also for those whose members have pictures.
    """
    wanting = [plan_id for plan_id in plan_ids if every_plan or not members.get(plan_id)]
    if library is None or not wanting:
        return {}
    from shopvision import models

    model: Any = models.load(library.ref.spec)
    wanted: dict[str, Wanted] = {}
    for plan_id, words in store.read_topics(wanting).items():
        try:
            text = model.text_of(plan_as_item(Topic.from_mapping(words)))
        except UserError:
            continue  # it is told where the plan is ranked
        wanted[plan_id] = Wanted(text, known=members.get(plan_id, ()))
    return dict(zip(wanted, library.find(model, list(wanted.values())), strict=True))
