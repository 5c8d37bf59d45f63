"""Networks of pair models prepared for a device, and run over many items or pairs.

Letters in shapes: n pairs, m items, d dimensions of what is kept of an item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from shopvision.encoders._fast import accelerate_image_network, accelerate_text_encoder
from shopvision.encoders.image_encoder import BATCH_SIZE
from shopvision.errors import JobError
from shopvision.matching.scoring.batching import TOKENS_AT_ONCE, ShouldStop, run_batches, thread_count, token_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from shopvision.images.preprocessing import Preprocessing
    from shopvision.matching.families.item_tokens import ItemTokens
    from shopvision.matching.families.packing import Packer
    from shopvision.matching.families.towers import OneTower, TwoTower

    Floats = NDArray[np.float32]
    Rows = NDArray[np.integer[Any]]

# Of a head on two vectors: 1,024 dimensions and an interaction head make 128 MiB of them.
PAIRS_AT_ONCE = 8192


class OneTowerRunner:
    """Scores pairs with a network that reads both items at once."""

    def __init__(
        self, network: OneTower, packer: Packer, *, device: torch.device, dtype: torch.dtype, symmetric: bool
    ) -> None:
        """Take over ``network`` (float32, CPU)."""
        self._network = network.requires_grad_(requires_grad=False).to(device, dtype).eval()
        accelerate_text_encoder(self._network.text, pooling=network.pooling, layers=network.layers)
        self._packer = packer
        self._device = device
        self._symmetric = symmetric

    def log_odds(
        self,
        tokens: ItemTokens,
        left: Rows,
        right: Rows,
        features: Floats | None,
        should_stop: ShouldStop | None,
    ) -> Floats:
        """Log-odds of pairs, (n,) float32, in the order given; NaN where it was asked to stop before.

        Args:
            tokens: of m items.
            left: (n,) rows of the first items.
            right: (n,) rows of the second items.
            features: (m, d) of the items' pictures, where the model reads pictures.
            should_stop: asked between batches.
        """
        result = np.full(len(left), np.nan, np.float32)
        if not len(left):
            return result
        orders = 2 if self._symmetric else 1

        def score(rows: NDArray[np.int64]) -> None:
            first, second = left[rows], right[rows]
            if self._symmetric:
                first, second = np.concatenate([first, second]), np.concatenate([second, first])
            logits = self._logits(tokens, first, second, features)
            result[rows] = logits.view(orders, len(rows)).mean(0).numpy()

        def score_within_memory(rows: NDArray[np.int64]) -> None:
            within_memory(score, rows)

        # Of all pairs there are lengths, but ids of a few batches only.
        lengths = orders * self._packer.pair_lengths(tokens, left, right)
        budget, threads = TOKENS_AT_ONCE.get(self._device.type, TOKENS_AT_ONCE["cpu"]), thread_count(self._device)
        run_batches(token_batches(lengths, budget, threads), score_within_memory, self._device, should_stop)
        return result

    def _logits(self, tokens: ItemTokens, left: Rows, right: Rows, features: Floats | None) -> Tensor:
        packed = self._packer.pairs(tokens, left, right)
        pictures = slots = None
        if features is not None and packed.slots is not None:
            pictures = torch.from_numpy(np.stack([features[left], features[right]], axis=1)).to(self._device)
            slots = packed.slots.to(self._device)
        logits: Tensor = self._network(packed.tokens.to(self._device), pictures, slots)
        return logits.float().cpu()


class TwoTowerRunner:
    """Makes item vectors, and scores pairs of them."""

    def __init__(
        self,
        network: TwoTower,
        packer: Packer | None,
        preprocessing: Preprocessing | None,
        *,
        device: torch.device,
        dtype: torch.dtype,
        symmetric: bool,
    ) -> None:
        """Take over ``network`` (float32, CPU). Its head stays in float32: its work is small, and vectors are kept."""
        network.requires_grad_(requires_grad=False).eval()
        if network.image is not None and preprocessing is not None:
            accelerate_image_network(network.image, preprocessing.size)
            network.image = _ComputesIn(network.image, dtype)
        elif network.text is not None:
            network.text.to(dtype)
            if network.projection is not None:
                network.projection.to(dtype)
        self._network = network.to(device)
        if network.text is not None:
            accelerate_text_encoder(network.text)
        self._packer = packer
        self._device = device
        self._symmetric = symmetric

    def text_vectors(self, tokens: ItemTokens) -> Floats:
        """Vectors of items, (m, d) float32."""
        packer = self._packer
        assert packer is not None  # noqa: S101 - for the type checker: the card says that texts are read
        result = np.empty((len(tokens), self._network.dimension), np.float32)
        if not len(tokens):
            return result

        def encode(rows: NDArray[np.int64]) -> None:
            batch = packer.singles(tokens, rows).tokens.to(self._device)
            result[rows] = self._network.encode(batch).float().cpu().numpy()

        def encode_within_memory(rows: NDArray[np.int64]) -> None:
            within_memory(encode, rows)

        budget, threads = TOKENS_AT_ONCE.get(self._device.type, TOKENS_AT_ONCE["cpu"]), thread_count(self._device)
        run_batches(token_batches(packer.single_lengths(tokens), budget, threads), encode_within_memory, self._device)
        return result

    @torch.inference_mode()
    def picture_vectors(self, pictures: Sequence[NDArray[np.uint8]]) -> Floats:
        """Vectors of prepared pictures, (m, d) float32."""
        result = np.empty((len(pictures), self._network.dimension), np.float32)

        def encode(rows: NDArray[np.int64]) -> None:
            batch = torch.from_numpy(np.stack([pictures[row] for row in rows.tolist()])).to(self._device)
            result[rows] = self._network.encode(pictures=batch).float().cpu().numpy()

        size = BATCH_SIZE.get(self._device.type, BATCH_SIZE["cpu"])
        for start in range(0, len(pictures), size):
            within_memory(encode, np.arange(start, min(start + size, len(pictures))))
        return result

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


class _ComputesIn(nn.Module):
    """A timm network in half precision between float32 pixels and float32 features; channels_last."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload] # untyped keyword
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(images.to(self.dtype, memory_format=torch.channels_last))
        return features.float()


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
