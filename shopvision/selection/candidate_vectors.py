"""Vectors of candidates under a model: embedded where new or changed, shared where pictures have equal bytes.

They are committed batch by batch, so what was done stays done whatever becomes of the chunk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shopvision.database import connect
from shopvision.selection.picture_vectors import share_vectors, stale_pictures

if TYPE_CHECKING:
    from shopvision.images.outcome import Failed
    from shopvision.images.pipeline import EmbeddingPipeline

BATCHES_AHEAD = 4  # between looks at what others have done


class CandidateVectors:
    """Sees to it that every candidate has a vector of what it looks like now.

    Attributes:
        failed: pictures that cannot be read now.
    """

    def __init__(self, pipeline: EmbeddingPipeline, version: int, counters: dict[str, int]) -> None:
        """Nothing is read yet.

        Args:
            pipeline: embeds.
            version: of the model that it embeds with.
            counters: ``embedded`` and ``shared`` are counted up.
        """
        self.pipeline = pipeline
        self.failed: dict[int, Failed] = {}
        self._version = version
        self._counters = counters
        self._looked_at: set[int] = set()

    def bring_up_to_date(self, image_ids: Sequence[int], should_stop: Callable[[], bool]) -> bool:
        """Embed what is new or changed among some pictures; False where it was asked to stop before the end."""
        for only_one_of_equal in (True, False):
            stale = self._stale(image_ids)
            # Of pictures with the same bytes one is embedded, and the next round shares its vector.
            chosen = {(sha256 if only_one_of_equal and sha256 else image_id): image_id for image_id, sha256 in stale}
            if not chosen:
                break
            if not self._embed(list(chosen.values()), should_stop):
                return False
        return True

    def _stale(self, image_ids: Sequence[int]) -> list[tuple[int, bytes | None]]:
        """Candidates to embed, after those were served for whose bytes there is a vector."""
        stale = stale_pictures(self._version, image_ids)
        known = [image_id for image_id, sha256 in stale.items() if sha256 is not None]
        if known and (shared := share_vectors(self._version, known)):
            self._counters["shared"] += shared
            stale = stale_pictures(self._version, image_ids)
        return [pair for pair in stale.items() if pair[0] not in self._looked_at]

    def _embed(self, image_ids: Sequence[int], should_stop: Callable[[], bool]) -> bool:
        from shopvision.embeddings.precision import precision_of
        from shopvision.embeddings.store import select_tasks, write_outcomes
        from shopvision.images.outcome import Embedded, Failed

        precision = precision_of(self.pipeline.encoder)
        self._looked_at.update(image_ids)
        # Other processes look at the same pictures at the same time. Each begins at another one, and leaves out what
        # has been done meanwhile.
        start = random.randrange(len(image_ids))  # noqa: S311 - no secret
        turned = [*image_ids[start:], *image_ids[:start]]
        step = BATCHES_AHEAD * self.pipeline.batch_size
        for first in range(0, len(turned), step):
            open_ids = list(stale_pictures(self._version, turned[first : first + step]))
            with connect() as connection:
                tasks = select_tasks(connection, self._version, open_ids)
            for batch in self.pipeline.stream(tasks):
                if batch:
                    with connect() as connection:
                        write_outcomes(connection, self._version, batch, precision)
                self._counters["embedded"] += sum(isinstance(outcome, Embedded) for outcome in batch)
                self.failed |= {outcome.image_id: outcome for outcome in batch if isinstance(outcome, Failed)}
                if should_stop():
                    return False
        return True
