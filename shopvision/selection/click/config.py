"""The configuration file of ``shopvision train click-ranker``; defaults are published values where there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shopvision.models.card import FolderName
from shopvision.selection.click.context import ContextText
from shopvision.selection.click.entities import Order
from shopvision.selection.click.losses import MARGIN, LossName
from shopvision.selection.click.sources import SourceKind
from shopvision.training.config import FitConfig, LocalPath

Variant = Literal["published", "cleaned"]
Tower = Literal["frozen", "tuned"]

VARIANTS: dict[Variant, dict[str, Any]] = {
    "published": {"weights": "plain", "statistics": "batch", "products": False, "dropout": 0.1},
    "cleaned": {
        "weights": "normalised",
        "statistics": "layer",
        "products": True,
        "scaled": True,
        "likeness": True,
        "head_widths": (128, 64),
        "dropout": 0.5,
    },
}


class DataConfig(BaseModel):
    """Section ``[data]``.

    Attributes:
        clicks: the file, see ``shopvision.selection.click.sources``.
        kind: of the file: ``records``, ``pairs`` or ``clicks``.
        images: what relative pictures start from: a folder, ``s3://`` or ``https://``; by default beside the file.
        columns: our column -> theirs.
        items: the items that the file names by id; their brands, categories and attributes are entities.
        valid: a file of the same kind to validate on; items of training are left out of it. By default a part of
            ``clicks``.
        fractions: shares of the pairs for training, validation and test; no item is in two of them. With ``valid``
            only the first and the last count.
        split_seed: of the split.
        min_impressions: a picture that was shown less often says nothing.
        max_p_value: pairs whose difference is as likely by luck alone are left out; by default none.
        entities: a file of entities, see ``shopvision.selection.click.entities``.
        entity_images: what its relative pictures start from; by default beside it.
        entity_order: which of an item's entities come first: by ``counts`` of pictures, as published, or by the
            ``frequency`` among items.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    clicks: LocalPath
    kind: SourceKind
    images: str | None = None
    columns: dict[str, str] = {}
    items: LocalPath | None = None
    valid: LocalPath | None = None
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    split_seed: int = Field(27, ge=0)
    min_impressions: float = Field(1, ge=1)
    max_p_value: float | None = Field(None, gt=0, le=1)
    entities: LocalPath | None = None
    entity_images: str | None = None
    entity_order: Order = "counts"

    @model_validator(mode="after")
    def _records_have_no_columns(self) -> Self:
        if self.kind == "records" and (self.columns or self.items is not None):
            raise ValueError("columns and items belong to tables; records have ten fields in a fixed order")
        return self

    @property
    def picture_folders(self) -> tuple[Path, ...]:
        """Local folders that this run may read, because its user named them."""
        files = [(self.clicks, self.images), (self.items, self.images), (self.entities, self.entity_images)]
        folders = [
            Path(images) if images else file.parent
            for file, images in files
            if file is not None and "://" not in (images or "") and "://" not in str(file)
        ]
        return tuple(dict.fromkeys(folders))


class ModelConfig(BaseModel):
    """Section ``[model]``.

    Attributes:
        name: of the model version that training makes.
        recall: the recall model that it stands on: NAME:TAG, a role, or the folder of a model version.
        variant: ``cleaned``: the weights of an item's entities add up to 1, nothing depends on what stands beside it in
            a batch, the layers above are smaller and see products of picture, text and entities, and the score begins
            as the recall model's; or ``published``.
        tower: ``frozen``: pictures are seen through the recall model's own vectors, which are computed and stored once;
            ``tuned``: its image tower is trained on, and becomes the ranker's own.
        entities: how many of an item's entities are looked at.
        text: which text stands for an item: ``entities``, their names as one sentence, as published; ``title``; or
            ``both``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FolderName = "click-ranker"
    recall: str
    variant: Variant = "cleaned"
    tower: Tower = "frozen"
    entities: int = Field(5, ge=0)
    text: ContextText = "both"


class TrainConfig(FitConfig):
    """Section ``[train]``, beside the fields of ``FitConfig``.

    Attributes:
        loss: ``counts``: how the clicks of two pictures fell, so that a pair counts by its clicks; ``difference``:
            which of the two has the higher rate, by cross-entropy, as published; ``margin``: likewise; ``list``: over
            all pictures of an item. By default ``counts`` where clicks were counted, else ``difference``.
        margin: of the loss of that name.
        batch: pairs of a step, over all processes; with ``list`` items.
        list_size: most pictures of an item in a step of ``list``; of more, some are drawn.
        lr: learning rate.
        lr_tower: of a tuned tower.
        micro_batch: pictures that pass a tuned tower at once; by default all of a step. Changes memory, not the
            gradient.
        dropout: in training; by default 0.5, of the published network 0.1.
    """

    select_by: str = "pair_accuracy"
    loss: LossName | None = None
    margin: float = Field(MARGIN, gt=0)
    batch: int = Field(64, ge=1)
    list_size: int = Field(20, ge=2)
    lr: float = Field(1e-3, gt=0)
    lr_tower: float = Field(1e-5, gt=0)
    micro_batch: int | None = Field(None, ge=1)
    dropout: float | None = Field(None, ge=0, lt=1)


class ClickConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    model: ModelConfig
    train: TrainConfig = TrainConfig()
