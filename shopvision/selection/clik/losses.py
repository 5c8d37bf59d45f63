"""What CLIK learns from, and the losses of the methods it is compared with.

Letters in shapes: M matching pairs of all processes, g groups of this process, k pictures of each group, sorted by
label with the best first, h dimensions of the vectors.

Several processes: gradients are averaged over W processes, as DistributedDataParallel does. ``image_ranking_loss``,
``listwise_loss``, ``pairwise_loss`` and ``pointwise_loss`` are means over the own groups, and their average is that of
all groups.
``topic_matching_loss`` is computed by every process over all M pairs with gradients in its own slice only, so the
average is a W-th of what one process with all pairs would get; ``total_loss`` makes up for it. ``triplet_loss`` is a
sum over the own groups: times W, its average is the sum over all.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.07
# The published slides say L_m + 0.05 * L_r: the same direction.
MATCHING_WEIGHT = 20.0
TRIPLET_MARGIN = 0.2


def topic_matching_loss(topic_vectors: Tensor, image_vectors: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Symmetric InfoNCE: topic i belongs to picture i, and to none of the others.

    ``(CE(z_s z_i^T / tau, diagonal) + CE(z_i z_s^T / tau, diagonal)) / 2``

    Args:
        topic_vectors: (M, h) of unit length, of M different plans; gathered where there are several processes.
        image_vectors: (M, h) of unit length.
        temperature: tau.
    """
    with torch.autocast(topic_vectors.device.type, enabled=False):
        logits = topic_vectors @ image_vectors.T / temperature
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def image_ranking_loss(compatibility: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """The best picture against the others of its group: mean of ``CE(compatibility / tau, class 0)``.

    Args:
        compatibility: (g, k), pictures sorted by label.
        temperature: tau.
    """
    return functional.cross_entropy(compatibility / temperature, compatibility.new_zeros(len(compatibility)).long())


def listwise_loss(
    compatibility: Tensor, labels: Tensor, temperature: float = TEMPERATURE, label_temperature: float = TEMPERATURE
) -> Tensor:
    """All labels of a group instead of its best alone (ListNet, Cao et al. 2007): an ablation of CLIK.

    Mean over groups of ``-sum softmax(label / tau_label) * log softmax(compatibility / tau)``. The published code takes
    the labels of the last group for all of them; here each group has its own.

    Args:
        compatibility: (g, k).
        labels: (g, k), of any order and scale: ``shares_of_best`` brings groups to one.
        temperature: tau.
        label_temperature: tau of the labels; as it falls to 0, the best pictures of a group share all the weight.
    """
    wanted = (labels / label_temperature).softmax(dim=1)
    return functional.cross_entropy(compatibility / temperature, wanted.to(compatibility.dtype))


def shares_of_best(labels: Tensor) -> Tensor:
    """(g, k) labels as shares of the best of their group, 0 to 1, so that CTRs of 0.001 and counts of 10,000 are alike.

    A group of zeros stays zeros.
    """
    best = labels.amax(dim=1, keepdim=True)
    return torch.where(best > 0, labels / best, torch.zeros_like(labels))


def total_loss(
    topic_matching: Tensor, image_ranking: Tensor, *, weight: float = MATCHING_WEIGHT, world_size: int = 1
) -> Tensor:
    """``20 * L_m + L_r``, scaled so that gradients averaged over the processes are those of one process with all data.

    Args:
        topic_matching: of all pairs, from gathered vectors.
        image_ranking: of the own groups, as many in every process.
        weight: of the matching part.
        world_size: number of processes W; it scales the gradients of the matching part (see above), so report the parts
            and not this sum.
    """
    return weight * world_size * topic_matching + image_ranking


def triplet_loss(topic_vectors: Tensor, image_vectors: Tensor, margin: float = TRIPLET_MARGIN) -> Tensor:
    """Sum over all negatives of ``max(0, |z_s - z_best| - |z_s - z_other| + margin)``, L2 distances.

    Args:
        topic_vectors: anchors (g, h).
        image_vectors: (g, k, h), sorted by label: the first is the positive, all others are negatives.
        margin: by which a negative should be farther away.
    """
    # Of a vector of zeros this norm has the gradient zero, where a square root has none.
    distances = torch.linalg.vector_norm(topic_vectors.unsqueeze(1) - image_vectors, dim=2)
    return functional.relu(distances[:, :1] - distances[:, 1:] + margin).sum()


def pairwise_loss(compatibility: Tensor) -> Tensor:
    """Mean of ``-log sigmoid(score of the best - score of another)`` over the other pictures of all groups.

    Args:
        compatibility: (g, k), pictures sorted by label.
    """
    differences = compatibility[:, :1] - compatibility[:, 1:]
    return functional.binary_cross_entropy_with_logits(differences, torch.ones_like(differences))


def pointwise_loss(compatibility: Tensor, labels: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean of the binary cross-entropy between ``sigmoid(score / tau)`` and the label as a share of the group's best.

    The published code leaves this one out. Without the temperature, cosines could only say probabilities between 0.27
    and 0.73.

    Args:
        compatibility: (g, k).
        labels: (g, k), not negative.
        temperature: tau.
    """
    shares = shares_of_best(labels).to(compatibility.dtype)
    return functional.binary_cross_entropy_with_logits(compatibility / temperature, shares)
