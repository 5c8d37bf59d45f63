"""Embedding pictures that are new or changed, and publishing at the end: what ``tasks.refresh_embeddings`` asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

from shopvision.embeddings.composition import composition_of
from shopvision.embeddings.publishing import publish_index
from shopvision.embeddings.refresh import RefreshReport, embed_images
from shopvision.embeddings.scope import images_in_scope

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

ROLE = "catalogue_encoder"
LEFT_ALONE = timedelta(hours=24)  # how long a run without ``verify`` leaves out what failed
PASSING = ("unavailable", "timeout")  # failures that may be over in an hour


class RefreshParams(Protocol):
    """A refresh's parameters; ``tasks.refresh_embeddings.RefreshParams`` says what they mean."""

    scope: Literal["changed", "all"]
    item_ids: list[str] | None
    verify: bool
    model: str | None
    publish: bool | None


def resolve_model(spec: str | None) -> ModelVersionRef:
    """The model version called ``spec`` (``name:tag``), or the one active for the role; see ``models.resolve``."""
    from shopvision import models

    return models.resolve(spec, ROLE)


def pin(params: RefreshParams) -> dict[str, Any]:
    """What of a job's parameters must not change while it runs, by name.

    Raises:
        UserError: there is no such model, or it is composed with a detector that the registry does not hold.
        JobError: no model serves the role.
    """
    ref = resolve_model(params.model)
    composition_of(ref)
    return {
        "model": ref.spec,
        "publish": ref.spec == resolve_model(None).spec if params.publish is None else params.publish,
    }


def images_to_look_at(params: RefreshParams, recently_failed: Callable[[], Collection[str]]) -> Iterator[int]:
    """Ids of the pictures of a job, by pinned parameters, streamed.

    Args:
        params: pinned.
        recently_failed: ids, as text, of what failed within ``LEFT_ALONE`` for a reason that does not pass by itself.
    """
    only_unseen = params.scope == "changed" and not params.verify
    # A picture that is broken for good would otherwise fail again every hour.
    hopeless = set(map(int, recently_failed())) if only_unseen else set()
    ref = resolve_model(params.model)
    for image_id in images_in_scope(ref, item_ids=params.item_ids, only_unseen=only_unseen):
        if image_id not in hopeless:
            yield image_id


def work(params: RefreshParams, image_ids: Sequence[int], should_stop: Callable[[], bool]) -> RefreshReport:
    """Embed one chunk's pictures, by pinned parameters; see ``embed_images``."""
    ref = resolve_model(params.model)
    return embed_images(ref, image_ids, everything=params.scope == "all", should_stop=should_stop)


def finish(params: RefreshParams) -> dict[str, Any]:
    """Publish what changed, where that was asked for."""
    from shopvision.settings import get_settings

    if not params.publish:
        return {"published": False}
    return publish_index(get_settings().index_name, resolve_model(params.model))
