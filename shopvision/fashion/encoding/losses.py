"""The loss that encoders' contrastive loss is compared with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from shopvision.training.contrastive import PairVectors


def triplet_loss(pairs: PairVectors, margin: float) -> Tensor:
    """Triples of anchor, positive and one negative each: mean of ``max(0, |a - p| - |a - n| + margin)``, L2 distances.

    The negative is the positive of the next pair of the step, the first behind the last, that may not show the same; a
    pair without one counts 0. (Schroff et al. 2015, equation 2, on distances.)
    """
    everything = pairs.gathered()
    count = len(everything.anchors)
    own = torch.arange(count, device=everything.anchors.device)
    distance_behind = (own - own[:, None]) % count  # 0 is the pair itself
    forbidden = everything.no_negatives() | (distance_behind == 0)
    nearest = distance_behind.masked_fill(forbidden, count).min(dim=1)
    # Of a vector of zeros this norm has the gradient zero, where a square root has none.
    near = torch.linalg.vector_norm(everything.anchors - everything.positives, dim=1)
    far = torch.linalg.vector_norm(everything.anchors - everything.positives[nearest.indices], dim=1)
    return torch.where(nearest.values < count, functional.relu(near - far + margin), near * 0.0).mean()
