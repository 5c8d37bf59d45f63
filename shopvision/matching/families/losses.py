"""What pair models learn from.

Letters in shapes: n labelled pairs of this process, N those of all processes, d dimensions of the item vectors. Labels
are 1 (same) and 0 (different). Formulas with their usual mends: a margin of 1 would leave the cosine loss without its
negative half, a hinge on a distance has the wrong sign, and 1 / distance explodes; hence ``contrastive`` for distances.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional

from shopvision.errors import UserError
from shopvision.matching.families.axes import Axes, Loss, Similarity
from shopvision.matching.families.heads import MetricHead
from shopvision.training.distributed import gather_with_local_gradients

DEFAULT_MARGIN: dict[tuple[Loss, Similarity], float] = {
    ("cosine", "cosine"): 0.4,
    ("contrastive", "cosine"): 0.5,
    ("contrastive", "l1"): 1.0,
    ("contrastive", "l2"): 1.0,
    ("hinge", "cosine"): 0.5,
    ("hinge", "inner_product"): 1.0,
}
DEFAULT_SCALE: dict[Similarity, float] = {"cosine": 20.0, "inner_product": 1.0}


@dataclass(frozen=True)
class LossOptions:
    """Numbers of a loss.

    Attributes:
        margin: of ``cosine``, ``contrastive`` and ``hinge``; None takes ``DEFAULT_MARGIN``.
        scale: of ``mnr``: similarities are multiplied with it (the inverse of a temperature); None takes
            ``DEFAULT_SCALE``.
    """

    margin: float | None = None
    scale: float | None = None


LogitLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(log-odds (n,), labels (n,)) -> the mean loss."""


class ComputeOnVectors(Protocol):
    """The mean loss of item vectors; see ``two_tower_loss``."""

    def __call__(
        self,
        axes: Axes,
        head: nn.Module,
        u: Tensor,
        v: Tensor,
        labels: Tensor,
        *,
        groups: tuple[Tensor, Tensor] | None = None,
        options: LossOptions | None = None,
    ) -> Tensor:
        """See ``two_tower_loss``."""


@dataclass(frozen=True, slots=True)
class VectorLoss:
    """A loss of item vectors.

    Attributes:
        compute: see there.
        in_batch: whether a pair's loss depends on the other pairs of its step: then the pairs of the same product are
            drawn, each beside hard negatives, and the loss sees all pairs of all processes at once.
    """

    compute: ComputeOnVectors
    in_batch: bool = False


def binary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross entropy of log-odds (n,).

    With two outputs per pair it is their cross entropy: ``CE(z, y) = BCE(z_1 - z_0, y)``. So this is ``ce`` as well as
    ``bce``; the two differ in the outputs of the head.
    """
    return functional.binary_cross_entropy_with_logits(logits.float(), labels.to(torch.float32))


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy of log-odds (n,) with those of a teacher (n,), both divided by the temperature.

    ``T^2 * mean BCE(z / T, sigmoid(t / T))``: the factor keeps gradients as long as those of labels (Hinton et al.
    2015, section 2).
    """
    wanted = torch.sigmoid(teacher.float() / temperature)
    return temperature**2 * functional.binary_cross_entropy_with_logits(logits.float() / temperature, wanted)


def cosine_loss(cosines: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Mean of ``1 - cos`` for same and ``max(0, cos - margin)`` for different items; cosines (n,)."""
    return torch.where(labels > 0, 1 - cosines, functional.relu(cosines - margin)).mean()


def contrastive_loss(distances: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Half the mean of ``d^2`` for same and ``max(0, margin - d)^2`` for different items; distances (n,).

    After Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", 2006.
    """
    return torch.where(labels > 0, distances, functional.relu(margin - distances)).square().mean() / 2


def hinge_loss(similarities: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Mean of ``max(0, margin - t * s)``, t = 1 for same and -1 for different items; similarities (n,), not distances.

    The two sides are alike around s = 0: same items are to be above ``margin``, different ones below ``-margin``.
    """
    signs = torch.where(labels > 0, 1.0, -1.0).to(similarities.dtype)
    return functional.relu(margin - signs * similarities).mean()


def multiple_negatives_loss(
    head: MetricHead, u: Tensor, v: Tensor, labels: Tensor, *, groups: tuple[Tensor, Tensor], scale: float
) -> Tensor:
    """Find the partner of each item of a same-pair among all items of the batch, in both directions.

    ``mean over same-pairs i of (CE(scale * s(u_i, v_*), i) + CE(scale * s(v_i, u_*), i)) / 2``

    The candidates are all pairs' items: those of other same-pairs are in-batch negatives, those of different-pairs the
    given hard ones (put a hard negative of an item into the same batch as its same-pair). Items known to be the
    anchor's product are no negatives and left out. In several processes every process computes the loss of all pairs;
    its gradient is such that the average over the processes is that of one process with all pairs. A batch without any
    same-pair costs 0.

    Args:
        head: says how similar vectors are: cosine or inner product.
        u: (n, d) vectors of the left items, as many in every process.
        v: (n, d) vectors of the right items.
        labels: (n,).
        groups: two (n,) int64: number of the product of each left and right item; equal numbers are known to be the
            same product. A same-pair has one number on both sides.
        scale: of the similarities.
    """
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    u, v, labels = (gather_with_local_gradients(part) for part in (u, v, labels))
    left, right = (gather_with_local_gradients(part) for part in groups)
    anchors = labels.nonzero()[:, 0]
    if not len(anchors):
        return (u.sum() + v.sum()) * 0.0

    def find(queries: Tensor, candidates: Tensor, own: Tensor, others: Tensor) -> Tensor:
        same = own[anchors, None] == others[None, :]
        same[torch.arange(len(anchors), device=same.device), anchors] = False
        scores = head.compare_all(queries[anchors], candidates) * scale
        return functional.cross_entropy(scores.masked_fill(same, -torch.inf), anchors)

    loss = (find(u, v, left, right) + find(v, u, right, left)) / 2
    # Only a W-th of the gradient reaches each process's own vectors, and averaging divides it once more.
    return loss if world == 1 else loss * world - loss.detach() * (world - 1)


def two_tower_loss(
    axes: Axes,
    head: nn.Module,
    u: Tensor,
    v: Tensor,
    labels: Tensor,
    *,
    groups: tuple[Tensor, Tensor] | None = None,
    options: LossOptions | None = None,
) -> Tensor:
    """The loss of ``axes`` on item vectors. One-tower models have logits alone: ``binary_loss``.

    Args:
        axes: of the model.
        head: of the model.
        u: (n, d) vectors of the left items.
        v: (n, d) vectors of the right items.
        labels: (n,) 1 or 0.
        groups: for ``mnr``, see ``multiple_negatives_loss``.
        options: margin or scale where the default does not fit.

    Raises:
        UserError: ``mnr`` without groups.
    """
    if axes.loss in ("ce", "bce") or not isinstance(head, MetricHead):
        return binary_loss(head(u, v), labels)
    options = options or LossOptions()
    if axes.loss == "mnr":
        if groups is None:
            raise UserError("The loss mnr needs to know which items are one product: give groups.")
        scale = DEFAULT_SCALE[axes.similarity] if options.scale is None else options.scale
        return multiple_negatives_loss(head, u, v, labels, groups=groups, scale=scale)
    margin = DEFAULT_MARGIN[axes.loss, axes.similarity] if options.margin is None else options.margin
    s = head.compare(u, v)
    match axes.loss:
        case "cosine":
            return cosine_loss(s, labels, margin)
        case "hinge":
            return hinge_loss(s, labels, margin)
        case "contrastive":
            return contrastive_loss(1 - s if axes.similarity == "cosine" else s, labels, margin)
        case other:
            raise ValueError(f"{other} is no loss of this function")


LOGIT_LOSSES: Mapping[Loss, LogitLoss] = {"ce": binary_loss, "bce": binary_loss}
VECTOR_LOSSES: Mapping[Loss, VectorLoss] = {
    **{name: VectorLoss(two_tower_loss) for name in ("ce", "bce", "cosine", "contrastive", "hinge")},
    "mnr": VectorLoss(two_tower_loss, in_batch=True),
}
