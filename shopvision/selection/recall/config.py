"""The configuration file of ``shopvision train recall``; defaults suit a shop's own catalogue on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shopvision.graph.losses import MARGIN
from shopvision.models.card import FolderName
from shopvision.selection.recall.model import HeadName, ScaleName
from shopvision.selection.recall.texts import TextForm
from shopvision.training.config import FitConfig, LocalPath


class DataConfig(BaseModel):
    """Section ``[data]``: texts and the pictures that show what they say.

    Attributes:
        items: the shop's own items, as the catalogue imports them, with all their pictures.
        pairs: or a file of pairs (JSONL, CSV, Parquet) with ``text`` and ``picture``; a text may have several.
        images: what relative pictures start from; by default the file's own folder.
        valid: a file of the same kind to choose the best epoch on; by default a part of the texts.
        valid_fraction: without ``valid``: share of the texts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: LocalPath | None = None
    pairs: LocalPath | None = None
    images: str | None = None
    valid: LocalPath | None = None
    valid_fraction: float = Field(0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.pairs is None) == (self.items is None):
            raise ValueError("give items or pairs, one of the two")
        return self

    @property
    def file(self) -> Path:
        """The items or the pairs."""
        path = self.items or self.pairs
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
    """Section ``[model]``.

    Attributes:
        name: of the model version that training makes.
        text: text encoder, see ``shopvision.encoders.text_sources.fetch_text``.
        text_layers: how many of its layers are kept, from the first; by default all. Published: 4.
        pooling: how its outputs become one vector: the first token (``cls``, published) or the ``mean``; by default as
            it was trained.
        text_prefix: what stands before every text; by default what did when it was trained, ``query: `` for
            ``wheel:e5-small``.
        text_form: what is read of an item: its ``name`` (published), its ``attributes``, or ``name_attributes``.
        max_length: most tokens of a text.
        image: image encoder, see ``shopvision.models.importers.fetch``.
        image_stages: what is read of it: means and spreads of all its stages, which know colours and patterns, beside
            its last features; or these alone, as published. By default the stages of a frozen encoder that tells them.
        dimension: length of the vectors.
        image_head: layers behind the image encoder: ``linear``, or ``two_linear`` as published.
        text_head: likewise of texts; published: ``linear``.
        frozen: keep both encoders as they are and train what stands on them. Their outputs are computed once.
        scale: how the factor of cosines is learnt: its logarithm (``exponential``), or itself (``plain``, published).
        start_scale: the factor at first; published: 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FolderName = "recall"
    text: str = "wheel:e5-small"
    text_layers: int | None = Field(None, ge=1)
    pooling: Literal["cls", "mean"] | None = None
    text_prefix: str | None = None
    text_form: TextForm = "name"
    max_length: int = Field(50, ge=3)
    image: str = "wheel:efficientnet-lite0"
    image_stages: bool | None = None
    dimension: int = Field(512, ge=2)
    image_head: HeadName = "linear"
    text_head: HeadName = "linear"
    frozen: bool = True
    scale: ScaleName = "exponential"
    start_scale: float = Field(10.0, gt=0, le=100)


class GraphConfig(BaseModel):
    """Section ``[graph]``: a knowledge graph that the model learns from beside its pairs.

    Attributes:
        weight: of its loss; 0 leaves the graph out.
        triples: a file of ``head``, ``relation``, ``tail``; by default what the items of ``data.items`` say.
        batch: triples of a step, over all processes.
        margin: by which wrong tails should be farther away.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(0.0, ge=0)
    triples: LocalPath | None = None
    batch: int = Field(64, ge=1)
    margin: float = Field(MARGIN, gt=0)


class TrainConfig(FitConfig):
    """Section ``[train]``, beside the fields of ``FitConfig``.

    Attributes:
        batch_size: texts in a step, over all processes, each with one of its pictures.
        micro_batch: texts or pictures that pass an encoder at once; by default all of a step. Changes memory, not the
            result.
        other_texts: how often a step asks for an item by another text form than ``model.text_form``.
        one_category: fill steps with items of one category, which are harder to tell apart.
        lr: of what stands on the encoders, and of the scale.
        lr_text: of the text encoder, where it learns.
        lr_image: of the image encoder, where it learns.
        select_by: the validation metric of the best epoch.
    """

    epochs: int = Field(30, ge=1)
    warmup_fraction: float = Field(0.05, ge=0, le=1)
    select_by: Literal["hit_rate_1", "hit_rate_5", "hit_rate_10", "mrr", "last"] = "mrr"
    batch_size: int = Field(256, ge=2)
    micro_batch: int | None = Field(None, ge=1)
    other_texts: float = Field(0.5, ge=0, le=1)
    one_category: bool = False
    lr: float = Field(1e-3, gt=0)
    lr_text: float = Field(5e-5, gt=0)
    lr_image: float = Field(1e-4, gt=0)


class RecallConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    model: ModelConfig = ModelConfig()
    graph: GraphConfig = GraphConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _graph_from_somewhere(self) -> Self:
        if self.graph.weight and self.graph.triples is None and self.data.items is None:
            raise ValueError("graph.weight needs graph.triples where data.pairs tells nothing of items")
        return self
