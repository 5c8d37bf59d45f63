"""Which pairs make a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError


class PairSampler:
    """Steps of equal size, drawn anew for every epoch; what is left over waits for the next one.

    Attributes:
        steps_per_epoch: the same in every epoch.
    """

    def __init__(self, categories: Sequence[str], batch_size: int, *, one_category: bool, seed: int) -> None:
        """Steps of ``batch_size`` pairs.

        Args:
            categories: of the n pairs.
            batch_size: pairs of a step.
            one_category: fill each step from one category, as far as that has pairs enough; what categories leave over
                makes mixed steps.
            seed: of the draws.

        Raises:
            UserError: there are fewer pairs than a step has.
        """
        if len(categories) < batch_size:
            raise UserError(
                f"{len(categories):,} pairs of training are fewer than a step of {batch_size}: add some, or lower "
                "train.batch_size."
            )
        groups = np.array(categories if one_category else [""] * len(categories))
        self._groups = [np.flatnonzero(groups == name) for name in np.unique(groups)]
        self._size, self._seed = batch_size, seed
        whole = sum(len(group) // batch_size for group in self._groups)
        self.steps_per_epoch = whole + sum(len(group) % batch_size for group in self._groups) // batch_size

    def epoch(self, number: int) -> list[NDArray[np.int64]]:
        """The pairs of every step of an epoch."""
        generator = np.random.default_rng([self._seed, number])
        steps: list[NDArray[np.int64]] = []
        rest: list[NDArray[np.int64]] = []
        for group in self._groups:
            order, whole = generator.permutation(group), len(group) // self._size
            steps += np.split(order[: whole * self._size], whole) if whole else []
            rest.append(order[whole * self._size :])
        mixed = generator.permutation(np.concatenate(rest))
        whole = len(mixed) // self._size
        steps += np.split(mixed[: whole * self._size], whole) if whole else []
        return [steps[place] for place in generator.permutation(len(steps))]
