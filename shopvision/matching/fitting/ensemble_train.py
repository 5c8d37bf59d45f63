"""Training an ensemble: every member in turn on the same pairs, then their weights on the validation pairs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopvision.errors import JobError, UserError
from shopvision.images import PictureDoor
from shopvision.items.pair_splits import seen_categories
from shopvision.matching.families.pair_model import begin_training
from shopvision.matching.fitting.ensemble_fit import fit_ensemble
from shopvision.matching.fitting.labelled_pairs import read_splits
from shopvision.matching.fitting.member_effects import PLOT_FILE as MEMBERS_PLOT
from shopvision.matching.fitting.stages import as_stage
from shopvision.matching.fitting.train import train_matcher
from shopvision.settings import get_settings
from shopvision.training.run import TrainingRun

if TYPE_CHECKING:
    from shopvision.items.item import Item
    from shopvision.items.pair_table import PairTable
    from shopvision.matching.fitting.config import MatcherConfig
    from shopvision.matching.fitting.ensemble_config import EnsembleConfig
    from shopvision.matching.fitting.member_effects import MemberEffects
    from shopvision.models.card import ModelCard

MEMBERS = "members"  # folder of the run
# Written last: what a finished member was trained with.
_FINISHED = "finished.json"


@dataclass(frozen=True)
class EnsembleReport:
    """What the training of an ensemble gave.

    Attributes:
        folder: its model version.
        card: its card, with the metrics of the validation pairs that it was weighed on.
        members: what each does for it, on those pairs.
        pairs: per split, how many were trained and validated on.
        notes: sentences that whoever reads the numbers should know.
    """

    folder: Path
    card: ModelCard
    members: MemberEffects
    pairs: dict[str, int]
    notes: tuple[str, ...]


def train_ensemble(config: EnsembleConfig, run: TrainingRun) -> EnsembleReport | None:
    """Train every member below ``members`` in the folder of the run, weigh them, and write ``model`` there.

    A run that is continued leaves finished members as they are.

    What each member does for the ensemble is drawn in ``members.png``.

    Returns:
        The report in the main process, None in the others.

    Raises:
        UserError: data, configuration or the encoder of any member cannot be used; or a finished member was trained
            otherwise.
        TransientError: a source of pictures is away.
        JobError: a member's loss is not finite, or a picture vanished meanwhile; the message names the member.
    """
    recipes = config.of_members()
    splits = read_splits(next(iter(recipes.values())))
    if run.model_folder.exists():
        raise UserError(f"{run.output} holds a finished ensemble: name another --output.")
    if (run.output / MEMBERS).exists() and not run.resume:
        raise UserError(f"{run.output} holds a run: continue it with --resume, or name another --output.")
    for name, recipe in recipes.items():
        if not (run.output / MEMBERS / name / _FINISHED).exists():
            _require_beginning(name, recipe, splits["train"].used_items())
    notes: list[str] = []
    for name, recipe in recipes.items():
        part = replace(
            run,
            output=run.output / MEMBERS / name,
            on_stage=_named(run, name),
            on_progress=as_stage(run, f"{name}: epochs", recipe.train.epochs),
        )
        notes += [f"{name}: {note}" for note in _train_member(name, recipe, part, splits)]
    if not run.process.is_main:
        return None
    folders = [run.output / MEMBERS / name / run.model_folder.name for name in recipes]
    with PictureDoor(get_settings().with_image_roots(config.data.picture_folders)) as door:
        fitted = fit_ensemble(
            run.model_folder,
            folders,
            splits["valid"],
            method=config.ensemble.method,
            name=config.ensemble.name,
            promise=config.thresholds,
            seen=seen_categories(splits["train"]) if config.ensemble.unseen_apart else None,
            door=door,
            device=str(run.process.device),
            on_progress=run.stage("weighing members"),
        )
    fitted.members.plot(run.output / MEMBERS_PLOT, f"Members of {fitted.card.spec}, on the pairs that weighed them")
    return EnsembleReport(
        folder=run.model_folder,
        card=fitted.card,
        members=fitted.members,
        pairs={name: len(splits[name]) for name in ("train", "valid")},
        notes=tuple(notes),
    )


def _require_beginning(name: str, recipe: MatcherConfig, items: Sequence[Item]) -> None:
    """Begin a member and let it go: an encoder that cannot be had is to be known before hours of the others."""
    try:
        begin_training(recipe.model, recipe.texts, items, seed=recipe.train.seed)
    except UserError as error:
        raise UserError(f"Member {name!r}: {error}") from None


def _train_member(
    name: str, recipe: MatcherConfig, run: TrainingRun, splits: Mapping[str, PairTable]
) -> tuple[str, ...]:
    """What is to be told of a member, which is trained where it is not finished."""
    file = run.output / _FINISHED
    content = {split: splits[split].fingerprint() for split in ("train", "valid")}
    trained_with = recipe.model_dump(mode="json", exclude={"thresholds"}) | {"data content": content}
    if file.is_file():
        finished: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if finished["trained_with"] != trained_with:
            raise UserError(f"The member {name!r} in {run.output} was trained otherwise: name another --output.")
        return tuple(finished["notes"])
    try:
        report = train_matcher(recipe, run)
    except UserError as error:
        raise UserError(f"Member {name!r}: {error}") from None
    except JobError as error:
        raise JobError(f"Member {name!r}: {error}") from error
    if report is None:
        return ()
    shown = report.card.promises
    verdicts = () if shown is None else shown.shortfalls()  # nobody asks a member for them
    notes = tuple(note for note in report.notes if note not in verdicts)
    written = {"trained_with": trained_with, "notes": notes}
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(written), encoding="utf-8")
    unfinished.replace(file)
    return notes


def _named(run: TrainingRun, member: str) -> Callable[[str, int, int], None]:
    def show(stage: str, done: int, total: int) -> None:
        run.on_stage(f"{member}: {stage}", done, total)

    return show
