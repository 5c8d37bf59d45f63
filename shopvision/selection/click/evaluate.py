"""How well a click ranker orders the pictures of items it has not seen, beside the answers that need no model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import RESAMPLES, Measured, measure
from shopvision.evaluation.pair_measurement import measure_pairs
from shopvision.evaluation.ranking_metrics import (
    RankedLists,
    random_reciprocal_rank,
    random_top_hit,
    reciprocal_rank,
    top_hit,
)
from shopvision.evaluation.report import EvaluationReport, Part
from shopvision.selection.click.collecting import tiers
from shopvision.selection.click.data import ClickData
from shopvision.selection.click.entities import EntityTable, Order

if TYPE_CHECKING:
    from shopvision.images import PictureDoor
    from shopvision.selection.click.context import Entity
    from shopvision.selection.click.predict import ImageRanker
    from shopvision.selection.click.preparation import Prepared
    from shopvision.training.features import OnProgress

TIERS = (100.0, 1_000.0, 10_000.0)
MEASURED_AS_PROBABILITIES = ("roc_auc", "log_loss", "ece")

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Score = Callable[[Rows, Rows], Scores]
"""(n,) rows of items and (n,) rows of pictures -> (n,) scores."""


@dataclass(frozen=True, eq=False)
class PairScores:
    """What a model says of the pictures of ``ClickData``.

    Attributes:
        first: (pairs,) of the first pictures.
        second: (pairs,) of the second ones.
        swapped: both again, asked for in another order and the other way round: (pairs,) second, (pairs,) first.
        shown: (rows of ``shown``,).
    """

    first: Scores
    second: Scores
    swapped: tuple[Scores, Scores] | None
    shown: Scores

    @classmethod
    def of(cls, data: ClickData, score: Score, *, swap: bool = False) -> PairScores:
        """Ask for the score of each picture of each item once; ``swap`` asks once more, in the opposite order."""
        pairs, shown, count = data.comparisons, data.shown, len(data.pictures)
        wanted = [
            items.astype(np.int64) * count + pictures
            for items, pictures in (
                (pairs.items, pairs.first),
                (pairs.items, pairs.second),
                (shown.items, shown.pictures),
            )
        ]
        keys, place = np.unique(np.concatenate(wanted), return_inverse=True)
        first, second, rows = np.split(place, np.cumsum([len(some) for some in wanted])[:-1])
        scores = score(keys // count, keys % count)
        swapped = None
        if swap:
            again = score(keys[::-1] // count, keys[::-1] % count)[::-1]
            swapped = again[second], again[first]
        return cls(scores[first], scores[second], swapped, scores[rows])


def measure_clicks(
    data: ClickData, scores: PairScores, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Measured]:
    """Every metric of one model.

    ======================  ============================================================================================
    metric                  meaning
    ======================  ============================================================================================
    ``pair_accuracy``       share of the pairs whose picture of the higher click rate has the higher score; of equal
                            scores a half. The interval is over items: pairs of one item are not independent
    ``roc_auc``             of ``sigmoid(s_a - s_b)`` as the probability that the first picture wins, over all pairs
    ``log_loss``, ``ece``   of the same probability
    ``mrr``, ``top1``       of items with at least two pictures: 1 / predicted rank of the truly best one; whether it
                            leads
    ``consistency``         share of the pairs with the same answer when asked for the other way round
    ======================  ============================================================================================

    Raises:
        UserError: there is no pair.
    """
    pairs = data.comparisons
    if not len(pairs):
        raise UserError("There is no pair of pictures to measure on: choose another split or file.")
    result = {"pair_accuracy": pair_accuracy(data, scores, np.ones(len(pairs), bool), resamples=resamples, seed=seed)}
    differences = scores.first.astype(np.float64) - scores.second
    probabilities = np.exp(-np.logaddexp(0.0, -differences))
    if pairs.first_wins.any() and not pairs.first_wins.all():
        found = measure_pairs(probabilities, pairs.first_wins, 0.5, resamples=resamples, seed=seed)
        result |= {name: found[name] for name in MEASURED_AS_PROBABILITIES}
    if scores.swapped is not None:
        second, first = scores.swapped
        same = (np.sign(differences) == np.sign(first - second)).astype(np.float64)
        result["consistency"] = measure(same[:, None], np.full((len(same), 1), 0.5), resamples=resamples, seed=seed)[0]
    if lists := data.shown.by_item():
        ranked = RankedLists.from_lists(
            [scores.shown[rows] for rows in lists], [data.shown.rates[rows] for rows in lists]
        )
        values = np.stack([reciprocal_rank(ranked), top_hit(ranked, 1, 1)], axis=1)
        random = np.stack([random_reciprocal_rank(ranked.counts), random_top_hit(ranked.counts, 1, 1)], axis=1)
        result |= dict(zip(("mrr", "top1"), measure(values, random, resamples=resamples, seed=seed), strict=True))
    return result


def pair_accuracy(
    data: ClickData, scores: PairScores, rows: NDArray[np.bool_], *, resamples: int = RESAMPLES, seed: int = 0
) -> Measured:
    """Accuracy on some of the pairs; ``units`` is the number of items."""
    pairs = data.comparisons.select(rows)
    higher = np.sign(scores.first[rows].astype(np.float64) - scores.second[rows])
    right = 0.5 + 0.5 * higher * np.where(pairs.first_wins, 1, -1)
    _, groups = np.unique(pairs.items, return_inverse=True)
    weights = np.bincount(groups).astype(np.float64)
    shares = np.bincount(groups, right) / weights
    return measure(shares[:, None], np.full((len(shares), 1), 0.5), weights[:, None], resamples=resamples, seed=seed)[0]


@dataclass(frozen=True)
class ClickEvaluation:
    """What was found of a model version on pairs that it was not trained on.

    Attributes:
        model: ``name:tag``.
        metrics: see ``measure_clicks``.
        tiers: tier of impressions -> accuracy of its pairs.
        baselines: name -> metrics of what needs no clicks, and of the model without the items' entities.
        counts: of pairs, items, pictures, and of what was left out.
        data_fingerprint: sha256 of the pairs as they were measured.
    """

    model: str
    metrics: Mapping[str, Measured]
    tiers: Mapping[str, Measured]
    baselines: Mapping[str, Mapping[str, Measured]]
    counts: Mapping[str, int]
    data_fingerprint: str
    notes: tuple[str, ...] = field(default=())

    def summary(self) -> EvaluationReport:
        """In the shape of every evaluation."""
        tiers_ = [Part("impressions", name, {"pair_accuracy": found}) for name, found in self.tiers.items()]
        baselines = [
            Part("baseline", name, metrics, shown=[one for one in ("pair_accuracy", "mrr") if one in metrics])
            for name, metrics in self.baselines.items()
        ]
        return EvaluationReport(
            name=self.model,
            data=f"pairs of pictures, content sha256 {self.data_fingerprint}",
            counts=self.counts,
            metrics=self.metrics,
            parts=[*tiers_, *baselines],
            notes=self.notes,
        )


def constant_answers(data: ClickData) -> dict[str, dict[str, Measured]]:
    """Accuracy of always naming the first picture, and the second; the better one is what a majority vote would say."""
    pairs = len(data.comparisons)
    first = float(data.comparisons.first_wins.mean())
    return {
        f"always the {side}": {"pair_accuracy": Measured(share, math.nan, math.nan, 0.5, pairs)}
        for side, share in (("first", first), ("second", 1 - first))
    }


def evaluate_prepared(
    ranker: ImageRanker, prepared: Prepared, *, resamples: int = RESAMPLES, seed: int = 0
) -> ClickEvaluation:
    """A ranker on clicks whose vectors are there already, computed as serving computes it."""
    data = prepared.data
    if not len(data.comparisons):
        raise UserError("There is no pair of readable pictures to measure on: check the picture folder.")
    items = data.used_items().tolist()

    place = np.full(len(data.items), -1)
    place[items] = np.arange(len(items))

    def scorer(entities: Sequence[Sequence[Entity]]) -> Score:
        texts = prepared.texts.numpy()
        contexts = [ranker.context_of(texts[item], known) for item, known in zip(items, entities, strict=True)]

        def score(of_items: Rows, of_pictures: Rows) -> Scores:
            vectors = prepared.pictures.take(of_pictures).numpy()
            return ranker.scores_of_rows(vectors, place[of_items], contexts)

        return score

    def recall(of_items: Rows, of_pictures: Rows) -> Scores:
        texts = prepared.texts[torch.from_numpy(of_items)]
        cosines: Scores = (texts * prepared.pictures.take(of_pictures)).sum(dim=1).numpy()
        return cosines

    def measured(score: Score) -> dict[str, Measured]:
        return measure_clicks(data, PairScores.of(data, score), resamples=resamples, seed=seed)

    scores = PairScores.of(data, scorer(prepared.bank.entities(items)), swap=True)
    baselines = {**constant_answers(data), "by recall's score": measured(recall)}
    if prepared.bank.facts:
        baselines["without entities"] = measured(scorer([[]] * len(items)))
    return ClickEvaluation(
        model=ranker.card.spec,
        metrics=measure_clicks(data, scores, resamples=resamples, seed=seed),
        tiers={
            name: pair_accuracy(data, scores, rows, resamples=resamples, seed=seed)
            for name, rows in tiers(data.comparisons.impressions, TIERS)
            if rows.any()
        },
        baselines=baselines,
        counts={
            "pairs": len(data.comparisons),
            "items": len(items),
            "pictures": len(data.used_pictures()),
            "unreadable pictures left out": len(prepared.unreadable),
            "broken records left out": len(data.failures),
            **{f"pairs left out: {reason}": count for reason, count in data.left_out.items()},
        },
        data_fingerprint=data.fingerprint(),
    )


def evaluate_click_ranker(
    folder: Path,
    data: ClickData,
    table: EntityTable,
    door: PictureDoor,
    *,
    order: Order = "counts",
    device: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    on_progress: OnProgress = lambda *_: None,
) -> ClickEvaluation:
    """A model version on pairs that it was not trained on, computed as serving computes it.

    Args:
        folder: of the model version.
        data: the pairs.
        table: what is known of entities.
        door: that the pictures come through.
        order: which of an item's entities come first.
        device: by default the GPU where there is one.
        resamples: of the bootstrap.
        seed: of everything drawn.
        on_progress: called with (pictures done, all).

    Raises:
        UserError: no such model, or nothing to measure on.
        TransientError: a source of pictures is away.
    """
    from shopvision.selection.click.predict import ImageRanker
    from shopvision.selection.click.preparation import prepare_for

    ranker = ImageRanker(folder, device=device)
    prepared = prepare_for(ranker, folder, data, table, door, order=order, on_progress=on_progress)
    return evaluate_prepared(ranker, prepared, resamples=resamples, seed=seed)
