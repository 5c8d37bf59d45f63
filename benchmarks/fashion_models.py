"""The models of ``benchmarks.fashion``: detectors that find so many garments in a photo, and an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import progress

if TYPE_CHECKING:
    from shopvision.fashion.detection.predict import Detector, PreparedPicture

LAPTOP, YOLOS = "laptop family, 320 px", "YOLOS-tiny, 512 to 864 px"
GARMENTS = 4  # of a photo, on average, as in the test data
MEASURED = 12  # photos that the score for so many is chosen on


def make_detector(name: str, boxes: Path, scratch: Path, *, quick: bool) -> Path:
    """A model version: the laptop family trained for a moment, or YOLOS-tiny's architecture with seeded weights."""
    return _trained(boxes, scratch, epochs=1 if quick else 3) if name == LAPTOP else _seeded_yolos(scratch / "yolos")


def _trained(boxes: Path, scratch: Path, epochs: int) -> Path:
    from shopvision.fashion.detection.config import DetectorConfig
    from shopvision.fashion.detection.train import train_detector
    from shopvision.training.run import TrainingRun

    progress(f"training a detector for {epochs} epochs")
    config = DetectorConfig.model_validate({"data": {"boxes": boxes}, "train": {"epochs": epochs, "select_by": "last"}})
    report = train_detector(config, TrainingRun(output=scratch / "run"))
    assert report is not None
    return report.folder


def _seeded_yolos(folder: Path) -> Path:
    import torch
    import transformers

    from shopvision.fashion.detection.card import save_detector
    from shopvision.fashion.detection.transformers_network import TransformersNetwork

    torch.manual_seed(0)
    library: Any = transformers  # unannotated there
    # As published in hustvl/yolos-tiny, with the seven classes of the test data.
    config = library.YolosConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=[800, 1333],
        use_mid_position_embeddings=False, num_labels=7,
    )  # fmt: skip
    processor = library.YolosImageProcessor(size={"shortest_edge": 512, "longest_edge": 864})
    network = TransformersNetwork(library.YolosForObjectDetection(config).eval(), processor)
    save_detector(folder, network, name="yolos-tiny", source="seeded weights")
    return folder


def score_of_so_many(folder: Path, photos: Sequence[Path]) -> float:
    """The score above which there are ``GARMENTS`` regions in a photo, for nothing else says it of such detectors."""
    from shopvision.fashion.detection.predict import load_detector
    from shopvision.fashion.detection.regions import RegionRules

    detector = load_detector(folder)
    some = photos[:MEASURED]
    regions = detector.detect([prepared(detector, photo) for photo in some], RegionRules(score=0.0))
    scores = sorted((region.score for found in regions if isinstance(found, tuple) for region in found), reverse=True)
    return scores[min(len(scores), GARMENTS * len(some)) - 1]


def prepared(detector: Detector, photo: Path) -> PreparedPicture:
    """A photo as a detector reads it."""
    from shopvision.images import decoding

    with decoding(photo.read_bytes(), target=detector.target) as decoded:
        return detector.prepare(decoded)
