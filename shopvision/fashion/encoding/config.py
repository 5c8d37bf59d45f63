"""The configuration file of ``shopvision train encoder``; defaults suit a shop's own catalogue on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shopvision.fashion.encoding.pairs import Product
from shopvision.fashion.encoding.views import Changes
from shopvision.training.config import FitConfig, LocalPath


class DataConfig(BaseModel):
    """Section ``[data]``: pairs of pictures that show the same product.

    Attributes:
        pairs: a training-pairs file (JSONL, CSV, Parquet).
        items: or the shop's own items, as the catalogue imports them: each further picture of an item is paired with
            its leading one.
        images: what relative pictures start from; by default the file's own folder.
        valid: a training-pairs file to choose the best epoch on; by default a part of the pairs.
        valid_fraction: without ``valid``: share of the pairs.
        test_fraction: share that is measured on once, at the end; 0 keeps none.
        product: of ``items``: whether a picture has to find its item (the same colour too), or any item of its style.
        classes: of ``items``: category path, or the beginning of one -> category. By default the path is the category.
        per_category: train one encoder for each category beside the common one; or the names of the categories.
        least_products: with ``per_category``: categories with fewer products of training are left to the common one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pairs: LocalPath | None = None
    items: LocalPath | None = None
    images: str | None = None
    valid: LocalPath | None = None
    valid_fraction: float = Field(0.15, gt=0, lt=1)
    test_fraction: float = Field(0.0, ge=0, lt=1)
    product: Product = "item"
    classes: dict[str, str] | None = None
    per_category: bool | list[str] = False
    least_products: int = Field(50, ge=2)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.pairs is None) == (self.items is None):
            raise ValueError("give pairs or items, one of the two")
        if self.items is None and (given := self.model_fields_set & {"product", "classes"}):
            raise ValueError(f"{min(given)} belongs to items; a file of pairs names product and category itself")
        return self

    @property
    def file(self) -> Path:
        """The pairs or the items."""
        path = self.pairs or self.items
        if path is None:
            raise AssertionError("one of the two is given")
        return path

    @property
    def picture_folders(self) -> tuple[Path, ...]:
        """Local folders that this run may read, because its user named them."""
        if self.images:
            return () if "://" in self.images else (Path(self.images),)
        return tuple(file.parent for file in (self.file, self.valid) if file is not None)


class ModelConfig(BaseModel):
    """Section ``[model]``: what training starts from.

    Attributes:
        name: of the model version.
        image: the image encoder that the projection stands on.
        dimension: length of the vectors.
        start: the projection before the first step: the main directions of features of training pictures, brought to
            one scale (``whitening``), or not (``pca``); or drawn at ``random``. One that the image encoder has already,
            of this length, is kept.
        fine_tune: what of the image encoder learns too: ``none`` (its features are computed once and kept on disk),
            the ``last`` blocks, or ``all``.
        blocks: with ``last``: how many.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "encoder"
    image: str = "wheel:efficientnet-lite0"
    dimension: int = Field(128, ge=2)
    start: Literal["whitening", "pca", "random"] = "whitening"
    fine_tune: Literal["none", "last", "all"] = "none"
    blocks: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _blocks_of_last(self) -> Self:
        if self.fine_tune != "last" and "blocks" in self.model_fields_set:
            raise ValueError('blocks belongs to fine_tune = "last"')
        return self


class TrainConfig(FitConfig):
    """Section ``[train]``, beside the fields of ``FitConfig``.

    Attributes:
        loss: ``contrastive`` (InfoNCE among the pairs of a step), or ``triplet``, which it is compared with.
        both_directions: whether products have to find their anchors too, or only anchors their products.
        temperature: of the contrastive loss.
        learn_temperature: let it be learnt, between 0.01 and 1.
        margin: of the triplet loss.
        batch_size: pairs in a step, over all processes.
        micro_batch: pairs that pass the network at once; by default all of a step. It changes memory, not the result.
        one_category: fill steps with pairs of one category, whose products are harder to tell apart.
        lr: of the projection.
        lr_backbone: of the image encoder, where it learns.
        single_pictures: train also on products with one picture: two changes of it are a pair.
        views: without fine-tuning: changed views of each picture whose features are computed, beside the plain one.
        least_area: smallest share of a picture that a changed view keeps.
        flip: probability of its mirror image; 0 where left and right, or letters, matter.
        light: largest change of its brightness, contrast and saturation.
        patience: stop after so many epochs without a better ``select_by``.
        select_by: the validation metric of the best epoch. ``map`` tells epochs apart by every rank of a right answer;
            recalls by whether it crossed one, which of a hundred queries a few do by chance.
    """

    epochs: int = Field(30, ge=1)
    warmup_fraction: float = Field(0.05, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    select_by: Literal["map", "recall_1", "recall_5", "recall_10", "last"] = "map"
    loss: Literal["contrastive", "triplet"] = "contrastive"
    both_directions: bool = True
    temperature: float = Field(0.07, ge=0.01, le=1)
    learn_temperature: bool = False
    margin: float = Field(0.2, gt=0)
    batch_size: int = Field(64, ge=2)
    micro_batch: int | None = Field(None, ge=1)
    one_category: bool = False
    lr: float = Field(1e-4, gt=0)
    lr_backbone: float = Field(5e-5, gt=0)
    single_pictures: bool = True
    views: int = Field(4, ge=0)
    least_area: float = Field(0.5, gt=0, le=1)
    flip: float = Field(0.5, ge=0, le=1)
    light: float = Field(0.1, ge=0, lt=1)
    patience: int | None = Field(10, ge=1)

    @property
    def changes(self) -> Changes:
        """How views are changed."""
        return Changes(self.least_area, self.flip, self.light)


class EncoderConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
