"""Pictures that represent items: what ``tasks.select_images`` asks for.

Two stages. An item's own pictures, and where that is asked for those that the library is found to hold for its text,
are its candidates; they are ordered by the clicks to expect, or where no ranker serves by how well they show the text.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from shopvision.catalogue.known_ids import require_items
from shopvision.errors import JobError
from shopvision.index.names import RECALL_ROLE
from shopvision.selection.item_pictures import store
from shopvision.selection.item_pictures.results import ItemOutcome, write_outcomes
from shopvision.selection.item_pictures.store import Scope
from shopvision.selection.library import Library, library_generation, require_score
from shopvision.selection.plan_methods import vectors_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from shopvision.models import ModelVersionRef

RANKER_ROLE = "image_ranker"
COUNTERS = ("candidates", "found", "repeated", "unreadable", "embedded", "shared", "top_changed")

WITHOUT_MODEL = {
    "items": 0,
    "reason": f"No model serves the role {RECALL_ROLE}, so no picture was selected: "
    f"`shopvision models activate {RECALL_ROLE} NAME:TAG` sets one.",
}


class SelectionParams(Protocol):
    """A selection job's parameters; ``tasks.select_images.SelectParams`` says what they mean."""

    scope: Literal["changed", "all"]
    item_ids: list[str] | None
    library: bool
    top_k: int
    most_found: int
    least_score: float | None
    nearly_same: float
    recall: str | None
    ranker: str | None


@dataclass
class SelectionReport:
    """What one chunk came to. ``write`` stores the pictures; the caller decides in which transaction.

    Attributes:
        remaining: items not looked at because the chunk was asked to stop.
        counters: see ``COUNTERS``: candidates, among them those found in the library, repeated and unreadable ones;
            embedded (pictures that went through a model), shared (that got the vector of another picture with the same
            bytes), and, once written, top_changed.
        model_seconds: time that pictures and texts spent in models.
        model_items: how many of both there were.
    """

    scope: Scope
    job_id: uuid.UUID
    outcomes: list[ItemOutcome] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    model_seconds: float = 0.0
    model_items: int = 0

    @property
    def selected(self) -> int:
        """Items that have pictures."""
        return sum(one.failure is None for one in self.outcomes)

    @property
    def failed(self) -> list[tuple[str, str, str]]:
        """(item_id, code, message) of those that have none."""
        return [(one.item_id, *one.failure) for one in self.outcomes if one.failure is not None]

    def add(self, outcome: ItemOutcome) -> None:
        """Keep and count what became of an item."""
        self.outcomes.append(outcome)
        self.counters["candidates"] += outcome.candidates
        self.counters["found"] += outcome.found
        self.counters["repeated"] += outcome.repeated
        self.counters["unreadable"] += len(outcome.unreadable)

    def write(self, connection: Connection) -> None:
        """Replace the items' pictures, and count those that got another leading one."""
        self.counters["top_changed"] = write_outcomes(connection, self.scope, self.job_id, self.outcomes)


@dataclass(frozen=True)
class Models:
    """Who selects.

    Attributes:
        recall: finds pictures by text, and says how well they show it.
        ranker: orders them by the clicks to expect; None where the recall model orders them.
    """

    recall: ModelVersionRef
    ranker: ModelVersionRef | None

    @property
    def ordering(self) -> ModelVersionRef:
        """Whatever orders the pictures."""
        return self.ranker or self.recall


def resolved(recall: str | None, ranker: str | None) -> Models:
    """Model versions by their names; what is None is the one active for its role, and a ranker may be none.

    Raises:
        UserError: no such version, or it is of another kind.
        JobError: no model serves image_recall, or the ranker reads vectors of another recall model.
    """
    from shopvision import models

    found = models.resolve(recall, RECALL_ROLE)
    if ranker is None and models.serves(RANKER_ROLE) is None:
        return Models(found, None)
    return pinned(found.spec, models.resolve(ranker, RANKER_ROLE).spec)


def pinned(recall: str, ranker: str | None) -> Models:
    """Model versions of a pinned job.

    Raises:
        UserError: no such version.
        JobError: the ranker reads vectors of another recall model.
    """
    from shopvision import models

    found = Models(models.find(recall), None if ranker is None else models.find(ranker))
    read = vectors_of(found.ordering)
    if read.spec not in {found.recall.spec, found.ordering.spec}:
        raise JobError(
            f"{found.ordering.spec} reads vectors of {read.spec}, not of {recall}, which serves {RECALL_ROLE}: "
            f"activate {read.spec} for {RECALL_ROLE}, or another model for {RANKER_ROLE}."
        )
    return found


def pin(params: SelectionParams) -> dict[str, Any]:
    """What of a job's parameters must not change while it runs, by name; nothing where it has nothing to do.

    A routine job has nothing to do while no recall model serves; whoever asks for more gets an error.

    Raises:
        UserError: no such model, one of another kind, or nothing tells which pictures of the library are good enough.
        JobError: no model serves image_recall, models do not fit together, or the library's index is another model's.
    """
    from shopvision import models

    asked = (params.recall, params.ranker, params.item_ids)
    if asked == (None, None, None) and params.scope == "changed" and models.serves(RECALL_ROLE) is None:
        return {}
    found = resolved(params.recall, params.ranker)
    if params.library:
        require_score(found.recall, params.least_score)
        library_generation(found.recall)
    return {"recall": found.recall.spec, "ranker": None if found.ranker is None else found.ranker.spec}


def method_of(params: SelectionParams) -> str:
    """The kind of the model that orders the pictures of a pinned job."""
    return pinned(str(params.recall), params.ranker).ordering.card.kind


def items_in_scope(params: SelectionParams, should_stop: Callable[[], bool]) -> Iterable[str]:
    """Ids of the items to look at, by pinned parameters; first what they belong to is brought up to date.

    Args:
        params: pinned.
        should_stop: asked meanwhile.

    Raises:
        UserError: an item that is named does not exist.
    """
    if params.recall is None:
        return ()
    if params.item_ids is not None:
        return require_items(params.item_ids)
    models = pinned(params.recall, params.ranker)
    if models.ranker is not None:
        from shopvision.selection.item_pictures.context import RankerContexts

        RankerContexts(models.ranker).refresh(should_stop)
    return store.items_to_select(_scope(params, models, _library(params, models)), everything=params.scope == "all")


def work(
    params: SelectionParams, item_ids: Sequence[str], *, job_id: uuid.UUID, should_stop: Callable[[], bool]
) -> SelectionReport:
    """Select the pictures of one chunk's items, by pinned parameters. No database connection is held while a model
    computes.

    Args:
        params: pinned.
        item_ids: those that left the catalogue since are dropped without a word.
        job_id: noted with each selection.
        should_stop: asked after every batch of pictures, and after every group of items.
    """
    from shopvision.selection.item_pictures.selecting import Selecting

    models = pinned(str(params.recall), params.ranker)
    library = _library(params, models)
    report = SelectionReport(_scope(params, models, library), job_id)
    with Selecting(models, library, report) as selecting:
        selecting.select(item_ids, should_stop)
    return report


def _library(params: SelectionParams, models: Models) -> Library | None:
    if not params.library:
        return None
    least = require_score(models.recall, params.least_score)
    return Library(library_generation(models.recall), models.recall, least, params.most_found, params.nearly_same)


def _scope(params: SelectionParams, models: Models, library: Library | None) -> Scope:
    return Scope(
        models.ordering.model_version_id,
        models.recall.model_version_id,
        vectors_of(models.ordering).model_version_id,
        params.top_k,
        params.nearly_same,
        "" if library is None else library.mark,
    )
