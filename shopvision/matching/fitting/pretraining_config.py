"""The section ``[pretraining]`` of ``shopvision train matcher``: what a model learns from items before any pair."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shopvision.training.config import Decay, FitConfig, LocalPath


class PretrainingConfig(FitConfig):
    """The section, beside the fields of ``FitConfig``; its precision is that of ``[train]``.

    Attributes:
        items: to learn from, with pictures as those of ``[data]``; by default ``data.items``, or with
            ``data.catalogue`` the whole catalogue, else the items of the pairs.
        valid: share of them that is held out to choose the best epoch on.
        batch_size: items in a step, over all processes; a contrastive loss tells those of one process apart.
        lr: of the encoders.
        lr_head: of what stands on them and starts from random weights.
        select_by: the best epoch has the lowest loss of held-out items; or the last.
    """

    items: LocalPath | None = None
    valid: float = Field(0.1, gt=0, le=0.5)
    epochs: int = Field(5, ge=1)
    batch_size: int = Field(32, ge=2)
    lr: float = Field(1e-4, gt=0)
    lr_head: float = Field(1e-3, gt=0)
    warmup_fraction: float = Field(0.1, ge=0, le=1)
    decay: Decay = "linear"
    clip_norm: float | None = Field(1.0, gt=0)
    select_by: Literal["loss", "last"] = "loss"
