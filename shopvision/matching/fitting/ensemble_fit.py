"""Fitting an ensemble: its members' thresholds or weights, calibration and verdicts, from labelled pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shopvision.errors import UserError
from shopvision.evaluation.calibration import apply, fit_temperature
from shopvision.evaluation.pair_metrics import average_precision, best_f1_threshold, roc_auc
from shopvision.evaluation.thresholds import Evidence, choose_thresholds
from shopvision.items.pair_splits import is_unseen
from shopvision.matching.fitting.evaluate import require_labels, score_readable
from shopvision.matching.fitting.evidence_file import evidence_file
from shopvision.matching.fitting.member_effects import MemberEffects, measure_members
from shopvision.matching.scoring.ensemble_card import ensemble_arguments, member_names, save_ensemble
from shopvision.matching.scoring.ensemble_rules import LogisticStacking, fit_group_thresholds
from shopvision.matching.scoring.predict import PairScorer
from shopvision.models.card import require_folder_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shopvision.evaluation.promises import Promise
    from shopvision.images import PictureDoor
    from shopvision.items.pair_table import PairTable
    from shopvision.models.card import ModelCard

METHODS = ("stacking", "threshold_margin", "f1_vote")
NO_GROUPS = (
    "Stacking has no thresholds that categories unseen in training could have apart: take the method threshold_margin "
    "or f1_vote, or do without --train (unseen_apart in a file)."
)


@dataclass(frozen=True)
class FittedEnsemble:
    """What the fitting gave.

    Attributes:
        card: of the model version.
        members: what each member does for it, on the pairs that they were weighed on, which flatters the ensemble.
    """

    card: ModelCard
    members: MemberEffects


def fit_ensemble(
    folder: Path,
    members: Sequence[Path],
    table: PairTable,
    *,
    method: str,
    name: str = "ensemble",
    promise: Promise | None = None,
    seen: frozenset[str] | None = None,
    door: PictureDoor | None = None,
    device: str | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> FittedEnsemble:
    """Score labelled pairs with every member, fit how they are weighed, and write the model version.

    Args:
        folder: of the new model version; empty, or not there.
        members: folders of two or more pair scorers, none an ensemble.
        table: labelled pairs that no member learnt from: the validation pairs.
        method: one of ``METHODS``, see ``EnsembleArguments``.
        name: of the ensemble.
        promise: what is asked of verdicts; by default ``Promise()``.
        seen: categories of training; thresholds of pairs of other categories are then fitted apart. Not for stacking.
        door: that pictures come through, where a member reads them.
        device: where members run.
        on_progress: called with (members done, members).

    Raises:
        UserError: no such method, one that has no thresholds for ``seen``, fewer than two members, a name or folder
            that cannot be used, pairs without labels, or one that no member can read; or a member that can read no
            pair, or none of the same item where it needs a threshold, which is named.
    """
    if method not in METHODS:
        raise UserError(f"There is no method '{method}' of ensembles: choose {', '.join(METHODS)}.")
    if method == "stacking" and seen is not None:
        raise UserError(NO_GROUPS)
    if len(members) < 2:
        raise UserError(f"{len(members)} member is no ensemble: name two or more.")
    require_folder_names(name=name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is no empty folder: choose another --output.")
    require_labels(table)
    probabilities = np.full((len(table), len(members)), np.nan)
    reads_text, reads_pictures, decisions = [], [], []
    for number, member in enumerate(members):
        scorer = PairScorer(member, device=device)
        try:
            kept, column = score_readable(scorer, table, door)
            if method != "stacking":
                best_f1_threshold(column, table.labels[kept])
        except UserError as error:
            raise UserError(
                f"Member {scorer.card.spec}: {error} Leave it out, or give pairs that it can read."
            ) from None
        probabilities[kept, number] = column
        reads_text.append(scorer.needs_text)
        reads_pictures.append(scorer.needs_picture)
        decisions.append(scorer.card.thresholds["decision"])
        on_progress(number + 1, len(members))
    nobody = np.flatnonzero(np.isnan(probabilities).all(axis=1))
    if len(nobody):
        ids = " and ".join(repr(table.items[side[nobody[0]]].item_id) for side in (table.left, table.right))
        raise UserError(f"No member can read both {ids}: leave this pair out.")
    unseen = np.zeros(len(table), bool) if seen is None else is_unseen(table, seen)
    fields: dict[str, Any] = {"seen_categories": None if seen is None else tuple(sorted(seen))}
    if method == "stacking":
        # What scores a pair where pictures, or texts, are missing, or one member; validation pairs may all have both.
        alone = [tuple(np.flatnonzero(reads).tolist()) for reads in (reads_text, reads_pictures)]
        alone += combinations(range(len(members)), len(members) - 1)
        fields["stacking"] = LogisticStacking.fit(probabilities, table.labels, also_alone=alone).to_json()
    else:
        fields["thresholds"] = fit_group_thresholds(probabilities, table.labels, unseen).tolist()
    if method == "f1_vote":
        known = ~np.isnan(probabilities)
        fields["f1"] = [
            best_f1_threshold(column[own], table.labels[own])[1]
            for column, own in zip(probabilities.T, known.T, strict=True)
        ]
    arguments = ensemble_arguments(members, method, **fields)
    margins = arguments.margins(probabilities, unseen)
    arguments = arguments.model_copy(update={"calibration": fit_temperature(margins, table.labels)})
    combined = apply(arguments.calibration, margins)
    evidence = Evidence.of_validation(combined, table.labels)
    chosen = choose_thresholds(evidence, promise)
    card = save_ensemble(
        folder,
        members,
        arguments,
        name=name,
        thresholds=chosen.thresholds,
        promises=chosen.shown,
        more_files=[evidence_file(evidence)],
        training_data=f"weighed on {len(table):,} pairs, content sha256 {table.fingerprint()}",
        metrics={
            "f1": best_f1_threshold(combined, table.labels)[1],
            "average_precision": average_precision(combined, table.labels),
            "roc_auc": roc_auc(combined, table.labels),
        },
    )

    def combine(others: NDArray[np.float64]) -> NDArray[np.float64]:
        nobody = np.isnan(others).all(axis=1)
        return np.where(nobody, np.nan, arguments.combine(others, unseen))

    effects = measure_members(
        member_names(arguments.specs),
        probabilities,
        table.labels,
        decisions=decisions,
        combine=combine,
        decision=chosen.thresholds["decision"],
    )
    return FittedEnsemble(card, effects)
