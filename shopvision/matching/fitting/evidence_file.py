"""The pairs that thresholds were chosen from, kept in the model version's folder, so that more can be asked of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shopvision.errors import JobError, UserError
from shopvision.evaluation.thresholds import Evidence, choose_thresholds
from shopvision.matching.families.card import read_card
from shopvision.models.version_folder import FileWriter, write_version

if TYPE_CHECKING:
    from shopvision.evaluation.promises import Promise
    from shopvision.models.card import ModelCard

EVIDENCE_FILE = "evidence.parquet"


def evidence_file(evidence: Evidence) -> FileWriter:
    """Writes ``evidence.parquet``: a row for each pair, without its items."""

    def write(folder: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        columns = {
            "probability": pa.array(evidence.probabilities, pa.float64()),
            "label": pa.array(evidence.labels, pa.int8()),
            "cross_fitted": pa.array(evidence.cross_fitted, pa.bool_()),
        }
        parquet.write_table(pa.table(columns), folder / EVIDENCE_FILE)

    return write


def read_evidence(folder: Path) -> Evidence:
    """The evidence in the folder of a model version.

    Raises:
        UserError: the version holds none.
        JobError: the file is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / EVIDENCE_FILE
    if not path.is_file():
        raise UserError(
            f"{read_card(folder).spec} keeps no {EVIDENCE_FILE}, so its thresholds cannot be chosen anew: train it "
            "again, or give a job thresholds of its own."
        )
    try:
        table = parquet.read_table(path)
        columns = [table.column(name).to_numpy() for name in ("probability", "label", "cross_fitted")]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise JobError(f"{path} is damaged ({error}): import the model version again.") from None
    probabilities, labels, cross_fitted = columns
    return Evidence(probabilities.astype(np.float64), labels.astype(np.int8), cross_fitted.astype(np.bool_))


def choose_again(folder: Path, output: Path, promise: Promise, *, tag: str | None = None) -> ModelCard:
    """Write the same model with thresholds that keep another promise; the version itself stays as it is.

    Args:
        folder: of a pair scorer.
        output: of the new version; empty, or not there.
        promise: what is asked.
        tag: of the new version; by default made from the content.

    Raises:
        UserError: the version keeps no evidence, or ``output`` holds something else.
        JobError: the evidence is damaged.
    """
    card = read_card(folder)
    chosen = choose_thresholds(read_evidence(folder), promise)
    fields = card.model_copy(update={"thresholds": chosen.thresholds, "promises": chosen.shown})
    kept = {name: getattr(fields, name) for name in type(card).model_fields if name not in {"name", "tag", "files"}}

    def copy(new: Path) -> None:
        for name in card.files:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, new / name)

    return write_version(output, [copy], name=card.name, tag=tag, **kept)
