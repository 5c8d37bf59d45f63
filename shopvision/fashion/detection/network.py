"""What every family of detectors can do; nothing else asks which one it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from pydantic import BaseModel
from torch import Tensor, nn

from shopvision.fashion.detection.regions import Boxes

if TYPE_CHECKING:
    from PIL import Image

Inputs: TypeAlias = "Mapping[str, Tensor]"
"""What a network reads, by name; the first axis counts pictures."""


class DetectionNetwork(nn.Module, ABC):
    """A network with its preprocessing.

    Attributes:
        family: ``architecture.name`` of the card.
        labels: classes in the order of their numbers.
    """

    family: ClassVar[str]
    labels: tuple[str, ...]

    @property
    @abstractmethod
    def arguments(self) -> BaseModel:
        """What it is built from: ``architecture.arguments`` of the card."""

    @property
    @abstractmethod
    def target(self) -> tuple[int, int]:
        """(height, width) that a picture is shrunk to at most: it may be decoded at reduced scale above it."""

    @abstractmethod
    def prepare(self, image: Image.Image) -> Inputs:
        """Inputs of one RGB picture, on the CPU."""

    @abstractmethod
    def find(self, inputs: Inputs) -> list[Boxes | None]:
        """Boxes of pictures of one shape, in shares of their width and height; None where they are not finite.

        Doubles may be in it, and whatever has a low score.
        """

    @abstractmethod
    def loss(self, inputs: Inputs, truths: Sequence[Boxes]) -> Tensor:
        """What training lowers, of pictures of one shape and what is in each, in shares of its width and height."""

    @abstractmethod
    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        """Weights that were trained on pictures of other kinds before, and learn with a rate of their own."""

    def accelerate(self) -> None:
        """Make it faster, for inference alone, in evaluation mode on the CPU; it finds the same."""
        return
