"""How many tokens a network of pairs or items reads at once, measured on made-up texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from shopvision.encoders.tuning import tuning_of
from shopvision.items.item import Item
from shopvision.matching.scoring.batching import TOKENS_AT_ONCE, thread_count
from shopvision.matching.scoring.inference import OneTowerRunner, TwoTowerRunner

if TYPE_CHECKING:
    from shopvision.encoders.tuning.record import Setting
    from shopvision.models.part import ModelPart
    from shopvision.settings import TuningChoice, Way

# An item of a shop's catalogue: a title and a description of so many words, more or less.
_LEAST_WORDS, _MOST_WORDS = 20, 70
_OTHER_BUDGETS = (0.5, 2)


class TunableTokens:
    """The network of a pair model as ``shopvision.encoders.tuning.part.TunablePart``."""

    unit = "tokens"
    ways: tuple[Way, ...] = ("eager",)

    def __init__(
        self,
        runner: OneTowerRunner | TwoTowerRunner,
        part: ModelPart,
        *,
        device: torch.device,
        dtype: torch.dtype,
        features: int | None,
    ) -> None:
        """Let ``runner`` read as much at once as was measured to be best.

        Args:
            runner: of the network.
            part: which network of which model version it is.
            device: where it runs.
            dtype: what it computes in.
            features: length of what it reads of an item's picture; None where it reads none.
        """
        self.part: ModelPart | None = part
        self.device = device
        self.precision = str(dtype).removeprefix("torch.")
        self.batches_at_once = thread_count(device)
        self._runner, self._features = runner, features
        self.use(tuning_of(part, threads=torch.get_num_threads(), device=str(device)))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """See ``TunablePart``."""
        usual = TOKENS_AT_ONCE.get(self.device.type, TOKENS_AT_ONCE["cpu"])
        return (usual, *(int(usual * factor) for factor in _OTHER_BUDGETS))

    def trial(self, setting: Setting, work: int) -> Callable[[], None]:
        """See ``TunablePart``. Texts are turned into tokens each time, as in real work; that takes little."""
        items, count = self._enough(work)
        features = None if self._features is None else np.zeros((len(items), self._features), np.float32)
        left, right = np.arange(0, 2 * count, 2), np.arange(1, 2 * count, 2)

        def compute() -> None:
            before, self._runner.tokens_at_once = self._runner.tokens_at_once, setting.batch_size
            try:
                if isinstance(self._runner, OneTowerRunner):
                    self._runner.log_odds(items, left, right, features, None)
                else:
                    self._runner.vectors(items, features)
            finally:
                self._runner.tokens_at_once = before

        return compute

    def vectors(self, count: int) -> None:
        """See ``TunablePart``: thresholds were calibrated in one precision, so that no other is tried."""

    def use(self, chosen: TuningChoice) -> None:
        """See ``TunablePart``."""
        self._runner.tokens_at_once = chosen.batch_size

    def _enough(self, tokens: int) -> tuple[list[Item], int]:
        """Items in pairs that have about so many tokens together, and how many pairs."""
        random = np.random.default_rng(0)
        words = ["".join(random.choice(list("aeiouklmnprst"), random.integers(3, 9))) for _ in range(500)]

        def item(number: int) -> Item:
            chosen = random.choice(words, random.integers(_LEAST_WORDS, _MOST_WORDS))
            return Item(str(number), title=" ".join(chosen[:8]), description=" ".join(chosen[8:]))

        pairs = 8
        sample = [item(number) for number in range(2 * pairs)]
        each = self._runner.tokens_of(sample, np.arange(0, 2 * pairs, 2), np.arange(1, 2 * pairs, 2)) / pairs
        count = max(1, round(tokens / max(each, 1.0)))
        return [item(number) for number in range(2 * count)], count
