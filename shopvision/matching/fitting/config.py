"""The configuration file of ``shopvision train matcher``; defaults suit some thousand pairs on a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

from shopvision.errors import UserError
from shopvision.evaluation.promises import Promise
from shopvision.matching.families._contrasting import Contrasts
from shopvision.matching.families._parts import FamilyOptions
from shopvision.matching.families._pretraining import Pretrains
from shopvision.matching.families.registry import AnyFamily, family_names, find_family
from shopvision.matching.families.text_reading import TextOptions
from shopvision.matching.fitting.contrastive_config import ContrastiveConfig
from shopvision.matching.fitting.distillation_config import DistillationConfig
from shopvision.matching.fitting.pretraining_config import PretrainingConfig
from shopvision.training.config import Decay, FitConfig, LocalPath

FRACTIONS = (0.7, 0.15, 0.15)
DEFAULT_FAMILY = "text_one_tower"


class DataConfig(BaseModel):
    """Section ``[data]``: labelled pairs.

    Attributes:
        pairs: JSONL, CSV or Parquet, see ``shopvision.items.pair_files.read_pairs``.
        valid: pairs to choose the best epoch, the calibration and the thresholds on; by default a part of ``pairs``.
        items: the items that the pairs name by id; not needed where pairs hold their items.
        images: what relative picture addresses start from: a folder, ``s3://`` or ``https://``; by default beside the
            file they stand in.
        fractions: without ``valid``: shares of train, valid and test. Items that are linked by pairs stay together, so
            no item is on two sides. The test share is for ``evaluate matcher`` and never looked at here.
        catalogue: learn from the reviewed pairs in Postgres instead of a file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pairs: LocalPath | None = None
    valid: LocalPath | None = None
    items: LocalPath | None = None
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
        betas: of AdamW: how much of the mean gradient, and of its mean square, a step keeps.
        layer_decay: factor of the rate from each layer of the text encoder to the one below.
        swap_pairs: draw the order of every pair anew in each epoch.
        positive_weight: how much more a pair of the same product weighs than one of different products.
        hard_negatives: of the loss mnr: labelled different pairs, as far as there are any, beside each same pair.
        calibration: how logits become probabilities, fitted on the validation pairs.
        seeds: so many models are taught, from ``seed`` on, and the one that is best on validation is kept. For few
            pairs, of which another seed may make quite another model.
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
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    layer_decay: float = Field(1.0, gt=0, le=1)
    swap_pairs: bool = True
    positive_weight: float = Field(1.0, gt=0)
    hard_negatives: int = Field(1, ge=0)
    calibration: Literal["temperature", "isotonic"] = "temperature"
    seeds: int = Field(1, ge=1, le=20)
    soup: Literal["none", "uniform", "greedy"] = "none"


class ThresholdsConfig(Promise):
    """Section ``[thresholds]``, beside the fields of ``Promise``.

    Attributes:
        cross_fit: where validation has too few pairs of the same item to show the promise, this many models are taught
            beside, each without a part of the training pairs, so that these can tell as well; 0 switches it off.
    """

    cross_fit: int = Field(3, ge=0, le=20)

    @model_validator(mode="after")
    def _at_least_two(self) -> Self:
        if self.cross_fit == 1:
            raise ValueError("cross_fit is 1: one part leaves nothing to learn from; give 0, or 2 and more")
        return self

    @property
    def promise(self) -> Promise:
        """What is asked of verdicts."""
        return Promise(precision=self.precision, missed=self.missed, confidence=self.confidence)


def _options_of_family(value: Any) -> Any:
    """The section ``[model]`` as its family reads it."""
    if not isinstance(value, dict):
        return value
    family = find_family(str(value.get("family", DEFAULT_FAMILY)))
    known = family.options.model_fields
    for name in value:
        if name not in known:
            raise UserError(f"model.{name} is unknown to the family {family.name}; there are {', '.join(known)}.")
    return family.options.model_validate(value)


class MatcherConfig(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    text: TextOptions | None = None
    model: Annotated[SerializeAsAny[FamilyOptions], BeforeValidator(_options_of_family)] = Field(
        default_factory=lambda: _options_of_family({}), validate_default=False
    )
    pretraining: PretrainingConfig | None = None
    contrastive: ContrastiveConfig | None = None
    distillation: DistillationConfig | None = None
    train: TrainConfig = TrainConfig()
    thresholds: ThresholdsConfig = ThresholdsConfig()

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        loss = self.family.axes(self.model).loss
        if self.distillation is not None and loss not in ("bce", "ce"):
            raise UserError(
                f"The loss {loss} knows no probabilities that a teacher could correct: remove the section "
                "[distillation], or take the loss bce."
            )
        if self.text is not None and not self.family.reads_text:
            raise UserError(f"The family {self.model.family} reads no text: remove the section [text].")
        for field in sorted(self.text.model_fields_set) if self.text else ():
            if instead := self.family.unread_text_options.get(field):
                raise UserError(f"text.{field} means nothing to the family {self.model.family}: remove it; {instead}.")
        if self.pretraining is not None and not isinstance(self.family, Pretrains):
            able = ", ".join(name for name in family_names() if isinstance(find_family(name), Pretrains))
            raise UserError(
                f"The family {self.model.family} does not learn from items alone: remove the section [pretraining], or "
                f"use one of {able}."
            )
        if self.contrastive is not None and not isinstance(self.family, Contrasts):
            able = ", ".join(name for name in family_names() if isinstance(find_family(name), Contrasts))
            raise UserError(
                f"The family {self.model.family} makes no vectors of texts: remove the section [contrastive], or "
                f"use one of {able}."
            )
        return self

    @property
    def family(self) -> AnyFamily:
        """The model's family."""
        return find_family(self.model.family)

    @property
    def picture_folders(self) -> tuple[Path, ...]:
        """Local folders that this run may read, because its user named them."""
        more = self.pretraining.items if self.pretraining else None
        return (*self.data.picture_folders, *(() if more is None else (more.parent,)))

    @property
    def texts(self) -> TextOptions:
        """Section ``[text]``, or what it says where it is left out."""
        return self.text or TextOptions()
