"""Does the laptop detector learn? On street photos with boxes, against a random backbone and SSDLite, in the same run.

`make test-quality ARGS="-s tests/quality/test_detector_on_fashion_boxes.py"` prints the tables. The default
configuration is trained whole; what it is compared with, and itself once more, for a sixth of its steps, all on the
same pictures.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import retrieve_out_channels
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block, _normal_init

from shopvision.evaluation.bootstrap import percentiles
from shopvision.fashion.detection.coco import read_boxes
from shopvision.fashion.detection.config import DetectorConfig
from shopvision.fashion.detection.learner import DetectorLearner
from shopvision.fashion.detection.metrics import intervals, measure_detections, overall
from shopvision.fashion.detection.network import DetectionNetwork, Inputs
from shopvision.fashion.detection.predict import Detector, load_detector
from shopvision.fashion.detection.pyramid_network import PyramidNetwork
from shopvision.fashion.detection.regions import Boxes
from shopvision.fashion.detection.samples import SampleReader
from shopvision.fashion.detection.train import _start, read_splits
from shopvision.images import PictureDoor
from shopvision.images.reader import PictureReader, PictureRequest, whole
from shopvision.settings import get_settings
from shopvision.training.loop import fit
from shopvision.training.run import TrainingRun
from tests.quality.laptop_detector import laptop_detector

pytestmark = [pytest.mark.slow, pytest.mark.timeout(6 * 3600)]

# Of the default configuration on these photos. Measured: see docs/benchmarks/fashion-quality.md.
LEAST_MAP_50 = 0.5
COMPARED_EPOCHS = 2
RESAMPLES = 200
SSD_SIDE = 320


@pytest.fixture
def boxes(data: Path, set_environment: Callable[..., None], tmp_path: Path) -> Path:
    set_environment(SHOPVISION_HOME=str(tmp_path / "home"))
    return data / "fashion_boxes"


@dataclass(frozen=True)
class Found:
    """What a detector found on the test photos, the classes, and the CPU seconds of its training."""

    boxes: list[Boxes]
    labelled: list[Boxes]
    classes: tuple[str, ...]
    cpu_seconds: float


def config_of(boxes: Path, **sections: dict[str, Any]) -> DetectorConfig:
    return DetectorConfig.model_validate({"data": {"boxes": boxes / "train_760_7.json"}, **sections})


def door(boxes: Path) -> PictureDoor:
    return PictureDoor(get_settings().with_image_roots((boxes,)))


def look(detector: Detector, boxes: Path, cpu_seconds: float) -> Found:
    """Everything that a detector gives for the test photos."""
    test = read_boxes(boxes / "test_7.json", classes=detector.labels)
    requests = [PictureRequest(key, picture.uri) for key, picture in enumerate(test.pictures)]
    found = []
    with door(boxes) as opened:
        reader = PictureReader(opened, detector.prepare, target=detector.target)
        with reader.read(requests, in_order=True) as reading:
            for outcome in reading:
                (one,) = detector.boxes([whole(outcome)])
                found.append(one or Boxes.none())
    return Found(found, [picture.truth for picture in test.pictures], test.classes, cpu_seconds)


def briefly(
    boxes: Path,
    folder: Path,
    *,
    model: dict[str, Any] | None = None,
    head: Callable[[PyramidNetwork], None] = lambda _: None,
    learner: type[DetectorLearner] = DetectorLearner,
) -> Found:
    """The default configuration for ``COMPARED_EPOCHS``, with another start or another head."""
    config = config_of(boxes, model=model or {}, train={"epochs": COMPARED_EPOCHS})
    train, valid = read_splits(config)
    network = _start(config, train.classes).network
    assert isinstance(network, PyramidNetwork)
    head(network)
    run = TrainingRun(output=folder)
    started = time.process_time()
    with door(boxes) as opened:
        teacher = learner(
            network, config, SampleReader(opened, network.target), train=train, valid=valid, process=run.process
        )
        fit(teacher, config.train, run, identity={})
    seconds = time.process_time() - started
    return look(Detector(network.eval(), device=torch.device("cpu")), boxes, seconds)


def random_backbone(folder: Path) -> dict[str, Any]:
    """The same network as it is before it has seen a picture; all of it learns."""
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=2)
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    return {"image": f"local-dir:{folder}", "frozen_stride": 0}


class SsdLite(SSD):
    """torchvision's SSDLite, its class 0 being the background, behind the calls of ``PyramidNetwork``."""

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        if targets is not None:
            targets = [target | {"labels": target["labels"] + 1} for target in targets]
        result = super().forward(images, targets)
        if not self.training:
            result = [one | {"labels": one["labels"] - 1} for one in result]
        return result


@torch.inference_mode()
def find_with_ssdlite(network: PyramidNetwork, inputs: Inputs, **_options: Any) -> list[Boxes | None]:
    """In place of ``DetectionNetwork.find``."""
    results: list[Boxes | None] = []
    for found, size in zip(network.fcos(network._pictures(inputs)), inputs["size"].tolist(), strict=True):
        scale = torch.tensor([size[1], size[0], size[1], size[0]])
        results.append(Boxes(found["boxes"] / scale, found["labels"], found["scores"]))
    return results


class SsdMaps(nn.Module):
    """Maps of a backbone at the strides 16 and 32, and torchvision's four further ones."""

    def __init__(self, body: Any, levels: list[int], norm: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.body, self.levels = body, levels
        widths = [body.feature_info[level]["num_chs"] for level in levels]
        steps = zip((widths[-1], 512, 256, 256), (512, 256, 256, 128), strict=True)
        self.extra = nn.ModuleList(_extra_block(before, after, norm) for before, after in steps)
        _normal_init(self.extra)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        maps = list(self.body.forward_intermediates(images, indices=self.levels, intermediates_only=True))
        for block in self.extra:
            maps.append(block(maps[-1]))
        return {str(number): one for number, one in enumerate(maps)}


def ssdlite(network: PyramidNetwork) -> None:
    """In place of pyramid and FCOS: torchvision's SSDLite as ``ssdlite320_mobilenet_v3_large`` builds it, on the same
    pretrained backbone with the same layers at rest (its own one has no weights that a package brings)."""
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    pyramid = network.fcos.backbone
    maps = SsdMaps(pyramid.body, pyramid._levels[1:], norm)
    anchors = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
    widths = retrieve_out_channels(maps, (SSD_SIDE, SSD_SIDE))
    classes = len(network.labels) + 1
    head = SSDLiteHead(widths, anchors.num_anchors_per_location(), classes, norm)
    network.fcos = SsdLite(
        maps, anchors, (SSD_SIDE, SSD_SIDE), classes, head=head, score_thresh=0.001, nms_thresh=0.55,
        detections_per_img=300, topk_candidates=300, image_mean=list(network.arguments.mean),
        image_std=list(network.arguments.std),
    )  # fmt: skip
    network.find = partial(find_with_ssdlite, network)  # type: ignore[method-assign]


class SsdLiteLearner(DetectorLearner):
    """Batch norm of the new layers learns, as in torchvision's recipe."""

    network: DetectionNetwork

    def begin_training(self) -> None:
        super().begin_training()
        self.network.fcos.head.train()
        self.network.fcos.backbone.extra.train()


def ahead(one: Found, other: Found) -> tuple[float, float]:
    """95 % bootstrap interval over photos of how far mAP50 of ``one`` is above that of ``other``."""
    generator = np.random.default_rng(0)
    draws = np.empty(RESAMPLES)
    for draw in range(RESAMPLES):
        rows = generator.integers(len(one.boxes), size=len(one.boxes))
        labelled = [one.labelled[row] for row in rows]
        values = [overall([found.boxes[row] for row in rows], labelled)["map_50"] for found in (one, other)]
        draws[draw] = values[0] - values[1]
    low, high = percentiles(draws)
    return float(low), float(high)


def row(name: str, found: Found) -> str:
    values = measure_detections(found.boxes, found.labelled, found.classes).values
    bounds = intervals(found.boxes, found.labelled, resamples=RESAMPLES)
    cells = [
        f"{values[metric]:.3f} ({bounds[metric][0]:.3f} to {bounds[metric][1]:.3f})" for metric in ("map_50", "map")
    ]
    return f"| {name} | {found.cpu_seconds:.0f} | {' | '.join(cells)} |"


def by_class(found: Found) -> list[str]:
    of = measure_detections(found.boxes, found.labelled, found.classes).classes
    counts = np.bincount(torch.cat([one.labels for one in found.labelled]), minlength=len(found.classes))
    return [
        f"| {name} | {count} | {of[name]['map_50']:.3f} | {of[name]['map']:.3f} | {of[name]['mar_100']:.3f} |"
        for name, count in zip(found.classes, counts, strict=True)
    ]


def test_a_laptop_detector_learns(boxes: Path, tmp_path: Path) -> None:
    folder, seconds = laptop_detector(boxes, tmp_path / "ours")
    ours = look(load_detector(folder, device="cpu"), boxes, seconds)
    short = briefly(boxes, tmp_path / "short")
    random = briefly(boxes, tmp_path / "random", model=random_backbone(tmp_path / "backbone"))
    ssd = briefly(boxes, tmp_path / "ssdlite", head=ssdlite, learner=SsdLiteLearner)
    ahead_of_random, ahead_of_ssd = ahead(short, random), ahead(short, ssd)
    rows = [
        row("default configuration", ours),
        row(f"the same, {COMPARED_EPOCHS} epochs", short),
        row(f"on a random backbone, {COMPARED_EPOCHS} epochs", random),
        row(f"SSDLite's head on the same backbone, {COMPARED_EPOCHS} epochs", ssd),
    ]
    lines = ["", "| detector | CPU s | mAP50 | mAP |", "|---|---|---|---|", *rows]
    lines += ["", f"ahead of random: {ahead_of_random}, of SSDLite: {ahead_of_ssd}", ""]
    lines += ["| class | boxes | mAP50 | mAP | recall |", "|---|---|---|---|---|", *by_class(ours)]
    sys.stdout.write("\n".join(lines) + "\n")
    assert overall(ours.boxes, ours.labelled)["map_50"] > LEAST_MAP_50
    assert ahead_of_random[0] > 0
    assert ahead_of_ssd[0] > 0
