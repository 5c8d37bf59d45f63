"""Pictures of the whole library that show what a text says: the first of two stages, for plans and for items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shopvision.database import connect
from shopvision.errors import JobError, UserError
from shopvision.images.near_duplicates import leaders
from shopvision.index.names import RECALL_ROLE, index_name
from shopvision.selection.picture_vectors import read_vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.index.generation import Generation, Hit
    from shopvision.models import ModelVersionRef

SCORE = "score"  # of a card's thresholds
NEARLY_SAME = 0.98
# Asked for beyond those wanted, because some are nearly the same.
SPARE = 2


class TextTower(Protocol):
    """What the library needs of a recall model."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """n texts -> (n, d) float32 of unit length."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What pictures are looked for.

    Attributes:
        text: what they are to show; an empty one finds nothing.
        known: pictures that are candidates anyway: neither they nor what is nearly the same is found.
        category: pictures of items in this category, and below it, come first.
    """

    text: str
    known: Sequence[int] = ()
    category: str | None = None


@dataclass(frozen=True, slots=True)
class FoundPicture:
    """A picture of the library.

    Attributes:
        score: cosine of picture and text.
        in_category: whether it is of the category that comes first.
        stands_for: other pictures that are nearly the same.
    """

    image_id: int
    score: float
    in_category: bool
    stands_for: tuple[int, ...] = ()


def calibrated_score(ref: ModelVersionRef) -> float | None:
    """The cosine from which on a picture shows what a text says, as the recall model's card tells it."""
    return ref.card.thresholds.get(SCORE)


def require_score(ref: ModelVersionRef, least: float | None) -> float:
    """The least score of a picture of the library: what was asked for, or the calibrated one.

    Raises:
        UserError: the model has none.
    """
    found = calibrated_score(ref) if least is None else least
    if found is None:
        raise UserError(
            f"{ref.spec} has no calibrated score, so nothing tells which pictures of the library show what a text "
            "says: give least_score, or evaluate the model and import it with one."
        )
    return found


def library_generation(ref: ModelVersionRef) -> Generation:
    """The current generation of the index for texts.

    Raises:
        UserError: nothing was published yet.
        JobError: another model made it.
    """
    from shopvision.index.opening import open_index

    name = index_name(RECALL_ROLE)
    try:
        index = open_index(name)
        index.refresh()  # a job takes the newest one; a reader by itself goes on with the former until it is open
        generation = index.generation()
    except UserError as error:
        raise UserError(
            f"{error} `shopvision jobs submit refresh_embeddings role={RECALL_ROLE} --wait` does it."
        ) from None
    if generation.model != ref.spec:
        raise JobError(
            f"Index {name!r} holds vectors of {generation.model}, not of {ref.spec}: `shopvision jobs submit "
            f"refresh_embeddings model={ref.spec} publish=true --wait` moves it."
        )
    return generation


@dataclass(frozen=True)
class Library:
    """One generation of the index for texts, and the model that made it.

    Attributes:
        least: score from which on a picture is found.
        most: pictures found for one text.
        nearly_same: of pictures that are nearer than this cosine one is found.
    """

    generation: Generation
    ref: ModelVersionRef
    least: float
    most: int
    nearly_same: float = NEARLY_SAME

    @property
    def mark(self) -> str:
        """What is found depends on this beside text, category and known pictures."""
        return f"{self.generation.path} {self.least:.6g} {self.most} {self.nearly_same:.6g}"

    def find(self, model: TextTower, wanted: Sequence[Wanted]) -> list[list[FoundPicture]]:
        """The pictures for each text: those of its category first, then by falling score."""
        asked = [place for place, one in enumerate(wanted) if one.text]
        found: list[list[FoundPicture]] = [[] for _ in wanted]
        if not asked:
            return found
        queries = model.encode_texts([wanted[place].text for place in asked])
        by_category: dict[str | None, list[int]] = {}
        for number, place in enumerate(asked):
            by_category.setdefault(wanted[place].category, []).append(number)
        for category, numbers in by_category.items():
            hits = self._hits(queries[numbers], category)
            for number, of_one in zip(numbers, hits, strict=True):
                found[asked[number]] = self._distinct(wanted[asked[number]], of_one)
        return found

    def _hits(self, queries: NDArray[np.float32], category: str | None) -> list[list[tuple[Hit, bool]]]:
        """Those that score enough, of the category first."""
        wanted = SPARE * self.most
        everywhere = self.generation.search(queries, wanted)
        inside: list[list[Hit]] = [[] for _ in queries]
        if category is not None:
            inside = self.generation.search(queries, wanted, category, soft=False)
        merged = []
        for mine, others in zip(inside, everywhere, strict=True):
            first = {hit.image_id: hit for hit in mine if hit.score >= self.least}
            rest = [hit for hit in others if hit.score >= self.least and hit.image_id not in first]
            merged.append([*((hit, True) for hit in first.values()), *((hit, False) for hit in rest)])
        return merged

    def _distinct(self, wanted: Wanted, hits: Sequence[tuple[Hit, bool]]) -> list[FoundPicture]:
        """Of nearly the same pictures the first; none that is known, or nearly the same as one that is."""
        known = set(wanted.known)
        hits = [one for one in hits if one[0].image_id not in known]
        if not hits:
            return []
        with connect() as connection:
            ids = [*known, *(hit.image_id for hit, _ in hits)]
            stored = read_vectors(connection, self.ref.model_version_id, ids)
        # One that has no vector any more left the catalogue.
        order = [one for one in [*sorted(known), *(hit.image_id for hit, _ in hits)] if one in stored]
        if not order:
            return []
        stacked = np.stack([stored[one].vector for one in order])
        first = leaders(stacked, self.nearly_same, [stored[one].sha256 for one in order])
        places = {image_id: order[row] for image_id, row in zip(order, first.tolist(), strict=True)}
        stands_for: dict[int, list[int]] = {}
        for image_id, leader in places.items():
            if leader != image_id:
                stands_for.setdefault(leader, []).append(image_id)
        found = [
            FoundPicture(hit.image_id, hit.score, in_category, tuple(stands_for.get(hit.image_id, ())))
            for hit, in_category in hits
            if places.get(hit.image_id) == hit.image_id
        ]
        return found[: self.most]
