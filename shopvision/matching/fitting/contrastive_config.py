"""The section ``[contrastive]`` of ``shopvision train matcher``: offers of one product come to attract each other."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shopvision.items.text_augmentation import Augmentation
from shopvision.training.config import Decay, FitConfig

Negatives = Literal["all", "sources", "labelled"]


class ContrastiveConfig(FitConfig):
    """The section, beside the fields of ``FitConfig``; its precision is that of ``[train]``.

    Attributes:
        batch_size: offers in a step, over all processes; a process tells its own apart.
        lr: of all that learns here: the encoder, and what makes vectors of its states.
        temperature: similarities are divided by it.
        negatives: which offers repel each other. ``all``: those not known to be one product. ``sources``: those that
            pairs call different, and those that are different because a source offers a product once; others may be one
            product, and do neither. ``labelled``: those that pairs call different.
        hard_negatives: so many products that the model takes for nearly the same come into a step with each product.
        augment: how offers are written otherwise, see ``shopvision.items.text_augmentation``.
        augment_share: of the offers that are, in each epoch.
        twins: show an offer of which no other is known twice in a step, so that it attracts itself.
        select_by: the metric of the validation pairs, by the cosine of their vectors, that chooses the best epoch.
    """

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=16)
    lr: float = Field(1e-4, gt=0)
    temperature: float = Field(0.07, gt=0)
    negatives: Negatives = "all"
    hard_negatives: int = Field(3, ge=0)
    augment: tuple[Augmentation, ...] = ("drop_word", "swap_words", "delete_span", "mask_code")
    augment_share: float = Field(0.5, ge=0, le=1)
    twins: bool = True
    warmup_fraction: float = Field(0.1, ge=0, le=1)
    decay: Decay = "linear"
    clip_norm: float | None = Field(1.0, gt=0)
    select_by: Literal["average_precision", "f1", "roc_auc", "last"] = "average_precision"
