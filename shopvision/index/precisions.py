"""Vectors of one index that were computed in different precisions: how far they must agree, and whether they do.

Machines differ in what they compute fastest in, so that one catalogue is embedded in float32 here and in bfloat16
there. Both are compared with float32, which stands for what the model means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import structlog
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from shopvision.database import connect
from shopvision.encoders.tuning.record import EXACT, LEAST_AGREEMENT
from shopvision.errors import JobError
from shopvision.index.gate import GenerationRefused
from shopvision.index.source import UNKNOWN
from shopvision.index.tables import PrecisionAgreement

log = structlog.get_logger(__name__)


class AgreementUnknownError(JobError):
    """An index would hold vectors of several precisions, and how far some of them agree was not measured.

    Attributes:
        precisions: that were not compared with float32 yet.
    """

    def __init__(self, message: str, precisions: tuple[str, ...]) -> None:
        super().__init__(message)
        self.precisions = precisions


def require_agreement(model: str, model_version_id: int, precisions: Mapping[str, int]) -> None:
    """Refuse vectors of several precisions unless they were measured to agree.

    Args:
        model: ``name:tag``, for messages.
        model_version_id: whose vectors they are.
        precisions: how many there are of each. Those of unknown precision were made before it was noted: nobody can
            tell, and they are let pass.

    Raises:
        AgreementUnknownError: a precision was not measured.
        GenerationRefused: a precision is further from float32 than ``LEAST_AGREEMENT``.
    """
    known = {name: count for name, count in precisions.items() if name != UNKNOWN and count}
    if len(known) < 2:
        return
    measured = agreements(model_version_id)
    told = " and ".join(f"{count:,} vectors in {name}" for name, count in sorted(known.items()))
    override = json.dumps({model: {"precision": EXACT}})
    mend = f"set SHOPVISION_TUNING='{override}' for all workers and embed them anew (refresh with scope 'all')."
    for name in sorted(known):
        if name != EXACT and measured.get(name, 1.0) < LEAST_AGREEMENT:
            raise GenerationRefused(
                f"it would mix {told}, and {name} agrees with {EXACT} only to a cosine of {measured[name]:.4f} "
                f"({LEAST_AGREEMENT} is needed): {mend}"
            )
    unknown = tuple(name for name in sorted(known) if name not in {EXACT, *measured})
    if unknown:
        raise AgreementUnknownError(
            f"The index would mix {told} of {model}, and how far they agree was not measured: run a refresh_embeddings "
            f"job, which measures it, or `shopvision models tuning {model} --again`.",
            unknown,
        )
    log.info("vectors of several precisions in one index", model=model, precisions=known, agreement=measured)


def agreements(model_version_id: int) -> dict[str, float]:
    """Precision -> smallest cosine to float32, as it was measured last."""
    query = select(PrecisionAgreement.precision, PrecisionAgreement.cosine).where(
        PrecisionAgreement.model_version_id == model_version_id
    )
    with connect() as connection:
        return {precision: cosine for precision, cosine in connection.execute(query)}  # noqa: C416 - no pairs to the type checker


def keep_agreement(model_version_id: int, precision: str, cosine: float, pictures: int) -> None:
    """Note what was measured, in place of what was before."""
    values = {"cosine": cosine, "pictures": pictures, "measured_at": func.now()}
    with connect() as connection:
        connection.execute(
            insert(PrecisionAgreement)
            .values(model_version_id=model_version_id, precision=precision, **values)
            .on_conflict_do_update(index_elements=["model_version_id", "precision"], set_=values)
        )
