"""The network of a classifier: any image network, and a linear layer that tells classes apart."""

from __future__ import annotations

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from shopvision.encoders.image_networks import build_image, image_dimension
from shopvision.models.card import Architecture

NAME = "image_classifier"


class ClassifierArguments(BaseModel):
    """What a classifier is built from, stored in ``architecture.arguments`` of its card.

    Attributes:
        backbone: an image network without classifier: of timm or transformers, or an encoder of ours.
        labels: its classes, in the order of the linear layer.
        unit_features: the linear layer reads the direction of the backbone's vectors alone.
        temperature: logits are divided by it, so that probabilities are the share of right answers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Architecture
    labels: tuple[str, ...] = Field(min_length=2)
    unit_features: bool = True
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _labels_apart(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("two labels have one name")
        return self


class ClassifierNetwork(nn.Module):
    """(n, 3, H, W) -> logits (n, classes), before the temperature.

    Attributes:
        arguments: what it was built from.
        backbone: (n, 3, H, W) -> (n, width).
        head: the linear layer.
    """

    def __init__(self, arguments: ClassifierArguments, backbone: nn.Module) -> None:
        """Take over ``backbone``, the network of ``arguments.backbone``; the layer on it is drawn at random."""
        super().__init__()
        self.arguments, self.backbone = arguments, backbone
        self.head = nn.Linear(image_dimension(backbone), len(arguments.labels))

    def logits(self, features: Tensor) -> Tensor:
        """(n, width) of the backbone -> (n, classes), float32."""
        features = features.float()
        if self.arguments.unit_features:
            # Of the length that a linear layer is initialised for.
            features = nn.functional.normalize(features, dim=1) * math.sqrt(features.shape[1])
        found: Tensor = self.head(features)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.logits(self.backbone(images))


def build_classifier(arguments: ClassifierArguments) -> ClassifierNetwork:
    """The network, float32, CPU, in evaluation mode, weights still random.

    Raises:
        UserError: there is no such backbone, or it refuses its arguments.
    """
    return ClassifierNetwork(arguments, build_image(arguments.backbone)).eval()
