"""Learning which offers are one product, before pairs are: part of the contract of ``_family``.

A family that can do so derives from ``Contrasts`` as well; the section ``[contrastive]`` asks for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from shopvision.matching.families._network import ItemReader
    from shopvision.matching.families._parts import Parts


class Contrasts(ABC):
    """A family whose networks can make a vector of an offer, however many towers they have.

    Attributes:
        vector_parts: submodules of its networks that vectors are made by, as far as a network has them; what else there
            is learns from pairs alone.
    """

    vector_parts: ClassVar[tuple[str, ...]] = ("text", "projection")

    @abstractmethod
    def item_reader(self, arguments: Any, parts: Parts) -> ItemReader[Any]:
        """What makes batches of single items for the network's encoder."""

    @abstractmethod
    def item_vectors(self, network: Any, batch: Any) -> Tensor:
        """(n, d) float32 of unit length, with gradient, of a batch of the reader."""
