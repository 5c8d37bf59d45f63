"""Does the laptop detector learn? On street photos with boxes, against a random backbone and SSDLite, in the same run.

`make test-quality ARGS="-s tests/quality/test_detector_on_fashion_boxes.py"` prints the tables. SSDLite gets the time
that the laptop detector took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from shopvision.fashion.detection.coco import DetectionData, read_boxes
from shopvision.fashion.detection.config import DetectorConfig
from shopvision.fashion.detection.evaluate import DetectionReport, evaluate_detector
from shopvision.fashion.detection.metrics import intervals, measure_detections
from shopvision.fashion.detection.predict import load_detector
from shopvision.fashion.detection.regions import Boxes
from shopvision.fashion.detection.samples import Augmentation, SampleReader
from shopvision.fashion.detection.splits import with_parts
from shopvision.fashion.detection.train import train_detector
from shopvision.fashion.kinds import LEAST_MAP_50
from shopvision.images import PictureDoor
from shopvision.settings import get_settings
from shopvision.training.loop import learning_rate_factor
from shopvision.training.run import TrainingRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]

EPOCHS = 24
BATCH = 8
SSD_SIDE = 320


@pytest.fixture
def boxes(data: Path, set_environment: Callable[..., None], tmp_path: Path) -> Path:
    set_environment(SHOPVISION_HOME=str(tmp_path / "home"))
    return data / "fashion_boxes"


def trained(boxes: Path, folder: Path, image: str = "wheel:efficientnet-lite0") -> tuple[DetectionReport, float]:
    """A detector for laptops with default settings, measured on the test photos, and the minutes that it took."""
    config = DetectorConfig.model_validate(
        {
            "data": {"boxes": boxes / "train_760_7.json"},
            "model": {"image": image},
            "train": {"epochs": EPOCHS, "batch_size": BATCH},
        }
    )
    started = time.monotonic()
    report = train_detector(config, TrainingRun(output=folder))
    minutes = (time.monotonic() - started) / 60
    assert report is not None
    detector = load_detector(report.folder, device="cpu")
    test = read_boxes(boxes / "test_7.json", classes=detector.labels)
    with door(boxes) as opened:
        return evaluate_detector(detector, test, opened, model=report.card.spec), minutes


def door(boxes: Path) -> PictureDoor:
    return PictureDoor(get_settings().with_image_roots((boxes,)))


def random_backbone(folder: Path) -> str:
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=2)
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    return f"local-dir:{folder}"


def ssdlite(boxes: Path, minutes: float) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """torchvision's SSDLite with its own recipe (SGD, momentum 0.9, rate 0.15 for 192 pictures, cosine), without
    pretrained weights, trained for ``minutes``; class 0 is its background."""
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    train = read_boxes(boxes / "train_760_7.json")
    test = read_boxes(boxes / "test_7.json", classes=train.classes)
    torch.manual_seed(0)
    network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(train.classes) + 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.15 * BATCH / 192, momentum=0.9, weight_decay=4e-5)
    initial, change, deadline = optimizer.param_groups[0]["lr"], Augmentation(SSD_SIDE, (0.6, 1.5)), minutes * 60
    with door(boxes) as opened:
        reader = SampleReader(opened, (SSD_SIDE, SSD_SIDE))
        network.train()
        started = time.monotonic()
        for batch in batches(with_parts(train, 0), reader):
            passed = time.monotonic() - started
            if passed > deadline:
                break
            optimizer.param_groups[0]["lr"] = initial * learning_rate_factor(int(passed), int(deadline) + 1, 1)
            samples = [change(sample) for sample in batch]
            losses = network(
                [sample.pixels.float() / 255 for sample in samples],
                [{"boxes": sample.boxes, "labels": sample.labels + 1} for sample in samples],
            )
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
        network.eval()
        found = []
        with torch.inference_mode():
            for picture, sample in zip(test.pictures, reader.read(test.pictures), strict=True):
                (one,) = network([sample.pixels.float() / 255])
                scale = picture.size[0] / sample.pixels.shape[2]
                found.append(Boxes(one["boxes"] * scale, one["labels"] - 1, one["scores"]))
    labelled = [picture.truth for picture in test.pictures]
    return measure_detections(found, labelled, test.classes).values, intervals(found, labelled, resamples=200)


def batches(data: DetectionData, reader: SampleReader) -> Iterator[list]:
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(len(data.pictures))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            yield reader.read([data.pictures[row] for row in order[start : start + BATCH]])


def test_a_laptop_detector_learns(boxes: Path, tmp_path: Path) -> None:
    ours, minutes = trained(boxes, tmp_path / "ours")
    random, random_minutes = trained(boxes, tmp_path / "random", random_backbone(tmp_path / "backbone"))
    ssd, ssd_intervals = ssdlite(boxes, minutes)
    lines = ["", "| detector | minutes | mAP | mAP50 | 95 % interval of mAP50 |", "|---|---|---|---|---|"]
    for name, took, values, bounds in (
        ("FCOS on EfficientNet-Lite0", minutes, ours.metrics.values, ours.intervals["map_50"]),
        ("the same on a random backbone", random_minutes, random.metrics.values, random.intervals["map_50"]),
        ("SSDLite, its own recipe", minutes, ssd, ssd_intervals["map_50"]),
    ):
        interval = f"{bounds[0]:.3f} - {bounds[1]:.3f}"
        lines.append(f"| {name} | {took:.0f} | {values['map']:.3f} | {values['map_50']:.3f} | {interval} |")
    lines += ["", "| class | mAP50 | boxes |", "|---|---|---|"]
    lines += [f"| {name} | {of['map_50']:.3f} | {ours.boxes[name]} |" for name, of in ours.metrics.classes.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    assert ours.metrics.values["map_50"] > LEAST_MAP_50
    assert ours.metrics.values["map_50"] > random.metrics.values["map_50"]
    assert ours.metrics.values["map_50"] > ssd["map_50"]
