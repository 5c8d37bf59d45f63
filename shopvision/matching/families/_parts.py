"""What families of pair models are made of: options, arguments, parts, and what training begins from.

Part of the contract of ``_family``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from shopvision.matching.families.axes import Axes, Head, Loss, Similarity
from shopvision.models.card import FolderName

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from shopvision.images.preprocessing import Preprocessing
    from shopvision.training.pretrained import PretrainedImage


class FamilyOptions(BaseModel):
    """Section ``[model]`` of a training configuration; a family adds fields of its own.

    Attributes:
        name: of the model version that training makes.
        family: which model.
        head: see ``axes``; by default the family's usual one, as the next two.
        similarity: of a metric head.
        loss: what training minimises.
        margin: of the losses cosine, contrastive and hinge.
        scale: of the loss mnr.
        dropout: of the head.
        symmetric: score both orders of a pair and take the mean; twice the work. By default where the order matters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FolderName = "matcher"
    family: str
    head: Head | None = None
    similarity: Similarity | None = None
    loss: Loss | None = None
    margin: float | None = None
    scale: float | None = Field(None, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    symmetric: bool | None = None


class FamilyArguments(BaseModel):
    """What a network is built from, stored in ``architecture.arguments`` of its card; a family adds fields of its own.

    Attributes:
        family: name of the family.
        axes: interaction, head, similarity and loss.
        dropout: of the head.
        symmetric: score a pair in both orders and average the logits.
        calibration: how logits become probabilities, see ``shopvision.evaluation.calibration``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str
    axes: Axes
    dropout: float = Field(0.1, ge=0, lt=1)
    symmetric: bool = False
    calibration: dict[str, Any] = {"method": "none"}


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a model consists of beside its arguments and weights. A family with further parts derives its own class.

    Attributes:
        tokenizer: of its texts; None where it reads none.
        preprocessing: of its pictures; None where it reads none.
        image_encoder: a network without classifier that is no part of the model's and never changes: its features are
            what the model reads of a picture. Stored with the model's weights.
        unit_features: whether these are brought to unit length.
    """

    tokenizer: PreTrainedTokenizerFast | None = None
    preprocessing: Preprocessing | None = None
    image_encoder: nn.Module | None = None
    unit_features: bool = True


@dataclass(frozen=True)
class FrozenFeatures:
    """A part of a network that pictures pass first and that training leaves as it is.

    Attributes:
        compute: (n, H, W, 3) pixels -> (n, dimension), which the network reads in their place.
        dimension: length of the features.
    """

    compute: Callable[[Tensor], Tensor]
    dimension: int


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A pretrained encoder that a model begins from, as its card tells of it."""

    name: str
    source: str
    licence: str


Weights: TypeAlias = Mapping[str, Mapping[str, Tensor]]
"""Submodule of a network -> its tensors, all of them."""

ArgumentsT = TypeVar("ArgumentsT", bound=FamilyArguments)
OptionsT = TypeVar("OptionsT", bound=FamilyOptions)


@dataclass(frozen=True, kw_only=True)
class Start(Generic[ArgumentsT]):
    """What training begins from.

    Attributes:
        arguments: of the network.
        parts: of the model.
        weights: of pretrained submodules. These learn with the rate of encoders, all else with that of what stands on
            them.
        origins: the encoders.
        image: the encoder of pictures, whether it is a part of the network or stays beside it; None where none is read.
    """

    arguments: ArgumentsT
    parts: Parts
    weights: Weights = field(default_factory=dict)
    origins: Sequence[Origin] = ()
    image: PretrainedImage | None = None
