"""Where garments are in the catalogue's pictures."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import REAL, CheckConstraint, ForeignKey, Index, LargeBinary, SmallInteger, func
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from shopvision.catalogue.tables import ItemImage
from shopvision.database.base import Base
from shopvision.models.tables import ModelVersion


class PictureRegion(Base):
    """What one detector version found in one picture.

    Region 0 is the whole picture. A picture that was looked at has it, so that "nothing found" is known.
    """

    __tablename__ = "picture_regions"
    __table_args__ = (
        CheckConstraint("cardinality(box) = 4", name="box"),
        CheckConstraint("cardinality(colour) = 3", name="colour"),
        CheckConstraint("(region = 0) = (label IS NULL) AND (region = 0) = (score IS NULL)", name="whole"),
        Index("ix_picture_regions_detector_version_id_image_sha256", "detector_version_id", "image_sha256"),
        Index("ix_picture_regions_detector_version_id_found_at", "detector_version_id", "found_at"),
    )

    detector_version_id: Mapped[int] = mapped_column(ForeignKey(ModelVersion.model_version_id), primary_key=True)
    image_id: Mapped[int] = mapped_column(
        ForeignKey(ItemImage.image_id, ondelete="CASCADE"), primary_key=True, index=True
    )
    region: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, comment="0: the whole picture; from 1 by falling score"
    )
    image_sha256: Mapped[bytes] = mapped_column(LargeBinary, comment="of the bytes that the detector looked at")
    box: Mapped[list[float]] = mapped_column(
        ARRAY(REAL), comment="left, top, right, bottom; pixels of the upright picture at full scale"
    )
    label: Mapped[str | None] = mapped_column(comment="class, in the detector's words; null: the whole picture")
    score: Mapped[float | None] = mapped_column(REAL)
    colour: Mapped[list[float] | None] = mapped_column(ARRAY(REAL), comment="of the garment: CIELAB L*, a*, b*")
    found_at: Mapped[datetime] = mapped_column(server_default=func.now())
