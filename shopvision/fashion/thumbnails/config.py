"""The configuration file of ``shopvision train classifier``; defaults suit some thousand pictures on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shopvision.fashion.thumbnails.data import Columns
from shopvision.training.config import FitConfig, LocalPath


class DataConfig(BaseModel):
    """Section ``[data]``: pictures with a class each.

    Attributes:
        pictures: a folder with a folder for each class; or a file (CSV, JSONL, Parquet) with a row for each picture.
        valid: likewise, to choose the best epoch and to calibrate on; by default a part of ``pictures``.
        valid_fraction: without ``valid``: share of the pictures of each class.
        images: what a file's pictures start from: a folder, ``s3://`` or ``https://``; by default its own folder.
        picture: the file's column of addresses or paths.
        label: its column of classes.
        product: its column of what pictures of one product share, which then are on one side of the split; by default
            ``product_id`` where there is such a column.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pictures: LocalPath
    valid: LocalPath | None = None
    valid_fraction: float = Field(0.15, gt=0, lt=1)
    images: str | None = None
    picture: str = "picture"
    label: str = "label"
    product: str | None = None

    @property
    def columns(self) -> Columns:
        """Of a file."""
        return Columns(self.picture, self.label, self.product)

    @property
    def picture_folders(self) -> tuple[Path, ...]:
        """Local folders that this run may read, because its user named them."""
        if self.images:
            return () if "://" in self.images else (Path(self.images),)
        sources = (source for source in (self.pictures, self.valid) if source is not None)
        return tuple(source if source.is_dir() else source.parent for source in sources)


class ModelConfig(BaseModel):
    """Section ``[model]``.

    Attributes:
        name: of the model version.
        image: the image encoder that training starts from, see ``shopvision.models.importers.fetch``.
        frozen: keep it as it is and learn a linear layer on its vectors, which are computed once; else all is learnt.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "thumbnail-classifier"
    image: str = "wheel:efficientnet-lite0"
    frozen: bool = True


class TrainConfig(FitConfig):
    """Section ``[train]``, beside the fields of ``FitConfig``.

    Attributes:
        batch_size: pictures in a step, over all processes.
        micro_batch: pictures that pass the network at once; by default all of a step.
        lr: of the linear layer. By default 3e-3 on a frozen encoder, else 1e-3.
        lr_backbone: of an encoder that is not frozen.
        class_weights: ``balanced`` lets every class count the same in all, however many pictures it has; it finds more
            of the rare ones, and says them more often than they occur.
        flip: mirror every other picture, where the encoder is not frozen.
        patience: stop after so many epochs without a better one by ``select_by``.
        cross_fit: on a frozen encoder: into how many parts training pictures are divided, each of which is asked of a
            layer taught without it, to calibrate on all of them; 0 calibrates on the validation pictures.
        select_by: the validation metric of the best epoch.
    """

    epochs: int = Field(60, ge=1)
    weight_decay: float = Field(0.05, ge=0)
    warmup_fraction: float = Field(0.03, ge=0, le=1)
    select_by: Literal["loss", "accuracy", "balanced_accuracy", "macro_f1", "last"] = "loss"
    batch_size: int = Field(64, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    lr: float | None = Field(None, gt=0)
    lr_backbone: float = Field(5e-5, gt=0)
    class_weights: Literal["none", "balanced"] = "none"
    flip: bool = True
    patience: int = Field(8, ge=1)
    cross_fit: int = Field(5, ge=0)

    @field_validator("cross_fit")
    @classmethod
    def _parts(cls, parts: int) -> int:
        if parts == 1:
            raise ValueError("one part leaves nothing to learn from: give 0, or 2 and more")
        return parts


class ClassifierConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    @property
    def head_rate(self) -> float:
        """Learning rate of the linear layer."""
        return self.train.lr or (3e-3 if self.model.frozen else 1e-3)
