"""Networks of pair models prepared for a device, and run over many items or pairs.

Letters in shapes: n pairs, m items, d dimensions of what is kept of an item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from shopvision.encoders.image_encoder import BATCH_SIZE
from shopvision.errors import JobError
from shopvision.matching.families._network import ItemNetwork, ItemReader, PairNetwork, PairReader
from shopvision.matching.scoring.batching import TOKENS_AT_ONCE, ShouldStop, run_batches, thread_count, token_batches
from shopvision.matching.scoring.head_similarity import HeadSimilarity, head_similarity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from shopvision.items.item import Item
    from shopvision.matching.families._network import Rows

    Floats = NDArray[np.float32]

# Of a head on two vectors: 1,024 dimensions and an interaction head make 128 MiB of them.
PAIRS_AT_ONCE = 8192


Network = TypeVar("Network", bound=PairNetwork | ItemNetwork)
Reader = TypeVar("Reader")


class _Runner(Generic[Network, Reader]):
    """A network on its device, with the reader of its inputs.

    Attributes:
        tokens_at_once: of a batch, at most; None is what is usual on this device.
    """

    def __init__(
        self,
        network: Network,
        reader: Reader,
        *,
        device: torch.device,
        dtype: torch.dtype,
        symmetric: bool,
    ) -> None:
        """Take over ``network`` (float32, CPU)."""
        network.prepare_for_scoring(device, dtype)
        self._network = network
        self._reader = reader
        self._device = device
        self._symmetric = symmetric
        self.tokens_at_once: int | None = None

    @property
    def budget(self) -> int:
        """Tokens of a batch, at most: what was measured to be best, or what is usual on this device."""
        return self.tokens_at_once or TOKENS_AT_ONCE.get(self._device.type, TOKENS_AT_ONCE["cpu"])


class OneTowerRunner(_Runner[PairNetwork, PairReader[Any]]):
    """Scores pairs with a network that reads both items at once."""

    def tokens_of(self, items: Sequence[Item], left: Rows, right: Rows) -> int:
        """That the network reads of these pairs, all together."""
        orders = 2 if self._symmetric else 1
        return int(orders * self._reader.lengths(self._reader.read(items), left, right).sum())

    def log_odds(
        self,
        items: Sequence[Item],
        left: Rows,
        right: Rows,
        features: Floats | None,
        should_stop: ShouldStop | None,
    ) -> Floats:
        """Log-odds of pairs, (n,) float32, in the order given; NaN where it was asked to stop before.

        Args:
            items: m items.
            left: (n,) rows of the first items.
            right: (n,) rows of the second items.
            features: (m, d) of the items' pictures, where the model reads pictures.
            should_stop: asked between batches.
        """
        result = np.full(len(left), np.nan, np.float32)
        if not len(left):
            return result
        kept = self._reader.read(items)
        orders = 2 if self._symmetric else 1

        def score(rows: NDArray[np.int64]) -> None:
            first, second = left[rows], right[rows]
            if self._symmetric:
                first, second = np.concatenate([first, second]), np.concatenate([second, first])
            pictures = None
            if features is not None:
                pictures = torch.from_numpy(np.stack([features[first], features[second]], axis=1))
            batch = self._reader.batch(kept, first, second, pictures)
            logits: Tensor = self._network(batch.to(self._device)).float().cpu()
            result[rows] = logits.view(orders, len(rows)).mean(0).numpy()

        def score_within_memory(rows: NDArray[np.int64]) -> None:
            within_memory(score, rows)

        # Of all pairs there are lengths, but ids of a few batches only.
        lengths = orders * self._reader.lengths(kept, left, right)
        batches = token_batches(lengths, self.budget, thread_count(self._device))
        run_batches(batches, score_within_memory, self._device, should_stop)
        return result


class TwoTowerRunner(_Runner[ItemNetwork, ItemReader[Any]]):
    """Makes item vectors, and scores pairs of them."""

    @property
    def head_similarity(self) -> HeadSimilarity | None:
        """See ``head_similarity.head_similarity``."""
        return head_similarity(self._network.head, symmetric=self._symmetric)

    def tokens_of(self, items: Sequence[Item], left: Rows, right: Rows) -> int:  # noqa: ARG002 - items alone count
        """That the network reads of these items, all together."""
        return int(self._reader.lengths(self._reader.read(items)).sum())

    def vectors(self, items: Sequence[Item], features: Floats | None = None) -> Floats:
        """Vectors of items, (m, d) float32.

        Args:
            items: m items.
            features: (m, ...) of their pictures, where the model reads features.
        """
        result = np.empty((len(items), self._network.dimension), np.float32)
        if not len(items):
            return result
        kept = self._reader.read(items)

        def encode(rows: NDArray[np.int64]) -> None:
            pictures = None if features is None else torch.from_numpy(features[rows])
            result[rows] = self._encode(kept, rows, pictures)

        def encode_within_memory(rows: NDArray[np.int64]) -> None:
            within_memory(encode, rows)

        batches = token_batches(self._reader.lengths(kept), self.budget, thread_count(self._device))
        run_batches(batches, encode_within_memory, self._device)
        return result

    @torch.inference_mode()
    def vectors_of_pixels(self, items: Sequence[Item], pictures: Sequence[NDArray[np.uint8]]) -> Floats:
        """Vectors of items with prepared pictures, (m, d) float32."""
        result = np.empty((len(items), self._network.dimension), np.float32)
        kept = self._reader.read(items)

        def encode(rows: NDArray[np.int64]) -> None:
            pixels = torch.from_numpy(np.stack([pictures[row] for row in rows.tolist()]))
            result[rows] = self._encode(kept, rows, pixels)

        size = BATCH_SIZE.get(self._device.type, BATCH_SIZE["cpu"])
        for start in range(0, len(items), size):
            within_memory(encode, np.arange(start, min(start + size, len(items))))
        return result

    def _encode(self, kept: Any, rows: NDArray[np.int64], pictures: Tensor | None) -> Floats:
        batch = self._reader.batch(kept, rows, pictures)
        vectors: Floats = self._network.encode(batch.to(self._device)).float().cpu().numpy()
        return vectors

    @torch.inference_mode()
    def log_odds(self, vectors: Floats, left: Rows, right: Rows, should_stop: ShouldStop | None) -> Floats:
        """Log-odds of pairs of (m, d) vectors, (n,) float32; NaN where it was asked to stop before."""
        result = np.full(len(left), np.nan, np.float32)
        for start in range(0, len(left), PAIRS_AT_ONCE):
            if should_stop is not None and should_stop():
                break
            part = slice(start, start + PAIRS_AT_ONCE)
            u, v = (torch.from_numpy(vectors[rows[part]]).to(self._device) for rows in (left, right))
            logits = self._network.pair_logits(u, v)
            if self._symmetric:
                logits = (logits + self._network.pair_logits(v, u)) / 2
            result[part] = logits.cpu().numpy()
        return result


def within_memory(work: Callable[[NDArray[np.int64]], None], rows: NDArray[np.int64]) -> None:
    """``work(rows)``, in halves where a GPU has too little memory for all.

    Raises:
        JobError: there is not enough for one row.
    """
    try:
        work(rows)
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise JobError("Not enough GPU memory for one input: use a smaller model or another device.") from None
    else:
        return
    # Outside the handler, because the caught error keeps the tensors of the failed attempt alive.
    torch.cuda.empty_cache()
    middle = len(rows) // 2
    within_memory(work, rows[:middle])
    within_memory(work, rows[middle:])
