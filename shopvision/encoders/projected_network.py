"""Image networks with a linear layer on top, whose output is the vector: encoders that were trained to search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator
from torch import Tensor, nn

from shopvision.encoders.architecture_arguments import ArchitectureArguments
from shopvision.encoders.image_networks import KIND, build_image, image_dimension
from shopvision.models.card import Architecture, ModelCard
from shopvision.models.version_folder import weights_file, write_version

if TYPE_CHECKING:
    from shopvision.images.preprocessing import Preprocessing

NAME = "projected"


class ProjectedArguments(ArchitectureArguments):
    """What a network is built from, stored in ``architecture.arguments`` of its card.

    Attributes:
        backbone: of timm or transformers, without classifier.
        dimension: length of the vectors.
        bias: whether the linear layer adds one.
    """

    backbone: Architecture
    dimension: int = Field(gt=0)
    bias: bool = True

    @field_validator("backbone")
    @classmethod
    def _plain(cls, backbone: Architecture) -> Architecture:
        if backbone.library == "shopvision":
            raise ValueError("a projection stands on a network of timm or transformers")
        return backbone


class ProjectedNetwork(nn.Module):
    """(n, 3, H, W) -> (n, dimension), not normalised.

    Attributes:
        arguments: what it was built from.
        backbone: (n, 3, H, W) -> (n, width).
        projection: the linear layer.
        head_hidden_size: ``dimension``, under timm's name.
    """

    def __init__(self, arguments: ProjectedArguments, backbone: nn.Module) -> None:
        """Take over ``backbone``, the network of ``arguments.backbone``; the layer on it is drawn at random."""
        super().__init__()
        self.arguments, self.head_hidden_size = arguments, arguments.dimension
        self.backbone = backbone
        self.projection = nn.Linear(image_dimension(backbone), arguments.dimension, bias=arguments.bias)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        projected: Tensor = self.projection(self.backbone(images))
        return projected


def build_projected(arguments: ProjectedArguments) -> ProjectedNetwork:
    """The network, float32, CPU, in evaluation mode, weights still random.

    Raises:
        UserError: there is no such backbone, or it refuses its arguments.
    """
    return ProjectedNetwork(arguments, build_image(arguments.backbone)).eval()


def save_projected(
    folder: Path, network: ProjectedNetwork, preprocessing: Preprocessing, *, name: str, source: str, **card_fields: Any
) -> ModelCard:
    """Write an image encoder as a model version, ready for ``models import local-dir:FOLDER``.

    Args:
        folder: made where it is missing.
        network: the encoder's.
        preprocessing: of its pictures.
        name: of the model.
        source: where the weights came from.
        card_fields: further fields of ``ModelCard``: tag, licence, training_data, metrics.
    """
    return write_version(
        folder,
        [weights_file(network.state_dict())],
        name=name,
        kind=KIND,
        architecture=Architecture(library="shopvision", name=NAME, arguments=network.arguments.model_dump(mode="json")),
        preprocessing=preprocessing,
        dimension=network.arguments.dimension,
        source=source,
        **card_fields,
    )
