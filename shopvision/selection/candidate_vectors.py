"""Vectors of plans' candidates under a ranker: embedded where new or changed, shared where pictures have equal bytes.

They are committed batch by batch, so what was done stays done whatever becomes of the chunk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shopvision.database import connect
from shopvision.selection import store

if TYPE_CHECKING:
    from shopvision.images.outcome import Failed
    from shopvision.images.pipeline import EmbeddingPipeline
    from shopvision.selection.job import RankReport

BATCHES_AHEAD = 4  # between looks at what others have done


class CandidateVectors:
    """Sees to it that every candidate has a vector of what it looks like now."""

    def __init__(self, pipeline: EmbeddingPipeline, report: RankReport) -> None:
        self.pipeline = pipeline
        self.failed: dict[int, Failed] = {}
        self._report = report
        self._looked_at: set[int] = set()

    def bring_up_to_date(self, plan_ids: Sequence[str], should_stop: Callable[[], bool]) -> bool:
        """Embed what is new or changed among the plans' candidates; False where it was asked to stop before the end."""
        for only_one_of_equal in (True, False):
            stale = self._stale(plan_ids)
            # Of pictures with the same bytes one is embedded, and the next round shares its vector.
            chosen = {(sha256 if only_one_of_equal and sha256 else image_id): image_id for image_id, sha256 in stale}
            if not chosen:
                break
            if not self._embed(list(chosen.values()), should_stop):
                return False
        return True

    def _stale(self, plan_ids: Sequence[str]) -> list[tuple[int, bytes | None]]:
        """Candidates to embed, after those were served for whose bytes there is a vector."""
        scope = self._report.scope
        stale = store.stale_pictures(scope, plan_ids)
        known = [image_id for image_id, sha256 in stale.items() if sha256 is not None]
        if known and (shared := store.share_vectors(scope, known)):
            self._report.counters["shared"] += shared
            stale = store.stale_pictures(scope, plan_ids)
        return [pair for pair in stale.items() if pair[0] not in self._looked_at]

    def _embed(self, image_ids: Sequence[int], should_stop: Callable[[], bool]) -> bool:
        from shopvision.embeddings.precision import precision_of
        from shopvision.embeddings.store import select_tasks, write_outcomes
        from shopvision.images.outcome import Embedded, Failed

        scope, precision = self._report.scope, precision_of(self.pipeline.encoder)
        self._looked_at.update(image_ids)
        # Other processes rank plans with the same pictures at the same time. Each begins at another one, and leaves out
        # what has been done meanwhile.
        start = random.randrange(len(image_ids))  # noqa: S311 - no secret
        turned = [*image_ids[start:], *image_ids[:start]]
        step = BATCHES_AHEAD * self.pipeline.batch_size
        for first in range(0, len(turned), step):
            open_ids = store.still_stale(scope, turned[first : first + step])
            with connect() as connection:
                tasks = select_tasks(connection, scope.model_version_id, open_ids)
            for batch in self.pipeline.stream(tasks):
                if batch:
                    with connect() as connection:
                        write_outcomes(connection, scope.model_version_id, batch, precision)
                self._report.counters["embedded"] += sum(isinstance(outcome, Embedded) for outcome in batch)
                self.failed |= {outcome.image_id: outcome for outcome in batch if isinstance(outcome, Failed)}
                if should_stop():
                    return False
        return True
