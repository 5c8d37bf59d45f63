"""``shopvision train ensemble``: what it says of members that are trained already, and of those that it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.cli.output import error_console
from worker.cli.training_bars import Bars

if TYPE_CHECKING:
    from shopvision.evaluation.report import EvaluationReport
    from shopvision.matching.fitting.ensemble_train import EnsembleReport
    from shopvision.matching.fitting.member_effects import MemberEffects
    from shopvision.models.card import ModelCard


def weigh_members(
    folders: Sequence[Path],
    output: Path,
    *,
    pairs: Path,
    items: Path | None,
    images: str | None,
    train_pairs: Path | None,
    **how: Any,
) -> EvaluationReport:
    """Write the ensemble of trained members to ``output``.

    Args:
        folders: of the members.
        output: folder of the new model version.
        pairs: labelled pairs to weigh them on.
        items: that these name.
        images: where their pictures lie.
        train_pairs: of training, to fit unseen categories apart.
        how: see ``fit_ensemble``.

    Raises:
        UserError: see ``fit_ensemble``; or a file cannot be read.
    """
    from shopvision.images import PictureDoor
    from shopvision.items.item_files import read_items
    from shopvision.items.pair_files import read_pairs
    from shopvision.items.pair_splits import seen_categories
    from shopvision.matching.fitting.config import DataConfig
    from shopvision.matching.fitting.ensemble_fit import fit_ensemble
    from shopvision.settings import get_settings

    known = None if items is None else read_items(items, images=images)
    table = read_pairs(pairs, known, images=images)
    seen = None if train_pairs is None else seen_categories(read_pairs(train_pairs, known, images=images))
    settings = get_settings().with_image_roots(DataConfig(pairs=pairs, items=items, images=images).picture_folders)
    with PictureDoor(settings) as door, Bars(shown=error_console.is_terminal) as bars:
        show = partial(bars.stage, "members")
        fitted = fit_ensemble(output, folders, table, seen=seen, door=door, on_progress=show, **how)
    return _report(fitted.card, fitted.members, {"pairs": len(table)}, len(table))


def report_of_trained(trained: EnsembleReport) -> EvaluationReport:
    """Of members that were trained with it."""
    counts = {f"pairs for {split}": count for split, count in trained.pairs.items()}
    return _report(trained.card, trained.members, counts, trained.pairs["valid"], trained.notes)


def _report(
    card: ModelCard, members: MemberEffects, counts: Mapping[str, int], validated: int, notes: Sequence[str] = ()
) -> EvaluationReport:
    """With what each member does for it beside."""
    from shopvision.evaluation.report import EvaluationReport, without_interval

    promises = card.promises
    shown = {} if promises is None else {"promises": dict(promises.rows())}
    return EvaluationReport(
        name=card.spec,
        data=f"the pairs that it was {card.training_data}",
        counts=counts,
        metrics=without_interval(card.metrics, validated),
        parts=members.parts(),
        facts={"thresholds": card.thresholds, **shown, **members.facts()},
        notes=(*(() if promises is None else promises.shortfalls()), *notes),
    )
