"""Detectors that train on a laptop: a timm backbone, a feature pyramid, and torchvision's FCOS head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from shopvision.encoders._fast import accelerate_image_network
from shopvision.encoders.compiled.inputs import Free, InputSpec
from shopvision.encoders.image_networks import build_timm
from shopvision.errors import UserError
from shopvision.fashion.detection.network import DetectionNetwork, Inputs
from shopvision.fashion.detection.pyramid_fcos import STRIDES, PyramidCore, PyramidFcos
from shopvision.fashion.detection.regions import Boxes
from shopvision.models.card import Architecture

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Lower scores are not worth the time to sort them.
LEAST_SCORE = 0.01
# Pictures that a compiled network takes at once.
MOST_COMPILED = 64
# Width by height of what shops show most: square, and people from head to toe.
USUAL_PROPORTIONS = (1.0, 3 / 4, 2 / 3)
RGB = tuple[float, float, float]


class PyramidArguments(BaseModel):
    """What a detector is built from, stored in ``architecture.arguments`` of its card.

    Attributes:
        backbone: of timm, with feature maps at the strides 8, 16 and 32.
        labels: its classes.
        mean: per channel, of values in 0..1, that the backbone wants.
        std: likewise.
        longest_side: that pictures are brought to, in pixels.
        channels: of the pyramid and the head; normalised in 32 groups.
        head_convs: layers of the head before its last ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Architecture
    labels: tuple[str, ...] = Field(min_length=1)
    mean: RGB
    std: RGB
    longest_side: int = Field(320, ge=32)
    channels: int = Field(64, ge=64, multiple_of=32)
    head_convs: int = Field(2, ge=1)


class PyramidNetwork(DetectionNetwork):
    """FCOS on a pyramid. Pictures keep their proportions and are filled up to whole strides below and at the right."""

    family = "pyramid_detector"

    def __init__(self, arguments: PyramidArguments, encoder: nn.Module) -> None:
        """Build on ``encoder``, the timm network of ``arguments.backbone`` without classifier, which is taken over.

        Raises:
            UserError: it has no feature maps at the strides that the pyramid wants.
        """
        super().__init__()
        self._arguments, self.labels = arguments, arguments.labels
        backbone = _Pyramid(encoder, arguments)
        head = FCOSHead(arguments.channels, 1, len(arguments.labels), arguments.head_convs)
        self.fcos = PyramidFcos(backbone, len(arguments.labels), head=head, score_thresh=LEAST_SCORE)
        self.fcos.transform = _AsItIs(arguments.mean, arguments.std)

    @property
    def arguments(self) -> PyramidArguments:
        """See ``DetectionNetwork``."""
        return self._arguments

    @property
    def target(self) -> tuple[int, int]:
        """See ``DetectionNetwork``."""
        return self._arguments.longest_side, self._arguments.longest_side

    def prepare(self, image: Image.Image) -> Inputs:
        """See ``DetectionNetwork``: pixels (1, H, W, 3) uint8, filled up, and the size (1, 2) of what is picture."""
        scale = self._arguments.longest_side / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        stride = STRIDES[-1]
        pixels = torch.zeros(1, -(-height // stride) * stride, -(-width // stride) * stride, 3, dtype=torch.uint8)
        resized = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
        pixels[0, :height, :width] = torch.from_numpy(resized)
        return {"pixels": pixels, "size": torch.tensor([[height, width]])}

    def core(self) -> nn.Module:
        """See ``DetectionNetwork``."""
        return PyramidCore(self.fcos.backbone, self.fcos.head, self._arguments.mean, self._arguments.std).eval()

    def core_inputs(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """See ``DetectionNetwork``."""
        return inputs["pixels"], inputs["size"]

    def compiled_inputs(self, shape: tuple[int, int]) -> tuple[InputSpec, ...] | None:
        """See ``DetectionNetwork``."""
        batch = Free("batch", 2, MOST_COMPILED)
        return InputSpec("uint8", (batch, *shape, 3)), InputSpec("int64", (batch, 2))

    @property
    def usual_shapes(self) -> tuple[tuple[int, int], ...]:
        """See ``DetectionNetwork``."""
        longest, stride = self._arguments.longest_side, STRIDES[-1]
        sides = [(longest, round(longest * share)) for share in USUAL_PROPORTIONS]
        return tuple((-(-height // stride) * stride, -(-width // stride) * stride) for height, width in sides)

    def boxes(self, numbers: Sequence[Tensor], inputs: Inputs, least: float) -> list[Boxes | None]:
        """See ``DetectionNetwork``."""
        height, width = inputs["pixels"].shape[1:3]
        sizes = [(size[0], size[1]) for size in inputs["size"].tolist()]
        return self.fcos.found(numbers, (height, width), sizes, max(least, LEAST_SCORE))

    def loss(self, inputs: Inputs, truths: Sequence[Boxes]) -> Tensor:
        """See ``DetectionNetwork``."""
        targets = [
            {
                "boxes": truth.boxes * torch.tensor([width, height, width, height], device=truth.boxes.device),
                "labels": truth.labels,
            }
            for truth, (height, width) in zip(truths, inputs["size"].tolist(), strict=True)
        ]
        losses: dict[str, Tensor] = self.fcos(self._pictures(inputs), targets)
        return torch.stack(list(losses.values())).sum()

    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        """See ``DetectionNetwork``."""
        parameters: Iterable[nn.Parameter] = self.fcos.backbone.body.parameters()
        return parameters

    def accelerate(self) -> None:
        """See ``DetectionNetwork``."""
        accelerate_image_network(_OneMap(self.fcos.backbone), self.target)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # a stub for tensors alone

    def freeze(self, stride: int) -> None:
        """Let the backbone's layers up to its last map of ``stride`` keep their weights.

        What they see in pictures, edges and textures, is the same everywhere, and their backward pass, at full
        resolution, costs most of a step.

        Raises:
            UserError: there is no map of this stride.
        """
        self.fcos.backbone.freeze(stride)

    def _pictures(self, inputs: Inputs) -> list[Tensor]:
        """(3, h, w) of each picture without what it was filled up with, in 0..1."""
        dtype = next(self.parameters()).dtype
        pixels = inputs["pixels"].permute(0, 3, 1, 2).to(dtype) / 255
        return [one[:, :height, :width] for one, (height, width) in zip(pixels, inputs["size"].tolist(), strict=True)]


class _Pyramid(nn.Module):
    """(n, 3, H, W) -> five maps with the strides 8 to 128."""

    def __init__(self, encoder: Any, arguments: PyramidArguments) -> None:
        super().__init__()
        try:
            self._levels, widths = _maps(encoder)
            encoder.prune_intermediate_layers(self._levels)
        except (AttributeError, AssertionError, KeyError, NotImplementedError, TypeError, ValueError):
            raise UserError(
                f"The backbone {arguments.backbone.name} has no feature maps at the strides {STRIDES}: choose another "
                "network, such as tf_efficientnet_lite0 or resnet50."
            ) from None
        self.body: Any = encoder
        self.out_channels = channels = arguments.channels
        self.pyramid = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelP6P7(channels, channels))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        # On CPUs, backward passes of depthwise layers take a third of the time in this order.
        images = images.contiguous(memory_format=torch.channels_last)
        maps = self.body.forward_intermediates(images, indices=self._levels, intermediates_only=True)
        levels: dict[str, Tensor] = self.pyramid({str(number): level for number, level in enumerate(maps)})
        return levels

    def freeze(self, stride: int) -> None:
        modules = [info["module"] for info in self.body.feature_info if info["reduction"] == stride]
        if not modules:
            raise UserError(f"The backbone has no map of the stride {stride} to freeze it up to.")
        names = [name for name, _ in self.body.named_parameters()]  # in the order in which a picture meets them
        last = max(place for place, name in enumerate(names) if name.startswith(f"{modules[-1]}."))
        for weight in list(self.body.parameters())[: last + 1]:
            weight.requires_grad_(requires_grad=False)


class _OneMap(nn.Module):
    """A pyramid whose maps come as one tensor, as whatever compares outputs wants them."""

    def __init__(self, pyramid: nn.Module) -> None:
        super().__init__()
        self.pyramid = pyramid

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([level.flatten(1) for level in self.pyramid(images).values()], dim=1)


def _maps(encoder: Any) -> tuple[list[int], list[int]]:
    """Places of the last feature map of each stride, and how many channels these have."""
    last = {info["reduction"]: place for place, info in enumerate(encoder.feature_info)}
    places = [last[stride] for stride in STRIDES]
    return places, [encoder.feature_info[place]["num_chs"] for place in places]


class _AsItIs(GeneralizedRCNNTransform):  # type: ignore[misc] # torchvision is untyped
    """Normalises and puts together pictures that have their size already."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(0, 0, list(mean), list(std), size_divisible=STRIDES[-1])

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target


def build_pyramid(arguments: PyramidArguments) -> PyramidNetwork:
    """The network of a card, float32, CPU, in evaluation mode, weights still random.

    Raises:
        UserError: timm has no such backbone, or it has no feature maps of the right strides.
    """
    return PyramidNetwork(arguments, build_timm(arguments.backbone)).eval()
