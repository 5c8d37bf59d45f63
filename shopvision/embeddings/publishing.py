"""Publishing what was embedded, unless search would lose pictures by it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from shopvision.database import connect
from shopvision.index.tables import Embedding, IndexGeneration

if TYPE_CHECKING:
    from shopvision.models import ModelVersionRef

MAX_COVERAGE_LOSS = 0.02  # share of the served pictures that may be missing when search moves to another model


def publish_index(name: str, ref: ModelVersionRef) -> dict[str, Any]:
    """Publish a generation with what changed, unless search would lose pictures by moving to this model.

    Where vectors of several precisions come together for the first time, it is measured here how far they agree.
    """
    from shopvision.embeddings.precision import measure_agreement
    from shopvision.index.precisions import AgreementUnknownError
    from shopvision.index.publish import publish

    if not _has_vectors(ref):
        return {"published": False, "reason": f"There is no vector of {ref.spec} yet: import a catalogue first."}
    loss = _coverage_loss(name, ref)
    if loss > MAX_COVERAGE_LOSS:
        return {
            "published": False,
            "reason": f"{ref.spec} has seen {loss:.1%} fewer pictures than the model that search uses now: "
            "search stays with that one until a refresh of the whole catalogue has finished.",
        }
    try:
        report = publish(name, ref)
    except AgreementUnknownError as mixture:
        for precision in mixture.precisions:
            measure_agreement(ref, precision)
        report = publish(name, ref)
    return {"published": report.path is not None, **asdict(report)}


def _has_vectors(ref: ModelVersionRef) -> bool:
    with connect() as connection:
        return bool(
            connection.scalar(
                select(select(Embedding.image_id).where(Embedding.model_version_id == ref.model_version_id).exists())
            )
        )


def _coverage_loss(name: str, ref: ModelVersionRef) -> float:
    """Share of the pictures that search finds now and would lose by moving to ``ref``; 0 for the same model."""
    with connect() as connection:
        served = connection.scalar(
            select(IndexGeneration.model_version_id).where(IndexGeneration.name == name, IndexGeneration.is_current)
        )
        if served is None or served == ref.model_version_id:
            return 0.0
        counts: dict[int, int] = dict(
            connection.execute(
                select(Embedding.model_version_id, func.count(Embedding.image_id.distinct()))
                .where(Embedding.model_version_id.in_([served, ref.model_version_id]))
                .group_by(Embedding.model_version_id)
            ).all()
        )
    before = counts.get(served, 0)
    return max(0.0, 1 - counts.get(ref.model_version_id, 0) / before) if before else 0.0
