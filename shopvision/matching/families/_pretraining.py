"""Learning from items without labels, before any pair is looked at: part of the contract of ``_family``.

A family that can do so derives from ``Pretrains`` as well; the section ``[pretraining]`` asks for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from shopvision.matching.families._network import ItemReader, LossTerms
from shopvision.matching.families._parts import Parts


class PretrainingNetwork(nn.Module, ABC):
    """A model's network, and around it what asks it questions about items. The latter stays behind afterwards.

    Attributes:
        network: of the model; what it learns here is where learning from pairs begins.
        untouched: its submodules that stay as they are: no question reaches them, or what one teaches them does harm.
    """

    untouched: tuple[str, ...] = ("head", "projection")

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @abstractmethod
    def losses(self, batch: Any) -> LossTerms:
        """The losses of n items, by the same names in every batch; what is drawn is drawn from torch's generator.

        Args:
            batch: of the items' reader.
        """

    @property
    def left_behind(self) -> list[str]:
        """Names of the submodules that are no part of the model."""
        return [name for name, _ in self.named_children() if name != "network"]


class Pretrains(ABC):
    """A family whose networks learn from items without labels."""

    @abstractmethod
    def item_reader(self, arguments: Any, parts: Parts) -> ItemReader[Any]:
        """What makes batches of items; of a family with two towers its own reader."""

    @abstractmethod
    def pretraining(self, network: Any, arguments: Any, parts: Parts, kept: Any) -> PretrainingNetwork:
        """What asks the questions.

        Args:
            network: of the model.
            arguments: of the model.
            parts: of the model.
            kept: what the reader made of all the items.

        Raises:
            UserError: the parts cannot learn so.
        """
