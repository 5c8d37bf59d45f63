"""Items in groups, from their texts to the pictures that represent them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from shopvision.images import PictureDoor
from shopvision.images.pipeline import EmbeddingPipeline
from shopvision.selection.candidate_vectors import CandidateVectors
from shopvision.selection.item_pictures import store
from shopvision.selection.item_pictures.choosing import Candidate, choose, gather
from shopvision.selection.item_pictures.context import RankerContexts
from shopvision.selection.item_pictures.results import ItemOutcome
from shopvision.selection.item_pictures.store import Inputs, ItemRow
from shopvision.selection.library import FoundPicture, Library, Wanted
from shopvision.selection.outcomes import PASSING, as_json
from shopvision.settings import get_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.images.outcome import Failed
    from shopvision.selection.item_pictures.job import Models, SelectionReport

ITEMS_AT_ONCE = 64


@dataclass(frozen=True)
class _Ready:
    """An item whose candidates have their vectors."""

    row: ItemRow
    text: str
    candidates: list[Candidate]
    found: int
    unreadable: list[Failed]

    @property
    def item_id(self) -> str:
        return self.row.item.item_id


class Selecting:
    """Fills a report. A ``with`` block holds what pictures are read through."""

    def __init__(self, chosen: Models, library: Library | None, report: SelectionReport) -> None:
        """Load the models.

        Args:
            chosen: who selects.
            library: where pictures are looked for; None where items have their own alone.
            report: is filled.
        """
        from shopvision import models

        self._library, self._report, self._scope = library, report, report.scope
        self._recall: Any = models.load(chosen.recall.spec)
        self._contexts = None if chosen.ranker is None else RankerContexts(chosen.ranker)
        self._stack = ExitStack()

    def __enter__(self) -> Selecting:
        door = self._stack.enter_context(PictureDoor(get_settings()))
        encoders = {self._scope.recall: self._recall}
        if self._contexts is not None and self._scope.vectors not in encoders:
            encoders[self._scope.vectors] = self._contexts.ranker  # it has a picture tower of its own
        self._vectors = [
            CandidateVectors(EmbeddingPipeline(encoder, door), version, self._report.counters)
            for version, encoder in encoders.items()
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._report.model_seconds += sum(one.pipeline.model_seconds for one in self._vectors)
        self._report.model_items += self._report.counters["embedded"]

    def select(self, item_ids: Sequence[str], should_stop: Callable[[], bool]) -> None:
        """Select the pictures of some items; what is left when asked to stop is noted as remaining."""
        for start in range(0, len(item_ids), ITEMS_AT_ONCE):
            group = item_ids[start : start + ITEMS_AT_ONCE]
            if (start and should_stop()) or not self._group(group, should_stop):
                self._report.remaining += item_ids[start:]
                return

    def _group(self, item_ids: Sequence[str], should_stop: Callable[[], bool]) -> bool:
        """False where it was asked to stop before the end."""
        before = store.read_items(self._scope, item_ids)
        texts = {item_id: self._recall.text_of(row.item) for item_id, row in before.items()}
        found = self._find(before, texts)
        own = [image_id for row in before.values() for image_id in row.image_ids]
        library = [one.image_id for pictures in found.values() for one in pictures]
        for vectors in self._vectors:
            # What is found has the recall model's vector, or it would not be.
            wanted = own if vectors is self._vectors[0] else sorted({*own, *library})
            if not vectors.bring_up_to_date(wanted, should_stop):
                return False
        inputs = store.read_inputs(self._scope, item_ids, library)
        ready = []
        for item_id, row in inputs.items.items():
            if row.content_hash != before[item_id].content_hash or row.image_ids != before[item_id].image_ids:
                self._report.remaining.append(item_id)  # it changed this moment
                continue
            one = self._ready(row, texts[item_id], found.get(item_id, []), inputs)
            failure = self._failure(one)
            if failure is None:
                ready.append(one)
            else:
                self._report.add(failure)
        self._choose(ready)
        return True

    def _find(self, rows: Mapping[str, ItemRow], texts: Mapping[str, str]) -> dict[str, list[FoundPicture]]:
        if self._library is None:
            return {}
        wanted = [Wanted(texts[item_id], row.image_ids, row.item.category or None) for item_id, row in rows.items()]
        return dict(zip(rows, self._library.find(self._recall, wanted), strict=True))

    def _ready(self, row: ItemRow, text: str, found: Sequence[FoundPicture], inputs: Inputs) -> _Ready:
        failed = {image_id: one for vectors in self._vectors for image_id, one in vectors.failed.items()}
        # What an old vector says of a picture that cannot be read now does not count.
        own = [image_id for image_id in row.image_ids if image_id not in failed]
        candidates = gather(own, found, inputs.recall, inputs.ranker)
        unreadable = [failed[image_id] for image_id in sorted(row.image_ids) if image_id in failed]
        return _Ready(row, text, candidates, sum(one.source != "own" for one in candidates), unreadable)

    def _failure(self, one: _Ready) -> ItemOutcome | None:
        """Why an item cannot have pictures, if it cannot."""
        if not one.text:
            return self._outcome(
                one, failure=("no_text", "It has no words that pictures could be compared with: give it a title.")
            )
        if one.candidates:
            return None
        if one.unreadable:
            first = f"{len(one.unreadable)} in all, the first: {one.unreadable[0].code}: {one.unreadable[0].message}"
            return self._outcome(one, failure=("no_readable_candidates", f"None of its pictures can be read ({first})"))
        nothing = "" if self._library is None else ", and the library holds none that shows what its text says"
        return self._outcome(one, failure=("no_candidates", f"It has no picture{nothing}: give it one."))

    def _choose(self, ready: Sequence[_Ready]) -> None:
        if not ready:
            return
        started = time.perf_counter()
        queries = self._recall.encode_texts([one.text for one in ready])
        clicks = self._clicks(ready)
        self._report.model_seconds += time.perf_counter() - started
        self._report.model_items += len(ready)
        for one, query, scores in zip(ready, queries, clicks, strict=True):
            pictures, repeated = choose(
                one.candidates, query, scores, top_k=self._scope.top_k, nearly_same=self._scope.nearly_same
            )
            self._report.add(self._outcome(one, pictures=pictures, repeated=repeated))

    def _clicks(self, ready: Sequence[_Ready]) -> Sequence[NDArray[np.float32] | None]:
        """The ranker's scores of each item's candidates; None without one."""
        if self._contexts is None:
            return [None] * len(ready)
        contexts = self._contexts.of([one.row.item for one in ready])
        pictures = [np.stack([candidate.ranked for candidate in one.candidates]) for one in ready]
        scores: list[NDArray[np.float32]] = self._contexts.ranker.scores_of_items(pictures, contexts)
        return scores

    @staticmethod
    def _outcome(one: _Ready, **came_of_it: Any) -> ItemOutcome:
        passing = any(failed.code in PASSING for failed in one.unreadable)
        return ItemOutcome(
            one.item_id, one.row.read_at, None if passing else one.row.input_hash, one.text,
            candidates=len(one.candidates) + len(one.unreadable), found=one.found, unreadable=as_json(one.unreadable),
            **came_of_it,
        )  # fmt: skip
