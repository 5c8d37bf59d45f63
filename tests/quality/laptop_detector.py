"""The detector that the default configuration gives on street photos: trained once for all tests of a run."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from shopvision.fashion.detection.config import DetectorConfig
from shopvision.fashion.detection.train import train_detector
from shopvision.training.run import TrainingRun

# A model folder in it is taken instead of an hour's training.
GIVEN = "SHOPVISION_TEST_DETECTOR"


@cache
def laptop_detector(boxes: Path, folder: Path) -> tuple[Path, float]:
    """The folder of the model version, and the CPU seconds of its training: not known of one that is given."""
    if given := os.environ.get(GIVEN):
        return Path(given), float("nan")
    started = time.process_time()
    config = DetectorConfig.model_validate({"data": {"boxes": boxes / "train_760_7.json"}})
    report = train_detector(config, TrainingRun(output=folder))
    assert report is not None
    return report.folder, time.process_time() - started
