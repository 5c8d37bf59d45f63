"""Which exhibitions and products each training step sees: the topic-matching batch and the image-ranking groups.

Every epoch has a generator of its own, made of seed and epoch, and nothing else consumes it: all ranks of a distributed
run see the same steps, and a resumed run the same as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import structlog
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.selection.clik.exhibitions import RankingData
from shopvision.selection.clik.weighted_sampling import tie_broken, weighted_sample

log = structlog.get_logger(__name__)

Sampling = Literal["weighted", "random", "sequential"]
MATCHING_TRIES = 7  # products drawn, of which the best is taken, where matching is weighted
POSITIVE_TRIES = 5  # products drawn, of which the best is the positive, where ranking is weighted


@dataclass(frozen=True)
class Step:
    """One step's samples; exhibitions and products are indices into the data.

    Attributes:
        matching_exhibitions: (M,) int32, all different.
        matching_products: (M,) int32, one product of each.
        augment: (M,) bool, where the product's own texts stand in for the topic.
        ranking_exhibitions: (G,) int32.
        ranking_products: (G, K) int32, by label descending: index 0 is the positive.
        ranking_labels: (G, K) float32.
    """

    matching_exhibitions: NDArray[np.int32]
    matching_products: NDArray[np.int32]
    augment: NDArray[np.bool_]
    ranking_exhibitions: NDArray[np.int32]
    ranking_products: NDArray[np.int32]
    ranking_labels: NDArray[np.float32]

    def shard(self, rank: int, world: int) -> Step:
        """The part of ``rank``: every ``world``-th of the matching batch and of the groups, from ``rank`` on."""
        part = slice(rank, None, world)
        return Step(
            self.matching_exhibitions[part],
            self.matching_products[part],
            self.augment[part],
            self.ranking_exhibitions[part],
            self.ranking_products[part],
            self.ranking_labels[part],
        )


class RankingSampler:
    """Steps of topic matching and image ranking.

    Attributes:
        matching_batch: M, lowered where there are fewer exhibitions.
        groups: G.
        group_size: K.
        steps_per_epoch: as many as there are exhibitions to rank, so that each is ranked G times an epoch.
    """

    def __init__(
        self,
        data: RankingData,
        *,
        matching_batch: int = 512,
        groups: int = 12,
        group_size: int = 20,
        text_augmentation: float = 0.5,
        ranking_sampling: Sampling = "weighted",
        matching_sampling: Sampling = "random",
        same_topic_per_step: bool = False,
        world: int = 1,
        seed: int = 27,
    ) -> None:
        """Sizes are those of a whole step, over all ranks.

        Args:
            data: exhibitions with at least ``group_size`` products and two distinct labels are ranked, all are matched.
            matching_batch: M exhibitions of a step, all different because each is a negative of the others.
            groups: G exhibitions ranked in a step; 0 trains topic matching alone.
            group_size: K products of a group.
            text_augmentation: probability that a product's own texts stand in for its topic.
            ranking_sampling: ``weighted`` draws a good positive and poor negatives, ``random`` any K, ``sequential``
                takes the K best. A group of exactly K products is taken whole.
            matching_sampling: ``random`` any product, ``weighted`` the best of 7 drawn by label, ``sequential`` the
                best.
            same_topic_per_step: all groups of a step are samples of one exhibition, as published; the gradient then
                follows one topic at a time. By default they are different exhibitions.
            world: number of ranks; divides M and G.
            seed: of everything drawn.

        Raises:
            UserError: no exhibition can be ranked or matched, or ``world`` does not divide M or G.
        """
        if matching_batch % world or groups % world:
            raise UserError(
                f"{world} processes cannot share a matching batch of {matching_batch} and {groups} groups evenly: "
                "make both multiples of their number."
            )
        self._data = data
        self._sizes = np.array([len(exhibition.products) for exhibition in data.exhibitions], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]]).astype(np.int64)
        self._products = np.concatenate(
            [np.empty(0, np.int32), *(exhibition.products for exhibition in data.exhibitions)]
        )
        rankable = [
            number
            for number, exhibition in enumerate(data.exhibitions)
            if len(exhibition.labels) >= group_size and exhibition.labels[0] != exhibition.labels[-1]
        ]
        if groups and not rankable:
            raise UserError(
                f"No exhibition has {group_size} products with two distinct labels: lower group_size, give labels that "
                "differ, or set groups = 0 to train topic matching alone."
            )
        self._rankable = np.array(rankable, np.int32)
        self.matching_batch = min(matching_batch, len(data.exhibitions) // world * world)
        if self.matching_batch < max(2, world):
            raise UserError(
                f"{len(data.exhibitions)} exhibitions are too few for topic matching: it tells at least 2 "
                "(and one for each process) apart."
            )
        if self.matching_batch < matching_batch:
            log.warning("matching batch lowered: there are fewer exhibitions", to=self.matching_batch)
        self.groups, self.group_size = groups, group_size
        self.steps_per_epoch = len(rankable) if groups else -(-len(data.exhibitions) // self.matching_batch)
        self._text_augmentation = text_augmentation
        self._ranking_sampling, self._matching_sampling = ranking_sampling, matching_sampling
        self._same_topic = same_topic_per_step
        self._seed = seed

    def epoch(self, number: int) -> Iterator[Step]:
        """The steps of epoch ``number``, the same whenever and wherever they are drawn."""
        generator = np.random.default_rng((self._seed, number))
        matching = _batches(len(self._sizes), self.matching_batch, generator)
        ranking = _batches(len(self._rankable), 1 if self._same_topic else self.groups, generator)
        for _ in range(self.steps_per_epoch):
            exhibitions = next(matching)
            products = self._products[self._starts[exhibitions] + self._one_each(exhibitions, generator)]
            augment = generator.random(len(exhibitions)) < self._text_augmentation
            chosen = np.resize(self._rankable[next(ranking)], self.groups) if self.groups else self._rankable[:0]
            yield Step(exhibitions, products, augment, chosen, *self._ranking_groups(chosen, generator))

    def _one_each(self, exhibitions: NDArray[np.int32], generator: np.random.Generator) -> NDArray[np.int64]:
        """The row of one product in each exhibition; rows are by label descending."""
        if self._matching_sampling == "sequential":
            return np.zeros(len(exhibitions), np.int64)
        if self._matching_sampling == "random":
            return (generator.random(len(exhibitions)) * self._sizes[exhibitions]).astype(np.int64)
        rows = np.empty(len(exhibitions), np.int64)
        for place, number in enumerate(exhibitions):
            weights = tie_broken(self._data.exhibitions[number].labels, generator)
            drawn = weighted_sample(weights, min(MATCHING_TRIES, len(weights)), generator)
            rows[place] = drawn[weights[drawn].argmax()]
        return rows

    def _ranking_groups(
        self, exhibitions: NDArray[np.int32], generator: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        products = np.empty((len(exhibitions), self.group_size), np.int32)
        labels = np.empty((len(exhibitions), self.group_size), np.float32)
        for place, number in enumerate(exhibitions):
            exhibition = self._data.exhibitions[number]
            rows = ranking_group(exhibition.labels, self.group_size, self._ranking_sampling, generator)
            products[place], labels[place] = exhibition.products[rows], exhibition.labels[rows]
        return products, labels


def ranking_group(
    labels: NDArray[np.float32], size: int, sampling: Sampling, generator: np.random.Generator
) -> NDArray[np.intp]:
    """Rows of one group, best label first.

    ``weighted``: the positive is the best of 5 drawn in proportion to w = label + U * 1e-8; the negatives are drawn
    from the rest in proportion to (largest w of the rest) - w, so that the best remaining one never is.

    Args:
        labels: (n,) descending, n >= size.
        size: K.
        sampling: how the rows are drawn.
        generator: source of randomness.

    Returns:
        (K,) rows; ties in random order where they were drawn, else in the order of ``labels``.
    """
    if len(labels) == size or sampling == "sequential":
        return np.arange(size)
    if sampling == "random":
        return np.sort(generator.choice(len(labels), size, replace=False))
    weights = tie_broken(labels, generator)
    drawn = weighted_sample(weights, min(POSITIVE_TRIES, len(weights)), generator)
    positive = drawn[weights[drawn].argmax()]
    rest = np.delete(np.arange(len(weights)), positive)
    negatives = rest[weighted_sample(weights[rest].max() - weights[rest], size - 1, generator)]
    rows = np.append(negatives, positive)
    return rows[np.argsort(-weights[rows])]


def _batches(count: int, size: int, generator: np.random.Generator) -> Iterator[NDArray[np.int32]]:
    """Endless batches of ``min(size, count)`` different numbers below ``count``, each used equally often.

    Numbers that a batch took from the end of one shuffle come last in the next, so that no batch holds one twice.
    """
    size = min(size, count)
    left = np.empty(0, np.int32)
    while size:
        if len(left) < size:
            fresh = generator.permutation(count).astype(np.int32)
            repeated = np.isin(fresh, left)
            left = np.concatenate([left, fresh[~repeated], fresh[repeated]])
        yield left[:size]
        left = left[size:]
