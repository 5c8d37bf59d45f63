"""What every family of detectors can do; nothing else asks which one it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from shopvision.encoders.compiled.inputs import InputSpec
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
    def core(self) -> nn.Module:
        """What most of the time is spent in, as it is now: tensors of ``core_inputs`` -> tensors for ``boxes``.

        A module of its own that shares the weights, so that it can be compiled.
        """

    @abstractmethod
    def core_inputs(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """What the core reads of pictures of one shape."""

    def compiled_inputs(self, shape: tuple[int, int]) -> tuple[InputSpec, ...] | None:  # noqa: ARG002 - for those that are
        """Which ``core_inputs`` of pictures of ``shape`` (H, W) a compiled core takes; None where it is not compiled.

        Compiled for every shape at once it would be slower, and exporting it takes minutes.
        """
        return None

    @property
    def usual_shapes(self) -> tuple[tuple[int, int], ...]:
        """(H, W) that most pictures of a shop have once they are prepared: these are compiled beforehand."""
        return ()

    @abstractmethod
    def boxes(self, numbers: Sequence[Tensor], inputs: Inputs, least: float) -> list[Boxes | None]:
        """Boxes of pictures by what the core made of them; see ``find``."""

    @torch.inference_mode()
    def find(self, inputs: Inputs, *, least: float = 0.0, core: Callable[..., Any] | None = None) -> list[Boxes | None]:
        """Boxes of pictures of one shape, in shares of their width and height; None where they are not finite.

        Doubles may be in it, and whatever has a low score.

        Args:
            inputs: from ``prepare``, put together.
            least: boxes with this score or less may be left out.
            core: what runs in the place of ``core()``, compiled or not.
        """
        run = self.core() if core is None else core
        return self.boxes(run(*self.core_inputs(inputs)), inputs, least)

    @abstractmethod
    def loss(self, inputs: Inputs, truths: Sequence[Boxes]) -> Tensor:
        """What training lowers, of pictures of one shape and what is in each, in shares of its width and height."""

    @abstractmethod
    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        """Weights that were trained on pictures of other kinds before, and learn with a rate of their own."""

    def accelerate(self) -> None:
        """Make it faster, for inference alone, in evaluation mode on the CPU; it finds the same."""
        return
