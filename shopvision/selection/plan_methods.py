"""How the pictures of plans are ranked: by CLIK, by how well they show the plan's words, or by the clicks to expect."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shopvision.errors import UserError
from shopvision.items.item import Item

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images.pipeline import Encoder
    from shopvision.models import ModelVersionRef
    from shopvision.selection.topic import Topic

    Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]

CLIK, RECALL, CLICK = KINDS = ("plan_ranker", "image_recall", "image_ranker")


class PlanMethod(ABC):
    """A model that ranks a plan's pictures; ``encoder`` embeds them for it."""

    encoder: Encoder

    @abstractmethod
    def scorer(self, topics: Sequence[Topic]) -> list[Scorer]:
        """For each topic what gives the scores of pictures, (n, h) float32 -> (n,) float32; higher is better.

        Raises:
            UserError: the model takes no such topic.
        """

    def scorers(self, topics: Sequence[Topic]) -> list[Scorer | UserError]:
        """Likewise, or why there is none; one by one only where one is refused."""
        if not topics:
            return []
        try:
            return list(self.scorer(topics))
        except UserError as error:
            return [error] if len(topics) == 1 else [one for topic in topics for one in self.scorers([topic])]


def plan_method(ref: ModelVersionRef) -> PlanMethod:
    """The way of a model version, by its kind."""
    from shopvision import models

    model = models.load(ref.spec)
    if ref.card.kind == CLIK:
        return _Clik(model)
    return _Recall(model) if ref.card.kind == RECALL else _Click(model)


def vectors_of(ref: ModelVersionRef) -> ModelVersionRef:
    """The model version whose vectors of pictures a model reads: a click ranker may read those of its recall model.

    Raises:
        UserError: the registry does not hold that.
    """
    from shopvision import models

    spec = ref.card.architecture.arguments.get("recall") if ref.card.kind == CLICK else None
    return ref if spec is None else models.find(spec)


def plan_as_item(topic: Topic) -> Item:
    """A plan as pictures are looked for by: its name and keywords are the title."""
    categories = [one for one in (topic.cat1, topic.cat2, topic.cat3, topic.cat4) if one]
    return Item("", title=", ".join(filter(None, [topic.name, *topic.kwds.split(",")])), category="/".join(categories))


class _Clik(PlanMethod):
    def __init__(self, model: Any) -> None:
        self.encoder, self._model = model.image_encoder, model

    def scorer(self, topics: Sequence[Topic]) -> list[Scorer]:
        return [_products(query) for query in self._model.query_vectors(topics)]


class _Recall(PlanMethod):
    def __init__(self, model: Any) -> None:
        self.encoder, self._model = model, model

    def scorer(self, topics: Sequence[Topic]) -> list[Scorer]:
        texts = [self._model.text_of(plan_as_item(topic)) for topic in topics]
        return [_products(query) for query in self._model.encode_texts(texts)]


class _Click(PlanMethod):
    def __init__(self, model: Any) -> None:
        self.encoder, self._model = model, model

    def scorer(self, topics: Sequence[Topic]) -> list[Scorer]:
        texts = [self._model.text_of(plan_as_item(topic).title, []) for topic in topics]
        contexts = self._model.contexts(texts, [[] for _ in topics])
        return [_clicks(self._model, context) for context in contexts]


def _products(query: NDArray[np.float32]) -> Scorer:
    return lambda vectors: vectors @ query


def _clicks(model: Any, context: Any) -> Scorer:
    def scores(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model.scores(vectors, context)
        return found

    return scores
