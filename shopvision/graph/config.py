"""The configuration file of ``shopvision train graph``; defaults suit a shop's catalogue on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shopvision.graph.losses import MARGIN
from shopvision.models.card import FolderName
from shopvision.training.config import FitConfig, LocalPath


class DataConfig(BaseModel):
    """Section ``[data]``: what the graph says.

    Attributes:
        items: the shop's own items: every value of every key is a triple.
        triples: or a file of ``head``, ``relation``, ``tail``: ids of items, keys, values.
        fewest: with ``items``: values that fewer items have are left out.
        held_out: share of the triples that training does not see; the best epoch is chosen on them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: LocalPath | None = None
    triples: LocalPath | None = None
    fewest: int = Field(2, ge=1)
    held_out: float = Field(0.02, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.items is None) == (self.triples is None):
            raise ValueError("give items or triples, one of the two")
        return self

    @property
    def file(self) -> Path:
        """The items or the triples."""
        path = self.items or self.triples
        if path is None:
            raise AssertionError("one of the two is given")
        return path


class ModelConfig(BaseModel):
    """Section ``[model]``.

    Attributes:
        name: of the model version that training makes.
        dimension: of the vectors; published: 768 and 1,024.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FolderName = "graph"
    dimension: int = Field(128, ge=2)


class TrainConfig(FitConfig):
    """Section ``[train]``, beside the fields of ``FitConfig``.

    Attributes:
        batch_size: triples in a step, each beside its wrong ones.
        lr: how long the first step of a vector of unit length is.
        margin: by which wrong triples should be farther from true.
        negatives: wrong triples beside each one.
        relation_negatives: share of them whose relation is wrong; else it is the head or the tail.
        alike: share of the wrong heads and tails that are others of the same relation: another colour, not any value.
        patience: epochs without a better one, after which training ends.
        asked: held-out triples that are asked for after every epoch, at most.
        select_by: the validation metric of the best epoch.
        weight_decay: none, as the next: rows have unit length.
        clip_norm: none.
        precision: ``float32``.
    """

    epochs: int = Field(100, ge=1)
    weight_decay: float = Field(0.0, ge=0, le=0)
    warmup_fraction: float = Field(0.0, ge=0, le=1)
    clip_norm: None = None
    precision: Literal["float32"] = "float32"
    select_by: Literal["mrr", "hits_1", "hits_3", "hits_10", "last"] = "mrr"
    batch_size: int = Field(4096, ge=1)
    lr: float = Field(0.3, gt=0)
    margin: float = Field(MARGIN, gt=0)
    negatives: int = Field(2, ge=1)
    relation_negatives: float = Field(0.2, ge=0, lt=1)
    alike: float = Field(0.5, ge=0, le=1)
    patience: int = Field(5, ge=1)
    asked: int = Field(1000, ge=1)


class GraphConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
