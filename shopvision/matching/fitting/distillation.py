"""Learning from a teacher: what a model version says of the training pairs, and of pairs that nobody labelled.

After Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import UserError
from shopvision.items.pair_table import UNKNOWN, PairTable
from shopvision.matching.blocking import pairs_of_items
from shopvision.matching.families.card import read_card
from shopvision.matching.fitting.evaluate import score_readable
from shopvision.matching.options import TEXT_SOURCES, BlockingOptions
from shopvision.matching.scoring.ensemble import load_scorer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shopvision.images import PictureDoor
    from shopvision.matching.fitting.distillation_config import DistillationConfig
    from shopvision.training.distributed import Process

# A surer probability has no finite log-odds in float32, or one that no student has to reach.
SUREST = 1e-6


@dataclass(frozen=True, eq=False)
class TaughtPairs(PairTable):
    """Pairs of which a teacher has said something; label -1 where nobody else has.

    Attributes:
        teacher: (n,) float32, its log-odds.
    """

    teacher: NDArray[np.float32]

    def select(self, rows: NDArray[Any]) -> TaughtPairs:
        """See ``PairTable``."""
        return replace(self, **_shared(super().select(rows)), teacher=self.teacher[rows])


def _shared(table: PairTable) -> dict[str, Any]:
    return {field.name: getattr(table, field.name) for field in fields(PairTable)}


def teacher_folder(teacher: str) -> Path:
    """The folder of a model version: itself, or that of a registered ``NAME:TAG``.

    Raises:
        UserError: there is none, or it scores no pairs.
    """
    from shopvision import models
    from shopvision.matching.pinning import SCORER_ROLE

    if Path(teacher).is_dir():
        return Path(teacher)
    if "/" in teacher:
        raise UserError(f"distillation.teacher: {teacher} is no folder: name that of a model version, or NAME:TAG.")
    return models.local_copy(models.resolve(teacher, SCORER_ROLE))


def teacher_version(config: DistillationConfig) -> str:
    """``NAME:TAG`` of the teacher's card: a folder may hold another model when a run is continued.

    Raises:
        UserError: there is no such teacher.
    """
    return read_card(teacher_folder(config.teacher)).spec


def ask_teacher(
    config: DistillationConfig, splits: Mapping[str, PairTable], process: Process, door: PictureDoor | None
) -> TaughtPairs:
    """The training pairs, and further pairs of their items, with what the teacher says of them.

    Pairs of validation are none of the further ones.

    Args:
        config: who is asked, and of how many pairs.
        splits: labelled pairs by the names ``train`` and ``valid``.
        process: where the teacher runs; every process asks it the same.
        door: that pictures come through, where the teacher reads them.

    Raises:
        UserError: there is no such teacher, or it cannot read a training pair.
        JobError: its files are damaged.
        TransientError: a source of pictures is away.
    """
    train = splits["train"]
    scorer = load_scorer(teacher_folder(config.teacher), device=str(process.device))
    table = train if not config.candidates else _with_candidates(splits, config.candidates)
    read, probabilities = score_readable(scorer, table, door)
    if not read[: len(train)].all():
        row = int(np.flatnonzero(~read[: len(train)])[0])
        ids = " and ".join(repr(train.items[side[row]].item_id) for side in (train.left, train.right))
        raise UserError(
            f"The teacher {scorer.card.spec} cannot read the training pair {ids}: leave it out, or take another."
        )
    sure = np.clip(probabilities, SUREST, 1 - SUREST)
    log_odds = (np.log(sure) - np.log1p(-sure)).astype(np.float32)
    return TaughtPairs(**_shared(table.select(read)), teacher=log_odds)


def _with_candidates(splits: Mapping[str, PairTable], most: int) -> PairTable:
    """The training pairs, and behind them those that blocking brings together and that have no label."""
    train = splits["train"]
    rows = {train.items[row].item_id: row for row in train.item_rows().tolist()}
    labelled = {
        frozenset((table.items[a].item_id, table.items[b].item_id))
        for table in splits.values()
        for a, b in zip(table.left.tolist(), table.right.tolist(), strict=True)
    }
    options = BlockingOptions(sources=TEXT_SOURCES, neighbours=most, max_per_item=most)
    found = [
        (rows[pair.left], rows[pair.right])
        for batch in pairs_of_items(train.used_items(), options)
        for pair in batch
        if frozenset((pair.left, pair.right)) not in labelled
    ]
    left, right = np.array(found, np.int32).reshape(-1, 2).T
    return replace(
        train,
        left=np.concatenate([train.left, left]),
        right=np.concatenate([train.right, right]),
        labels=np.concatenate([train.labels, np.full(len(found), UNKNOWN, np.int8)]),
    )
