"""Embedding pictures that are new or changed, and publishing at the end: what ``tasks.refresh_embeddings`` asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

from shopvision.embeddings.composition import composition_of
from shopvision.embeddings.publishing import publish_index
from shopvision.embeddings.refresh import BegunRefresh, RefreshReport, embed_images
from shopvision.embeddings.scope import images_in_scope, images_seen_newer
from shopvision.index.names import CATALOGUE_ROLE, index_name, indexed_role

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

WITHOUT_MODEL = (
    "No model serves the role {role}, so no picture was embedded: `shopvision models activate {role} NAME:TAG` sets "
    "one."
)
LEFT_ALONE = timedelta(hours=24)  # how long a run without ``verify`` leaves out what failed
PASSING = ("unavailable", "timeout")  # failures that may be over in an hour


class RefreshParams(Protocol):
    """A refresh's parameters; ``tasks.refresh_embeddings.RefreshParams`` says what they mean."""

    scope: Literal["changed", "all"]
    item_ids: list[str] | None
    verify: bool
    role: Literal["catalogue_encoder", "image_recall"] | None
    model: str | None
    publish: bool | None


def resolve_model(spec: str | None, role: str | None = None) -> ModelVersionRef:
    """The image tower called ``spec`` (``name:tag``), or the one active for ``role``, by default catalogue_encoder.

    Raises:
        UserError: there is no such version, or its vectors are in no index.
        JobError: no model serves the role.
    """
    from shopvision import models

    if spec is None:
        return models.active(role or CATALOGUE_ROLE)
    ref = models.find(spec)
    indexed_role(ref.card.kind)
    return ref


def pin(params: RefreshParams) -> dict[str, Any]:
    """What of a job's parameters must not change while it runs, by name; nothing where it has nothing to do.

    A routine job for texts has nothing to do while no model serves them; whoever asks for more gets an error.

    Raises:
        UserError: there is no such model, or it is composed with a detector that the registry does not hold.
        JobError: no model serves the role.
    """
    from shopvision import models

    is_routine = params.model is None and params.scope == "changed" and params.item_ids is None
    if is_routine and params.role not in {None, CATALOGUE_ROLE} and models.serves(params.role) is None:
        return {}
    ref = resolve_model(params.model, params.role)
    composition_of(ref)
    serving = models.serves(indexed_role(ref.card.kind))
    publish = ref.spec == serving if params.publish is None else params.publish
    return {"model": ref.spec, "role": None, "publish": publish}


def images_to_look_at(params: RefreshParams, recently_failed: Callable[[], Collection[str]]) -> Iterator[int]:
    """Ids of the pictures of a job, by pinned parameters, streamed.

    Args:
        params: pinned.
        recently_failed: ids, as text, of what failed within ``LEFT_ALONE`` for a reason that does not pass by itself.
    """
    if params.model is None:
        return
    only_unseen = params.scope == "changed" and not params.verify
    # A picture that is broken for good would otherwise fail again every hour.
    hopeless = set(map(int, recently_failed())) if only_unseen else set()
    ref = resolve_model(params.model)
    for image_id in images_in_scope(ref, item_ids=params.item_ids, only_unseen=only_unseen):
        if image_id not in hopeless:
            yield image_id
    if only_unseen:
        yield from images_seen_newer(ref, item_ids=params.item_ids)


def work(
    params: RefreshParams,
    image_ids: Sequence[int],
    should_stop: Callable[[], bool],
    next_ids: Callable[[], Sequence[int] | None],
    begun: object,
) -> RefreshReport:
    """Embed one chunk's pictures, by pinned parameters; see ``embed_images``."""
    return embed_images(
        resolve_model(params.model),
        image_ids,
        everything=params.scope == "all",
        should_stop=should_stop,
        next_ids=next_ids,
        begun=begun if isinstance(begun, BegunRefresh) else None,
    )


def finish(params: RefreshParams) -> dict[str, Any]:
    """Publish what changed, where that was asked for."""
    if params.model is None:
        return {"published": False, "reason": WITHOUT_MODEL.format(role=params.role)}
    if not params.publish:
        return {"published": False}
    ref = resolve_model(params.model)
    return publish_index(index_name(indexed_role(ref.card.kind)), ref)
