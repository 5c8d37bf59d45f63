"""Which pairs make a training step, the same in every process and every run."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.items.pair_table import PairTable

# Sorting this many batches together leaves hardly any padding, and neighbours still change from epoch to epoch.
SORTED_TOGETHER = 50


@dataclass(frozen=True)
class Step:
    """The pairs of one step, of all processes.

    Attributes:
        rows: (n,) int64 rows of the table.
        swapped: (n,) bool, whether the right item comes first.
    """

    rows: NDArray[np.int64]
    swapped: NDArray[np.bool_]

    def shard(self, rank: int, world: int) -> Step:
        """This process's share: every ``world``-th pair, so that shares are alike in length."""
        return Step(self.rows[rank::world], self.swapped[rank::world])


class Sampler(Protocol):
    """Draws the steps of an epoch."""

    steps_per_epoch: int

    def epoch(self, epoch: int) -> list[Step]:
        """The steps of an epoch (from 1 on)."""


class LengthSampler:
    """Every pair once an epoch, in batches of like length: pairs are shuffled, then sorted within some batches.

    Attributes:
        steps_per_epoch: batches of an epoch; their sizes differ by few pairs.
    """

    def __init__(self, lengths: NDArray[np.int64], *, batch_size: int, world: int, seed: int, swap: bool) -> None:
        """Draw from n pairs.

        Args:
            lengths: (n,) tokens of each pair; all equal where it does not matter.
            batch_size: most pairs of a step.
            world: processes that share a step; each gets a pair at least.
            seed: of the draws.
            swap: whether each pair's order is drawn anew.

        Raises:
            UserError: a process would go without a pair.
        """
        self._lengths, self._batch_size, self._seed, self._swap = lengths, batch_size, seed, swap
        sizes = [len(rows) for together in self._parts(np.arange(len(lengths))) for rows in self._batches(together)]
        self.steps_per_epoch = len(sizes)
        if min(sizes) < world:
            raise UserError(
                f"{world} processes cannot share batches of {min(sizes)} pairs: raise train.batch_size, give more "
                "pairs, or start fewer processes."
            )

    def epoch(self, epoch: int) -> list[Step]:
        """The steps of an epoch, long and short ones in random order."""
        generator = np.random.default_rng([self._seed, epoch])
        order = generator.permutation(len(self._lengths))
        swapped = generator.random(len(order)) < (0.5 if self._swap else 0.0)
        batches = []
        for together in self._parts(order):
            batches += self._batches(together[np.argsort(self._lengths[together], kind="stable")])
        return [Step(batches[number], swapped[batches[number]]) for number in generator.permutation(len(batches))]

    def _parts(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return np.array_split(rows, math.ceil(len(rows) / (SORTED_TOGETHER * self._batch_size)))

    def _batches(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return np.array_split(rows, math.ceil(len(rows) / self._batch_size))


class NegativesSampler:
    """For multiple-negatives ranking: every same-pair once an epoch, each beside labelled negatives of its items.

    Attributes:
        steps_per_epoch: batches of an epoch.
    """

    def __init__(
        self, table: PairTable, *, batch_size: int, hard_negatives: int, world: int, seed: int, swap: bool
    ) -> None:
        """Draw from ``table``.

        Args:
            table: labelled pairs.
            batch_size: most pairs of a step, hard negatives included.
            hard_negatives: most for each same-pair; drawn anew in each epoch.
            world: processes that share a step in equal parts; what is left over is dropped, negatives first.
            seed: of the draws.
            swap: whether each pair's order is drawn anew.

        Raises:
            UserError: a step would have too few same-pairs to tell them from each other.
        """
        self._table, self._hard, self._seed, self._swap, self._world = table, hard_negatives, seed, swap, world
        self._positives = np.flatnonzero(table.labels == 1)
        if not len(self._positives):
            raise UserError(
                f"The loss mnr learns from pairs of the same product, and none of {len(table):,} is one: label some 1, "
                "or take another loss."
            )
        in_step = batch_size // (1 + hard_negatives)
        self.steps_per_epoch = math.ceil(len(self._positives) / max(in_step, 1))
        if min(len(self._positives) // self.steps_per_epoch, in_step) < max(2, world):
            raise UserError(
                f"The loss mnr tells same-pairs of a step apart: {len(self._positives)} of them, {in_step} a step, "
                f"are too few for {world} process(es). Raise train.batch_size, or lower train.hard_negatives."
            )
        self._negatives: defaultdict[int, list[int]] = defaultdict(list)
        for row in np.flatnonzero(table.labels == 0).tolist():
            for item in (int(table.left[row]), int(table.right[row])):
                self._negatives[item].append(row)

    def epoch(self, epoch: int) -> list[Step]:
        """The steps of an epoch; same-pairs come first in each."""
        generator = np.random.default_rng([self._seed, epoch])
        steps = []
        for positives in np.array_split(generator.permutation(self._positives), self.steps_per_epoch):
            rows = np.array([*positives, *self._draw_negatives(positives, generator)], np.int64)
            rows = rows[: len(rows) // self._world * self._world]
            steps.append(Step(rows, generator.random(len(rows)) < (0.5 if self._swap else 0.0)))
        return steps

    def _draw_negatives(self, positives: NDArray[np.int64], generator: np.random.Generator) -> list[int]:
        drawn: dict[int, None] = {}
        for row in positives.tolist():
            left, right = int(self._table.left[row]), int(self._table.right[row])
            candidates = [*self._negatives.get(left, []), *self._negatives.get(right, [])]
            for number in generator.permutation(len(candidates))[: self._hard].tolist():
                drawn[candidates[number]] = None
        return list(drawn)
