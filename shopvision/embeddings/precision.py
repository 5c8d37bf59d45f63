"""What encoders compute in, and how far their vectors agree with those of float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from sqlalchemy import func, select

from shopvision.catalogue.tables import ItemImage
from shopvision.database import connect
from shopvision.encoders.tuning.record import EXACT
from shopvision.errors import JobError
from shopvision.index.precisions import keep_agreement
from shopvision.index.tables import Embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shopvision.images.pipeline import Encoder
    from shopvision.models import ModelVersionRef

log = structlog.get_logger(__name__)

# Pictures of the catalogue that are compared. Half as many again are asked for, as some sources may be gone.
SAMPLE = 16


def precision_of(encoder: Any) -> str | None:
    """What ``encoder`` computes in; None of one of another maker that does not say it."""
    found: str | None = getattr(encoder, "precision", None)
    return found


def measure_agreement(ref: ModelVersionRef, precision: str) -> float:
    """Embed some pictures of the catalogue in ``precision`` and in float32, and note how far the vectors agree.

    Returns:
        The smallest cosine.

    Raises:
        JobError: no picture of the sample can be read, or a model cannot run.
    """
    from shopvision import models
    from shopvision.encoders.tuning.precision import smallest_cosine

    encoders: list[Encoder] = [models.load(ref.spec, precision=name) for name in (precision, EXACT)]  # type: ignore[arg-type] # a name of the database
    pictures = _sample(ref, encoders[0])
    cosine = smallest_cosine(encoders[0].encode(pictures), encoders[1].encode(pictures))
    keep_agreement(ref.model_version_id, precision, cosine, len(pictures))
    log.info("agreement measured", model=ref.spec, precision=precision, cosine=cosine, pictures=len(pictures))
    return cosine


def _sample(ref: ModelVersionRef, encoder: Encoder) -> NDArray[np.uint8]:
    """(n, H, W, 3) pictures that the model version has vectors of, as its encoder reads them."""
    from shopvision.images import PictureDoor
    from shopvision.images.preprocessing import fit
    from shopvision.images.reader import PictureReader, PictureRequest, ReadPicture
    from shopvision.settings import get_settings

    preprocessing = encoder.preprocessing
    prepared: list[NDArray[np.uint8]] = []
    with PictureDoor(get_settings()) as door:
        reader: PictureReader[Any] = PictureReader(
            door, lambda decoded: fit(decoded, preprocessing), target=preprocessing.resized
        )
        with reader.read([PictureRequest(number, uri) for number, uri in enumerate(_addresses(ref))]) as reading:
            while len(prepared) < SAMPLE and (found := reading.take()) is not None:
                if isinstance(found, ReadPicture) and isinstance(found.parts[0], np.ndarray):
                    prepared.append(found.parts[0])
    if not prepared:
        raise JobError(
            f"No picture of {ref.spec} can be read to measure how far its precisions agree: see the sources."
        )
    return np.stack(prepared)


def _addresses(ref: ModelVersionRef) -> Sequence[str]:
    """Of pictures all over the catalogue, the same ones each time: from a place that the model's number chooses."""
    of_model = select(Embedding.image_id).where(Embedding.model_version_id == ref.model_version_id)
    with connect() as connection:
        low, high = connection.execute(
            select(func.min(Embedding.image_id), func.max(Embedding.image_id)).where(
                Embedding.model_version_id == ref.model_version_id
            )
        ).one()
        if low is None:
            return []
        starts = np.linspace(low, high, SAMPLE + SAMPLE // 2).astype(np.int64).tolist()
        ids = {
            connection.scalar(of_model.where(Embedding.image_id >= start).order_by(Embedding.image_id).limit(1))
            for start in starts
        }
        return connection.scalars(
            select(ItemImage.uri).where(ItemImage.image_id.in_(sorted(ids))).order_by(ItemImage.image_id)
        ).all()
