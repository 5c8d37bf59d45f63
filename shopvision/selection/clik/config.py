"""The configuration file of ``shopvision train clik``; defaults are the published values where there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shopvision.models.card import FolderName
from shopvision.selection.clik.losses import MATCHING_WEIGHT, TEMPERATURE
from shopvision.selection.clik.model import Query
from shopvision.selection.clik.refine import RefineOptions
from shopvision.selection.clik.sampling import Sampling
from shopvision.selection.clik.topic_tokens import SeasonLanguage
from shopvision.training.config import FitConfig, LocalPath

Method = Literal["clik", "triplet", "pairwise", "pointwise"]
RankingLoss = Literal["best", "listwise"]

# Projections are small and start from random weights: the published rates are for pretrained encoders.
FROZEN_LEARNING_RATE = 1e-3


class DataConfig(BaseModel):
    """Section ``[data]``: an exhibition table, or the plans of the catalogue.

    Attributes:
        table: CSV or Parquet, see ``shopvision.selection.clik.exhibition_table``.
        images: what relative pictures start from: a folder, ``s3://`` or ``https://``; by default beside the table.
        label: the numeric column (table) or key of the items' ``extra`` (catalogue) that says how attractive a
            picture is. A catalogue without one trains the matching of topics and pictures alone.
        columns: our column -> theirs.
        catalogue: train on the plans in Postgres instead of a table.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: LocalPath | None = None
    images: str | None = None
    label: str | None = None
    columns: dict[str, str] = {}
    catalogue: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.catalogue == (self.table is not None):
            raise ValueError("name a table, or set catalogue = true, and not both")
        if self.table is not None and self.label is None:
            raise ValueError("a table needs a label: the name of its numeric column")
        if self.catalogue and (self.images is not None or self.columns):
            raise ValueError("images and columns belong to a table; the catalogue knows its own")
        return self

    @property
    def picture_folders(self) -> tuple[Path, ...]:
        """Local folders that this run may read, because its user named them."""
        if self.table is None or (self.images and "://" in self.images):
            return ()
        return (Path(self.images) if self.images else self.table.parent,)


class ModelConfig(BaseModel):
    """Section ``[model]``.

    Attributes:
        name: of the model version that training makes.
        text: text encoder, see ``shopvision.encoders.text_sources.fetch_text``.
        image: image encoder, see ``shopvision.models.importers.fetch``.
        image_stages: what is read of it: means and spreads of all its stages, which know colours and patterns, beside
            its last features; or these alone, as published.
        feature_dim: length of the vectors.
        frozen: keep both encoders as they are and train what stands on them. Their outputs are computed once.
        season_language: of the season words in topics.
        max_length: most tokens of a topic.
        query: what pictures are compared with; by default ``group`` for CLIK with ranking groups, else ``topic``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FolderName = "clik"
    text: str = "wheel:e5-small"
    image: str = "wheel:efficientnet-lite0"
    image_stages: bool = False
    feature_dim: int = Field(128, ge=2)
    frozen: bool = False
    season_language: SeasonLanguage = "ko"
    max_length: int = Field(128, ge=10)
    query: Query | None = None


class TrainConfig(FitConfig):
    """Section ``[train]``, beside the fields of ``FitConfig``.

    Attributes:
        method: ``clik``, or a method that it is compared with: ``triplet``, ``pairwise``, ``pointwise``.
        matching_batch: topics with one picture each in a step, over all processes; the size of the memory bank.
        groups: ranking groups in a step, over all processes; 0 trains the matching alone.
        group_size: pictures of a group.
        lr_text: of the text tower; by default 5e-5, or 1e-3 with frozen encoders.
        lr_image: of the image tower and the aggregation; by default 1e-4, or 1e-3 with frozen encoders.
        micro_batch: topics or pictures that pass an encoder at once; by default all of a step. Changes memory, not
            the gradient.
        word_dropout: share of a topic's tokens that training replaces by the unknown one; not with frozen encoders,
            whose outputs are computed once.
        text_augmentation: how often the matching part takes the product's own texts instead of the topic's.
        matching_sampling: which product of a topic the matching part takes: ``random`` any one (published),
            ``weighted`` the best of 7 drawn by label, ``sequential`` the best.
        ranking_sampling: how a group is drawn, see ``shopvision.selection.clik.sampling``.
        ranking_loss: what CLIK learns from a group: that its ``best`` picture goes before the others (published), or
            the share of each by its label (``listwise``, an ablation).
        label_temperature: of ``listwise``: labels are shares of the group's best, divided by this.
        same_topic_per_step: all groups of a step from one exhibition, as published; else from different ones.
        matching_weight: of the topic-matching loss beside the ranking loss; by default 20 for CLIK and 0 for others.
        temperature: of both losses.
    """

    select_by: str = "mrr"
    method: Method = "clik"
    matching_batch: int = Field(512, ge=2)
    groups: int = Field(12, ge=0)
    group_size: int = Field(20, ge=2)
    lr_text: float | None = Field(None, gt=0)
    lr_image: float | None = Field(None, gt=0)
    micro_batch: int | None = Field(None, ge=1)
    word_dropout: float = Field(0.1, ge=0, lt=1)
    text_augmentation: float = Field(0.5, ge=0, le=1)
    matching_sampling: Sampling = "random"
    ranking_sampling: Sampling = "weighted"
    ranking_loss: RankingLoss = "best"
    label_temperature: float = Field(TEMPERATURE, gt=0)
    same_topic_per_step: bool = False
    matching_weight: float | None = Field(None, ge=0)
    temperature: float = Field(TEMPERATURE, gt=0)


class ClikConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    refine: RefineOptions = RefineOptions()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if not self.train.groups and not self.matching_weight:
            raise ValueError("train.groups = 0 leaves nothing to learn where train.matching_weight is 0")
        if self.query != "topic" and not self.train.groups:
            raise ValueError(f'model.query = "{self.query}" is learnt from ranking groups: raise train.groups')
        if self.train.ranking_loss != "best" and self.train.method != "clik":
            raise ValueError(f'train.method = "{self.train.method}" is a loss of its own: leave out train.ranking_loss')
        return self

    @property
    def query(self) -> Query:
        """What pictures are compared with."""
        ranks = self.train.method == "clik" and self.train.groups
        return self.model.query or ("group" if ranks else "topic")

    @property
    def matching_weight(self) -> float:
        """Weight of the topic-matching loss."""
        given = self.train.matching_weight
        return given if given is not None else MATCHING_WEIGHT if self.train.method == "clik" else 0.0

    @property
    def needs_matching(self) -> bool:
        """Whether a step has a matching part: for its loss, or for the memory bank."""
        return self.matching_weight > 0 or self.query != "topic"

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Of the text tower, and of the image tower with the aggregation."""
        text, image = (FROZEN_LEARNING_RATE, FROZEN_LEARNING_RATE) if self.model.frozen else (5e-5, 1e-4)
        return self.train.lr_text or text, self.train.lr_image or image
