"""The configuration file of ``shopvision train matcher``; defaults suit some thousand pairs on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shopvision.errors import UserError
from shopvision.items.item_texts import BuilderName, Segmenter
from shopvision.matching.families._family import Family, find_family
from shopvision.matching.families.axes import Axes, Head, Interaction, Loss, Similarity
from shopvision.matching.families.towers import LayerPooling
from shopvision.training.config import Decay, FitConfig

FRACTIONS = (0.7, 0.15, 0.15)
# A cosine starts from what a pretrained encoder knows of similarity, where an interaction head starts from nothing.
USUAL_HEAD: dict[Interaction, Head] = {"one_tower": "pair", "two_tower": "metric"}


class DataConfig(BaseModel):
    """Section ``[data]``: labelled pairs.

    Attributes:
        pairs: JSONL, CSV or Parquet, see ``shopvision.matching.fitting.data.read_pairs``.
        valid: pairs to choose the best epoch, the calibration and the thresholds on; by default a part of ``pairs``.
        items: the items that the pairs name by id; not needed where pairs hold their items.
        images: what relative picture addresses start from: a folder, ``s3://`` or ``https://``; by default beside the
            file they stand in.
        fractions: without ``valid``: shares of train, valid and test. Items that are linked by pairs stay together, so
            no item is on two sides. The test share is for ``evaluate matcher`` and never looked at here.
        catalogue: learn from the reviewed pairs in Postgres instead of a file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pairs: Path | None = None
    valid: Path | None = None
    items: Path | None = None
    images: str | None = None
    fractions: tuple[float, float, float] | None = None
    catalogue: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.catalogue == (self.pairs is not None):
            raise ValueError("name pairs, or set catalogue = true, and not both")
        if self.catalogue and (self.items is not None or self.images is not None or self.valid is not None):
            raise ValueError("valid, items and images belong to a file of pairs; the catalogue knows its own")
        if self.valid is not None and self.fractions is not None:
            raise ValueError("fractions split pairs where no valid is named: give one of the two")
        if self.fractions is not None and (
            min(self.fractions) < 0 or self.fractions[0] * self.fractions[1] == 0 or abs(sum(self.fractions) - 1) > 1e-6
        ):
            raise ValueError("fractions of train, valid and test sum to 1, and only that of test may be 0")
        return self

    @property
    def picture_folders(self) -> tuple[Path, ...]:
        """Local folders that this run may read, because its user named them."""
        if self.images:
            return () if "://" in self.images else (Path(self.images),)
        files = (self.items,) if self.items else (self.pairs, self.valid)
        return tuple(file.parent for file in files if file is not None)


class TextConfig(BaseModel):
    """Section ``[text]``: how an item becomes text.

    Attributes:
        builder: see ``shopvision.items.item_texts``.
        segmenter: ``jieba`` puts blanks between Chinese words.
        compare_codes: let a pair begin with what the items' model codes say: same, similar or other model. For one
            tower; a shop whose titles name no codes loses nothing by it.
        prefix: what the encoder wants before a single item (two towers): ``query:`` for E5.
        max_length: most tokens of a pair (one tower) or an item (two towers).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    builder: BuilderName = "title_attributes"
    segmenter: Segmenter = "none"
    compare_codes: bool = True
    prefix: str = ""
    max_length: int = Field(128, ge=8)


class ModelConfig(BaseModel):
    """Section ``[model]``.

    Attributes:
        name: of the model version that training makes.
        family: which model.
        text: text encoder, see ``shopvision.encoders.text_backbone.fetch_text``.
        image: image encoder, see ``shopvision.models.importers.fetch``.
        head: see ``shopvision.matching.families.axes``; by default the family's usual one, as the next two.
        similarity: of a metric head.
        loss: what training minimises.
        margin: of the losses cosine, contrastive and hinge.
        scale: of the loss mnr.
        pooling: of a one-tower's states; by default the text encoder's own, or ``cls`` where that is its pooler.
        layers: which layers of the text encoder a one-tower's head reads, counted from the top.
        layer_pooling: how several are put together.
        projection: length of a two-tower's vectors where it is not the encoder's.
        dropout: of the head.
        symmetric: score both orders of a pair and take the mean; twice the work. By default where the order matters:
            with one tower, and with the additive head.
        compare_pictures: of text + image models: let the head compare both pictures, beside the sequence that they are
            tokens of.
        frozen_image: keep the image encoder as it is; its outputs are computed once. Of text + image models it always
            is.
        frozen_layers: how many of the text encoder's first layers, with the embeddings below, are kept as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "matcher"
    family: str = "text_one_tower"
    text: str = "wheel:minilm"
    image: str = "wheel:efficientnet-lite0"
    head: Head | None = None
    similarity: Similarity | None = None
    loss: Loss | None = None
    margin: float | None = None
    scale: float | None = Field(None, gt=0)
    pooling: Literal["cls", "mean"] | None = None
    layers: tuple[int, ...] = (1,)
    layer_pooling: LayerPooling = "cat"
    projection: int | None = Field(None, ge=2, le=1024)
    dropout: float = Field(0.1, ge=0, lt=1)
    symmetric: bool | None = None
    compare_pictures: bool = True
    frozen_image: bool = True
    frozen_layers: int = Field(0, ge=0)

    @property
    def axes(self) -> Axes:
        """The four choices.

        Raises:
            UserError: they do not go together.
        """
        interaction = find_family(self.family).interaction
        head = self.head or USUAL_HEAD[interaction]
        similarity: Similarity = self.similarity or ("cosine" if head == "metric" else "none")
        loss: Loss = self.loss or ("contrastive" if similarity in ("l1", "l2") else "bce")
        return Axes(interaction=interaction, head=head, similarity=similarity, loss=loss)

    @property
    def scores_both_orders(self) -> bool:
        """Whether scores are means over both orders of a pair."""
        if self.symmetric is None:
            return self.axes.interaction == "one_tower" or self.axes.head == "additive"
        return self.symmetric


class TrainConfig(FitConfig):
    """Section ``[train]``, beside the fields of ``FitConfig``.

    Attributes:
        precision: ``auto`` is the fastest that the device computes in natively, a CPU's too: bfloat16 before float32.
        select_by: the validation metric of the best epoch.
        batch_size: pairs in a step, over all processes.
        micro_batch: pairs (one tower) or items (two towers) that pass the encoders at once; by default all of a step.
            Changes memory, not the gradient.
        lr: of the encoders.
        lr_head: of what stands on them and starts from random weights.
        layer_decay: factor of the rate from each layer of the text encoder to the one below.
        swap_pairs: draw the order of every pair anew in each epoch.
        positive_weight: how much more a pair of the same product weighs than one of different products.
        hard_negatives: of the loss mnr: labelled different pairs, as far as there are any, beside each same pair.
        calibration: how logits become probabilities, fitted on the validation pairs.
        soup: average epochs: all (``uniform``), or as long as validation gains (``greedy``); none keeps the best one.
    """

    epochs: int = Field(10, ge=1)
    warmup_fraction: float = Field(0.1, ge=0, le=1)
    decay: Decay = "linear"
    clip_norm: float | None = Field(1.0, gt=0)
    select_by: Literal["f1", "average_precision", "roc_auc", "loss", "last"] = "f1"
    batch_size: int = Field(32, ge=2)
    micro_batch: int | None = Field(None, ge=1)
    lr: float = Field(1e-4, gt=0)
    lr_head: float = Field(1e-3, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    swap_pairs: bool = True
    positive_weight: float = Field(1.0, gt=0)
    hard_negatives: int = Field(1, ge=0)
    calibration: Literal["temperature", "isotonic"] = "temperature"
    soup: Literal["none", "uniform", "greedy"] = "none"


class MatcherConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    text: TextConfig | None = None
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        _ = self.model.axes
        if self.text is not None and not self.family.reads_text:
            raise UserError(f"The family {self.model.family} reads no text: remove the section [text].")
        return self

    @property
    def family(self) -> Family:
        """The model's family."""
        return find_family(self.model.family)

    @property
    def texts(self) -> TextConfig:
        """Section ``[text]``, or what it says where it is left out."""
        return self.text or TextConfig()
