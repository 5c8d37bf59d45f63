"""Texts to search with, as the model reads them that made the index of what texts are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shopvision import models
from shopvision.errors import UserError
from shopvision.index.names import RECALL_ROLE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shopvision.index.generation import Generation
    from shopvision.index.reader import IndexReader

SCORE = "score"  # of a card's thresholds


@dataclass(frozen=True)
class TextQueries:
    """Texts that one generation of the index is searched with.

    Attributes:
        generation: of the index for texts.
        texts: n of them, without blanks around them.
        vectors: (n, d) float32 of unit length.
        notes: of each text, what there is to say before anything is found.
        least_score: cosine from which on a picture shows what a text says; None where the model's card does not tell.
        seconds: that the model took.
    """

    generation: Generation
    texts: list[str]
    vectors: NDArray[np.float32]
    notes: list[list[str]]
    least_score: float | None
    seconds: float


def text_queries(index: IndexReader, load: Callable[[str], Any], texts: Sequence[str]) -> TextQueries:
    """Vectors of texts, by the model that made the index.

    Args:
        index: for texts.
        load: gives the model of a version ``name:tag``.
        texts: some.

    Raises:
        UserError: a text is empty, no model reads texts, or no picture was embedded for them yet.
    """
    words = [text.strip() for text in texts]
    if not words or not all(words):
        raise UserError("The text is empty: say in words what the pictures are to show.")
    generation = _generation(index)
    model = load(generation.model)
    notes = [
        [f"The text is longer than {generation.model} reads: it was cut after {model.max_tokens} tokens."]
        if cut
        else []
        for cut in model.are_cut(words)
    ]
    started = time.perf_counter()
    vectors = model.encode_texts(words)
    seconds = time.perf_counter() - started
    return TextQueries(generation, words, vectors, notes, model.card.thresholds.get(SCORE), seconds)


def _generation(index: IndexReader) -> Generation:
    try:
        return index.generation()
    except UserError as error:
        then = f"`shopvision jobs submit refresh_embeddings role={RECALL_ROLE} --wait`"
        if models.serves(RECALL_ROLE) is None:
            raise UserError(
                f"Nothing can be searched by text yet, because no model serves the role {RECALL_ROLE}: train one or "
                f"import it, `shopvision models activate {RECALL_ROLE} NAME:TAG`, then {then}."
            ) from None
        raise UserError(f"Nothing can be searched by text yet: {error} {then} embeds the pictures for it.") from None
