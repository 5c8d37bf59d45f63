"""Object detectors of transformers (conditional DETR, RT-DETR, D-FINE, YOLOS, ...), read and asked in its own way.

Everything is built from configurations that the card holds; nothing asks a model hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torchvision.ops import box_convert

from shopvision.errors import UserError
from shopvision.fashion.detection.network import DetectionNetwork, Inputs
from shopvision.fashion.detection.regions import Boxes

if TYPE_CHECKING:
    from PIL import Image

# What image processors make of a picture, in the order in which the core takes it.
CORE_INPUTS = ("pixel_values", "pixel_mask")
# Where the weights lay and who wrote them says nothing about the network.
_NOT_THE_NETWORK = {"_name_or_path", "architectures", "dtype", "transformers_version"}


class TransformersArguments(BaseModel):
    """What a detector is built from, stored in ``architecture.arguments`` of its card.

    Attributes:
        config: a configuration of transformers with its ``model_type`` and the classes (``id2label``).
        processor: of its image processor, with ``image_processor_type``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: dict[str, Any]
    processor: dict[str, Any]


class TransformersNetwork(DetectionNetwork):
    """A network of transformers with its image processor."""

    family = "transformers_detector"

    def __init__(self, network: Any, processor: Any) -> None:
        super().__init__()
        self.network, self.processor = network, processor
        names: Mapping[int, str] = network.config.id2label
        self.labels = tuple(names.get(number, f"class {number}") for number in range(max(names) + 1))

    @property
    def arguments(self) -> TransformersArguments:
        """See ``DetectionNetwork``."""
        config = self.network.config.to_dict()
        return TransformersArguments(
            # As JSON, because configurations hold enumerations and numbers as keys.
            config=json.loads(json.dumps({k: value for k, value in config.items() if k not in _NOT_THE_NETWORK})),
            processor=json.loads(self.processor.to_json_string()),
        )

    @property
    def target(self) -> tuple[int, int]:
        """See ``DetectionNetwork``."""
        size: dict[str, int | None] = dict(self.processor.size)
        height = size.get("shortest_edge") or size.get("max_height") or size["height"] or 1
        return height, size.get("width") or size.get("max_width") or height

    def prepare(self, image: Image.Image) -> Inputs:
        """See ``DetectionNetwork``: pixels, and the mask of what is no padding where the model reads one."""
        return dict(self.processor(images=image, return_tensors="pt"))

    def core(self) -> nn.Module:
        """See ``DetectionNetwork``."""
        return TransformersCore(self.network)

    def core_inputs(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """See ``DetectionNetwork``."""
        return tuple(inputs[name] for name in CORE_INPUTS if name in inputs)

    def boxes(self, numbers: Sequence[Tensor], inputs: Inputs, least: float) -> list[Boxes | None]:  # noqa: ARG002 - shares need no size
        """See ``DetectionNetwork``."""
        logits, boxes = (values.float() for values in numbers)
        finite = logits.isfinite().all(-1).all(-1) & boxes.isfinite().all(-1).all(-1)
        outputs = SimpleNamespace(logits=logits, pred_boxes=boxes)
        found = self.processor.post_process_object_detection(outputs, threshold=least)
        return [
            Boxes(one["boxes"], one["labels"], one["scores"]) if fine else None
            for one, fine in zip(found, finite.tolist(), strict=True)
        ]

    def loss(self, inputs: Inputs, truths: Sequence[Boxes]) -> Tensor:
        """See ``DetectionNetwork``: the family's own loss, with its matching of boxes."""
        labels = [
            {"class_labels": truth.labels, "boxes": box_convert(truth.boxes, "xyxy", "cxcywh")} for truth in truths
        ]
        total: Tensor = self.network(**inputs, labels=labels).loss
        return total

    def backbone_parameters(self) -> Iterable[nn.Parameter]:
        """See ``DetectionNetwork``; none where the network is of one piece, such as YOLOS."""
        backbone = getattr(self.network.base_model, "backbone", None)
        return () if backbone is None else backbone.parameters()


class TransformersCore(nn.Module):
    """Pixels (n, 3, H, W) and, where the model reads one, their mask (n, H, W) -> logits and boxes of each query."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        outputs = self.network(**dict(zip(CORE_INPUTS, inputs, strict=False)))
        return outputs.logits, outputs.pred_boxes


def build_transformers(arguments: TransformersArguments) -> TransformersNetwork:
    """The network of a card, float32, CPU, in evaluation mode, weights still random.

    Raises:
        UserError: transformers has no such architecture or image processor, or refuses the configuration.
    """
    import transformers

    auto_model: Any = transformers.AutoModelForObjectDetection  # unannotated there
    config = make_config(arguments.config, "the card")
    try:
        network = auto_model.from_config(config, dtype=torch.float32).eval()
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"transformers cannot build the detector '{config.model_type}': {reason}.") from None
    return TransformersNetwork(network, _make_processor(arguments.processor))


def make_config(values: Mapping[str, Any], where: str) -> Any:
    """A configuration of transformers, checked to be one of a detector.

    Raises:
        UserError: it is none; the message names ``where``.
    """
    from transformers import MODEL_FOR_OBJECT_DETECTION_MAPPING, AutoConfig

    arguments = with_backbone_config(values)
    model_type = str(arguments.pop("model_type", None))
    try:
        config = AutoConfig.for_model(model_type, **arguments)
    # Configurations check themselves with a library of their own, whose errors share no base.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: transformers refuses the configuration of '{model_type}': {reason}.") from None
    if type(config) not in MODEL_FOR_OBJECT_DETECTION_MAPPING:
        raise UserError(
            f"{where} is a model of the type '{model_type}', which detects no objects: choose a detector, such as a "
            "conditional DETR, an RT-DETR or a YOLOS."
        )
    return config


def with_backbone_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration that says its timm backbone in the present way.

    Of one in the old way transformers asks the model hub whether it has a repository of the backbone's name, also where
    everything lies in a local folder. Pretrained weights of a backbone are never wanted: the checkpoint holds them.
    """
    config = dict(values)
    inner = config.get("backbone_config")
    if inner is None and config.get("use_timm_backbone") and config.get("backbone"):
        known = config.get("backbone_kwargs") or {}
        config["backbone_config"] = {
            "model_type": "timm_backbone",
            "backbone": config["backbone"],
            "num_channels": known.get("in_chans", config.get("num_channels", 3)),
            "out_indices": known.get("out_indices", [1, 2, 3, 4]),
            "features_only": True,
            "use_pretrained_backbone": False,
            **({"output_stride": known.get("output_stride", 16)} if config.get("dilation") else {}),
        }
        for name in ("backbone", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone"):
            config.pop(name, None)
    elif isinstance(inner, dict) and inner.get("use_pretrained_backbone"):
        config["backbone_config"] = inner | {"use_pretrained_backbone": False}
    return config


def _make_processor(values: Mapping[str, Any]) -> Any:
    import transformers

    name = str(values.get("image_processor_type"))
    kind: Any = getattr(transformers, name, None)
    if not hasattr(kind, "post_process_object_detection"):
        raise UserError(f"transformers has no image processor '{name}' of a detector: check the card.")
    return kind.from_dict(dict(values))
