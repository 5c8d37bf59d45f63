"""What learns to find: pairs of an anchor and what answers it, among the other pairs of their step.

Letters in shapes: n pairs of this process, d dimensions of the vectors, which have unit length. Several processes:
every process computes the loss of all pairs, with gradients in its own slice only; these are multiplied by the number
of processes, so that their average is the gradient of one process with all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional

from shopvision.training.distributed import gather_with_local_gradients

# As CLIP was published (Radford et al. 2021): where a temperature that learns starts, and where it ends at the latest.
FIRST_TEMPERATURE, LOWEST_TEMPERATURE = 0.07, 0.01


@dataclass(frozen=True, slots=True)
class PairVectors:
    """The pairs of a step.

    Attributes:
        anchors: (n, d), of pictures or texts.
        positives: (n, d), of pictures, or of texts as well.
        products: (n,) int64, equal for anchors that ask for the same: pairs of one product, or equal texts.
        pictures: (n,) int64, equal for positives that show the same bytes, or say the same.
    """

    anchors: Tensor
    positives: Tensor
    products: Tensor
    pictures: Tensor

    def gathered(self) -> PairVectors:
        """The pairs of all processes, in the order of their ranks; gradients flow into the own slice only."""
        parts = (_for_average(self.anchors), _for_average(self.positives), self.products, self.pictures)
        return PairVectors(*map(gather_with_local_gradients, parts))

    @torch.no_grad()
    def found(self) -> Tensor:
        """(n,) bool: whether an anchor is nearest to its own positive, among those of this process."""
        similarity = (self.anchors @ self.positives.T).masked_fill(self.no_negatives(), -torch.inf)
        return similarity.argmax(dim=1) == torch.arange(len(similarity), device=similarity.device)

    def no_negatives(self) -> Tensor:
        """(n, n) bool: the positive of pair j may show what anchor i shows, and j is not i.

        True where both ask for the same, or both positives are the same picture, which shops list under several
        products.
        """
        same = (self.products[:, None] == self.products) | (self.pictures[:, None] == self.pictures)
        return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)


def contrastive_loss(
    pairs: PairVectors, temperature: Tensor | float, *, both_directions: bool = True, gather: bool = True
) -> Tensor:
    """InfoNCE among the pairs of the step (van den Oord et al. 2018, equation 4).

    ``mean over pairs i of CE(a_i . p_* / tau, i)``; with both directions the mean of this and of
    ``CE(p_i . a_* / tau, i)`` (Radford et al. 2021, figure 3). Pairs that may show the same are left out of each
    other's negatives.

    Args:
        pairs: of this process, as many in every process.
        temperature: tau.
        both_directions: False is the published loss, from anchors to positives alone.
        gather: False is among the pairs of this process alone, of which others may have more.
    """
    everything = pairs.gathered() if gather else pairs
    with torch.autocast(everything.anchors.device.type, enabled=False):
        logits = everything.anchors @ everything.positives.T / temperature
    logits = logits.masked_fill(everything.no_negatives(), -torch.inf)
    own = torch.arange(len(logits), device=logits.device)
    loss = functional.cross_entropy(logits, own)
    if both_directions:
        loss = (loss + functional.cross_entropy(logits.T, own)) / 2
    return loss


def supervised_contrastive_loss(vectors: Tensor, products: Tensor, repel: Tensor, temperature: float) -> Tensor:
    """All vectors of one product attract each other (Khosla et al. 2020, equation 2, the sum outside the logarithm).

    ``mean over anchors i of -1/|P(i)| sum over P(i) of log(exp(z_i.z_p / tau) / sum over a of exp(z_i.z_a / tau))``

    P(i) are the others of i's product, a runs over these and over those that repel i. Of vectors that do neither it is
    not known what they show. Anchors without others of their product are left out; without any anchor the loss is 0.

    Args:
        vectors: (n, d).
        products: (n,) int64.
        repel: (n, n) bool, never true of two of one product.
        temperature: tau.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        logits = vectors @ vectors.T / temperature
    others = ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    attract = (products[:, None] == products) & others
    anchors = attract.any(1)
    if not anchors.any():
        return vectors.sum() * 0.0
    logits, attract, seen = logits[anchors], attract[anchors], (attract | repel)[anchors]
    log_shares = logits - logits.masked_fill(~seen, -torch.inf).logsumexp(1, keepdim=True)
    return -(log_shares.masked_fill(~attract, 0.0).sum(1) / attract.sum(1)).mean()


def numbers_of_rows(rows: Tensor) -> Tensor:
    """(n, ...) -> (n,) int64, equal for equal rows."""
    numbers: Tensor = torch.unique(rows, dim=0, return_inverse=True)[1]
    return numbers


def _for_average(vectors: Tensor) -> Tensor:
    """The same vectors, whose gradient is multiplied by the number of processes."""
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if world == 1 or not vectors.requires_grad:
        return vectors
    # The value is exactly that of the vectors, because the second part of the sum is 0.
    return vectors + (world - 1) * (vectors - vectors.detach())
