"""Image networks of transformers, Swin and ViT: built from their configuration, their outputs made one vector."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from shopvision.errors import UserError

if TYPE_CHECKING:
    from shopvision.models.card import Architecture

ImagePooling = Literal["mean", "cls", "pooler"]
MODEL_TYPES = ("swin", "vit")
# Where the weights lay, who wrote them, and what a classifier told apart says nothing about the network.
_NOT_THE_NETWORK = {
    "architectures", "dtype", "id2label", "label2id", "model_type", "problem_type", "torch_dtype",
    "transformers_version",
}  # fmt: skip


class TransformersImageArguments(BaseModel):
    """What a network is built from, stored in ``architecture.arguments``.

    Attributes:
        config: a configuration of transformers, its ``model_type`` left out.
        pooling: how tokens become one vector: their ``mean``, the first one (``cls``, of ViT alone), or the network's
            own ``pooler`` (Swin: the mean; ViT: a layer with tanh on the first token).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: dict[str, Any] = {}
    pooling: ImagePooling = "pooler"


class TransformersImages(nn.Module):
    """(n, 3, H, W) -> (n, ``head_hidden_size``), not normalised. Its tensors have the names of transformers."""

    def __init__(self, network: Any, pooling: ImagePooling) -> None:
        """Take over ``network``, a SwinModel or ViTModel."""
        super().__init__()
        self.network, self.pooling = network, pooling
        self.head_hidden_size: int = network.config.hidden_size

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        outputs = self.network(images)
        if self.pooling == "pooler":
            return outputs.pooler_output  # type: ignore[no-any-return] # transformers is untyped
        tokens: Tensor = outputs.last_hidden_state
        return tokens[:, 0] if self.pooling == "cls" else tokens.mean(1)


def build_transformers_images(architecture: Architecture) -> TransformersImages:
    """The network of an architecture of the library ``transformers``, in evaluation mode, weights still random.

    Raises:
        UserError: another network than Swin or ViT, or arguments that transformers refuses.
    """
    import transformers

    library: Any = transformers  # unannotated there
    name = architecture.name
    try:
        arguments = TransformersImageArguments.model_validate(architecture.arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"'{name}': {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    if name not in MODEL_TYPES or (name == "swin" and arguments.pooling == "cls"):
        raise UserError(
            f"'{name}' pooled by {arguments.pooling} is no image network of transformers that can be used: there are "
            f"{' and '.join(MODEL_TYPES)}, and cls is of vit alone."
        )
    try:
        config = library.AutoConfig.for_model(name, **arguments.config)
        kind = library.SwinModel if name == "swin" else library.ViTModel
        network = kind(config, add_pooling_layer=arguments.pooling == "pooler")
    # Configurations check themselves with a library of their own, whose errors share no base.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"transformers cannot build '{name}' with {arguments.config}: {reason}.") from None
    return TransformersImages(network.float(), arguments.pooling).eval()


def network_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of a configuration of transformers what says how the network is built, as JSON."""
    kept = {name: value for name, value in config.items() if name not in _NOT_THE_NETWORK and name[0] != "_"}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain
