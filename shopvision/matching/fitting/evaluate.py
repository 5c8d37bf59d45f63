"""How good a pair model is on labelled pairs it has not seen, at the thresholds that were chosen on others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.evaluation.bootstrap import RESAMPLES, Measured, measure
from shopvision.evaluation.calibration import check_thresholds
from shopvision.evaluation.pair_measurement import measure_pairs
from shopvision.evaluation.pair_metrics import best_f1_threshold
from shopvision.evaluation.report import EvaluationReport, Part
from shopvision.images import PictureDoor
from shopvision.items.pair_splits import is_unseen
from shopvision.items.pair_table import PairTable
from shopvision.items.word_overlap import token_jaccard
from shopvision.matching.fitting.member_effects import MemberEffects, measure_members
from shopvision.matching.scoring.ensemble import EnsembleScorer
from shopvision.matching.scoring.item_pictures import gather_vectors

if TYPE_CHECKING:
    from shopvision.items.item import Item
    from shopvision.matching.scoring.predict import BaseScorer, Rows

MIXED = "(two categories)"
BASELINE = "token_jaccard"
BEST_F1_NOTE = (
    "The best F1 of any threshold is {:.4f}, at {:.4f}. It was found on these very pairs, which is optimistic: never "
    "report it as quality."
)
BASELINE_METRICS = ("precision", "recall", "f1", "roc_auc", "average_precision")

Floats = NDArray[np.float64]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class MatchingReport:
    """Every measure of one model on one set of pairs.

    =====================  ===========================================================================================
    verdict                meaning
    =====================  ===========================================================================================
    ``review_share``       share of the pairs that go to a person
    ``same_precision``     share of the pairs called "same" that are the same item
    ``same_recall``        share of the pairs of the same item that are called "same" without a person
    ``missed_share``       share of the pairs called "different" that are the same item
    ``accuracy``           share of the pairs called "same" or "different" that are called right
    =====================  ===========================================================================================

    Attributes:
        model: ``name:tag``.
        thresholds: ``same``, ``different`` and ``decision`` of its card, chosen on validation pairs.
        metrics: of ``measure_pairs`` at ``decision``.
        verdicts: see above.
        categories: category -> metrics of its pairs; pairs across categories are ``MIXED``. Empty without categories.
        groups: ``seen`` and ``unseen`` categories -> metrics; empty where the training categories are not known.
        baseline: shared words of the titles (token Jaccard) at the threshold that is best for these very pairs, which
            flatters it.
        best_f1: the best F1 that any threshold gives on these pairs, which is optimistic: never report it as quality.
        best_f1_threshold: that threshold.
        unreadable: pairs left out because an item has nothing that the model reads, or its picture cannot be read.
        data_fingerprint: sha256 of the pairs that were measured.
        table: those pairs.
        probabilities: (n,) of those pairs.
        called: (n,) what a job would make of each: ``same``, ``different`` or ``review``.
        members: of an ensemble: what each of its members does for it.
    """

    model: str
    thresholds: dict[str, float]
    metrics: dict[str, Measured]
    verdicts: dict[str, Measured]
    categories: dict[str, dict[str, Measured]]
    groups: dict[str, dict[str, Measured]]
    baseline: dict[str, Measured]
    best_f1: float
    best_f1_threshold: float
    unreadable: int
    data_fingerprint: str
    table: PairTable
    probabilities: Floats
    called: NDArray[np.str_]
    members: MemberEffects | None = None

    def summary(self) -> EvaluationReport:
        """In the shape of every evaluation."""
        by_category = [Part("category", name or "none", of, shown=("f1",)) for name, of in self.categories.items()]
        return EvaluationReport(
            name=self.model,
            data=f"pairs, content sha256 {self.data_fingerprint}",
            counts={
                "pairs": len(self.table),
                "positives": int((self.table.labels == 1).sum()),
                "pairs with items that it cannot read left out": self.unreadable,
            },
            metrics=self.metrics,
            parts=[
                Part("verdicts", "", self.verdicts),
                *(Part("categories", name, of, shown=("f1",)) for name, of in self.groups.items()),
                *by_category,
                Part("baseline", BASELINE, self.baseline),
                *([] if self.members is None else self.members.parts()),
            ],
            facts={"thresholds": self.thresholds} | ({} if self.members is None else self.members.facts()),
            notes=[BEST_F1_NOTE.format(self.best_f1, self.best_f1_threshold)],
        )


def evaluate_matcher(
    scorer: BaseScorer,
    table: PairTable,
    *,
    door: PictureDoor | None = None,
    seen: frozenset[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    on_progress: OnProgress = lambda *_: None,
) -> MatchingReport:
    """A model version on labelled pairs.

    Args:
        scorer: whose thresholds were chosen on other pairs.
        table: pairs of which no item was trained on; every one labelled.
        door: that pictures come through, for a model that needs them.
        seen: categories of the training pairs (``seen_categories``), to measure seen and unseen ones apart.
        resamples: of the bootstrap; 0 leaves intervals out.
        seed: of the bootstrap.
        on_progress: called with (items ready, all) while pictures are read.

    Raises:
        UserError: no pair, a pair without a label, no pair of the same item, thresholds missing or out of order, or
            not one picture can be read.
        TransientError: a source of pictures is away.
    """
    require_labels(table)
    try:
        thresholds = check_thresholds(scorer.card.thresholds)
    except UserError as error:
        raise UserError(f"{scorer.card.spec} was not calibrated: {error}") from None
    pairs = readable_pairs(scorer, table, door, on_progress)
    measured = table.select(pairs.kept)
    labels = measured.labels
    members = None
    if isinstance(scorer, EnsembleScorer):
        probabilities, members = _of_members(scorer, pairs, labels, resamples=resamples, seed=seed)
    else:
        said = scorer.score(pairs.items, pairs.left, pairs.right, pairs.vectors)
        probabilities = np.asarray(said, np.float64)
    best_threshold, best_f1 = best_f1_threshold(probabilities, labels)

    def of(rows: NDArray[np.bool_]) -> dict[str, Measured]:
        return measure_pairs(probabilities[rows], labels[rows], thresholds["decision"], resamples=resamples, seed=seed)

    groups = {}
    if seen is not None:
        unseen = is_unseen(measured, seen)
        groups = {name: of(rows) for name, rows in (("seen", ~unseen), ("unseen", unseen)) if rows.any()}
    names = pair_categories(measured)
    categories = {str(name): of(names == name) for name in np.unique(names)} if len(set(names)) > 1 else {}
    called = scorer.verdicts(probabilities)
    jaccard = token_jaccard(measured)
    baseline = measure_pairs(jaccard, labels, best_f1_threshold(jaccard, labels)[0], resamples=resamples, seed=seed)
    return MatchingReport(
        model=scorer.card.spec,
        thresholds=thresholds,
        metrics=of(np.ones(len(labels), np.bool_)),
        verdicts=measure_verdicts(called, labels == 1, resamples=resamples, seed=seed),
        categories=categories,
        groups=groups,
        baseline={name: baseline[name] for name in BASELINE_METRICS},
        best_f1=best_f1,
        best_f1_threshold=best_threshold,
        unreadable=int((~pairs.kept).sum()),
        data_fingerprint=measured.fingerprint(),
        table=measured,
        probabilities=probabilities,
        called=called,
        members=members,
    )


def measure_verdicts(
    called: NDArray[np.str_], truth: NDArray[np.bool_], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Measured]:
    """What becomes of (n,) pairs without a person; see ``MatchingReport``."""
    same, different = called == "same", called == "different"
    rate, everywhere = float(truth.mean()), np.ones(len(truth), np.bool_)
    guessed = float((same * rate + different * (1 - rate)).sum() / (max((same | different).sum(), 1)))
    # name: value of each pair, the pairs that count, chance: verdicts of the same numbers given at random.
    columns = {
        "review_share": (~(same | different), everywhere, np.nan),
        "same_precision": (truth, same, rate),
        "same_recall": (same, truth, float(same.mean())),
        "missed_share": (truth, different, rate),
        "accuracy": (same == truth, same | different, guessed),
    }
    values = np.stack([np.where(counted, value, np.nan) for value, counted, _ in columns.values()], axis=1)
    chance = np.broadcast_to([chance for _, _, chance in columns.values()], values.shape)
    return dict(zip(columns, measure(values, chance, resamples=resamples, seed=seed), strict=True))


def pair_categories(table: PairTable) -> NDArray[np.str_]:
    """(n,) the category of both items, ``MIXED`` where they differ."""
    categories = np.array([item.category for item in table.items])
    left, right = categories[table.left], categories[table.right]
    return np.where(left == right, left, MIXED)


def require_labels(table: PairTable) -> None:
    """Refuse pairs that cannot be measured on.

    Raises:
        UserError: there is none, or one without a label.
    """
    if not len(table):
        raise UserError("There is no pair to evaluate on: choose another file.")
    unlabelled = int((table.labels < 0).sum())
    if unlabelled:
        raise UserError(f"{unlabelled:,} of {len(table):,} pairs have no label: measuring needs 0 or 1 for each.")


@dataclass(frozen=True)
class ReadablePairs:
    """Pairs of which a model can read both items.

    Attributes:
        kept: (n,) which of n pairs these are.
        items: of all pairs.
        left: rows of the first items of those that are kept.
        right: of the second ones.
        vectors: (items, d) what the model keeps of items; None where it keeps nothing.
    """

    kept: NDArray[np.bool_]
    items: tuple[Item, ...]
    left: Rows
    right: Rows
    vectors: NDArray[np.float32] | None


def readable_pairs(
    scorer: BaseScorer, table: PairTable, door: PictureDoor | None, on_progress: OnProgress = lambda *_: None
) -> ReadablePairs:
    """The pairs that a model can read; their pictures are read, and what it keeps of items is made.

    Raises:
        UserError: there is none, or pictures are needed and no door is given.
    """
    if scorer.needs_picture and door is None:
        raise UserError(f"{scorer.card.spec} reads pictures: give the door that they come through.")
    used = table.compact()
    vectors, failed = gather_vectors(scorer, used.items, door, on_progress)
    kept = used.without_items(failed)
    kept[kept] = scorer.readable_pairs(used.items, used.left[kept], used.right[kept])
    if not kept.any():
        raise UserError(
            f"Not one of {len(table):,} pairs has two items that the model can read: check texts and pictures."
        )
    return ReadablePairs(kept, used.items, used.left[kept], used.right[kept], vectors)


def score_readable(
    scorer: BaseScorer, table: PairTable, door: PictureDoor | None, on_progress: OnProgress = lambda *_: None
) -> tuple[NDArray[np.bool_], Floats]:
    """Which of (n,) pairs a model can read, and its probabilities of those; errors of ``readable_pairs``."""
    pairs = readable_pairs(scorer, table, door, on_progress)
    return pairs.kept, np.asarray(scorer.score(pairs.items, pairs.left, pairs.right, pairs.vectors), np.float64)


def _of_members(
    scorer: EnsembleScorer, pairs: ReadablePairs, labels: NDArray[np.int8], **how: int
) -> tuple[Floats, MemberEffects]:
    """The probabilities of an ensemble, and what its members do for them."""
    of_pairs = pairs.items, pairs.left, pairs.right
    said = scorer.member_probabilities(*of_pairs, pairs.vectors)
    effects = measure_members(
        scorer.names,
        said,
        labels,
        decisions=[member.card.thresholds["decision"] for member in scorer.members],
        combine=lambda probabilities: scorer.combine(probabilities, *of_pairs),
        decision=scorer.card.thresholds["decision"],
        **how,
    )
    return scorer.combine(said, *of_pairs), effects
