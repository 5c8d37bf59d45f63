"""Detectors of transformers as model versions: strict, offline, and equal to what transformers itself gives."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from shopvision.errors import ItemError, JobError, UserError
from shopvision.fashion.detection.card import load_network
from shopvision.fashion.detection.predict import Detector, load_detector
from shopvision.fashion.detection.regions import Boxes, RegionRules
from shopvision.images import Decoded, decoding
from shopvision.models.card import CARD_FILE, WEIGHTS_FILE
from shopvision.models.importers import fetch
from shopvision.models.version_folder import read_card
from tests.unit.fashion import published_layout
from tests.unit.fashion.tiny_detectors import FAMILIES, LABELS, save_tiny

EVERYTHING = RegionRules(score=0.0, same_class_iou=1.0, any_class_iou=1.0, smallest_side=0.0)
SIZES = ((90, 70), (64, 96), (90, 70), (200, 50))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (*size[::-1], 3), np.uint8)) for size in SIZES]


def decoded(image: Image.Image) -> Decoded:
    return Decoded(image, image.size, (0.0, 0.0, *image.size))


def imported(family: str, folder: Path) -> Path:
    fetch(f"detector:local-dir:{save_tiny(family, folder / 'saved')}", folder / "model")
    return folder / "model"


def spoil(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    """Change or remove (None) tensors of the weights in ``folder``."""
    tensors = load_file(folder / WEIGHTS_FILE) | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def of_transformers(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    return AutoImageProcessor.from_pretrained(folder), AutoModelForObjectDetection.from_pretrained(folder).eval()


def alone(processor: Any, network: Any, image: Image.Image) -> list[tuple[list[float], str, float]]:
    """What transformers finds in one picture: box, class and score, the best first."""
    with torch.inference_mode():
        outputs = network(**processor(images=image, return_tensors="pt"))
    found = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[image.size[::-1]])[0]
    width, height = image.size
    rows = []
    for row in found["scores"].argsort(descending=True):
        left, top, right, bottom = found["boxes"][row].tolist()
        box = [
            min(max(left, 0), width),
            min(max(top, 0), height),
            min(max(right, 0), width),
            min(max(bottom, 0), height),
        ]
        rows.append((box, LABELS[int(found["labels"][row])], float(found["scores"][row])))
    return rows


@pytest.mark.parametrize("family", FAMILIES)
def test_regions_are_those_of_transformers_whoever_the_neighbours_are(
    family: str, pictures: list[Image.Image], tmp_path: Path
) -> None:
    detector = load_detector(imported(family, tmp_path), device="cpu")
    assert detector.labels == LABELS
    results = detector.detect([detector.prepare(decoded(image)) for image in pictures], EVERYTHING)
    reference = of_transformers(tmp_path / "saved")
    for image, regions in zip(pictures, results, strict=True):
        expected = alone(*reference, image)
        assert isinstance(regions, tuple)
        assert len(regions) == len(expected) > 4
        np.testing.assert_allclose([r.score for r in regions], [score for _, _, score in expected], atol=1e-5)
        found = {(r.label, round(r.score, 4)): r.box for r in regions}
        for box, label, score in expected:
            if list(found).count((label, round(score, 4))) == 1 and (label, round(score, 4)) in found:
                np.testing.assert_allclose(found[label, round(score, 4)], box, atol=0.05)


def test_the_published_layout_gives_what_its_own_version_gave(tmp_path: Path) -> None:
    record = published_layout.save(tmp_path / "saved")
    card = fetch(f"detector:local-dir:{tmp_path / 'saved'}", tmp_path / "model")
    network, _ = load_network(tmp_path / "model")
    assert network.labels == ("bag", "bottom", "dress", "hat", "shoes", "outer", "top")
    assert card.architecture.arguments["config"]["backbone_config"]["backbone"] == "test_efficientnet"
    pixels, mask = published_layout.pixels()
    inner: Any = network.network
    with torch.inference_mode():
        outputs = inner(pixel_values=torch.from_numpy(pixels), pixel_mask=torch.from_numpy(mask))
    np.testing.assert_allclose(outputs.logits.numpy(), record["logits"], atol=2e-5)
    np.testing.assert_allclose(outputs.pred_boxes.numpy(), record["pred_boxes"], atol=2e-6)


def test_the_mask_of_padding_reaches_the_network(pictures: list[Image.Image], tmp_path: Path) -> None:
    detector = load_detector(imported("conditional_detr", tmp_path), device="cpu")
    assert set(detector.prepare(decoded(pictures[0])).inputs) == {"pixel_values", "pixel_mask"}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bbox_predictor.layers.0.weight", None, "'bbox_predictor.layers.0.weight' is missing"),
        ("vit.pooler.weight", torch.zeros(2), "'vit.pooler.weight' is not in the architecture"),
        ("bbox_predictor.layers.0.bias", torch.zeros(9), "'bbox_predictor.layers.0.bias' has another shape"),
        ("bbox_predictor.layers.0.bias", torch.full((32,), math.nan), "0.bias' holds numbers that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(name: str, value: torch.Tensor | None, message: str, tmp_path: Path) -> None:
    saved = save_tiny("yolos", tmp_path / "saved")
    spoil(saved, {name: value})
    with pytest.raises(UserError, match=message):
        fetch(f"detector:local-dir:{saved}", tmp_path / "model")


@pytest.mark.parametrize(("name", "content"), [("model.safetensors", b"\x40\0\0\0\0\0\0\0{"), ("config.json", b"{")])
def test_a_file_that_is_cut_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    saved = save_tiny("yolos", tmp_path / "saved")
    (saved / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"saved/{name} is cut, empty or not of the format .* copy it anew\."):
        fetch(f"detector:local-dir:{saved}", tmp_path / "model")
    (saved / "config.json").write_text("[1]")
    with pytest.raises(UserError, match=r"local-dir:saved cannot be loaded \(TypeError|local-dir:saved: .* is cut"):
        fetch(f"detector:local-dir:{saved}", tmp_path / "model")


def test_a_version_whose_weights_do_not_fit_is_refused(tmp_path: Path) -> None:
    folder = imported("yolos", tmp_path)
    spoil(folder, {"network.bbox_predictor.layers.0.weight": None})
    with pytest.raises(JobError, match=r"tensor 'network.bbox_predictor.layers.0.weight' is missing"):
        load_detector(folder, device="cpu")


def test_what_is_no_detector_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig

    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="local-dir:bert is a model of the type 'bert', which detects no objects"):
        fetch(f"detector:local-dir:{tmp_path / 'bert'}", tmp_path / "model")
    with pytest.raises(UserError, match=r"holds no config.json"):
        fetch(f"detector:local-dir:{tmp_path}", tmp_path / "model")
    with pytest.raises(UserError, match="Detector source 'zip:x' is unknown: use local-dir:DIR or hf-hub:ORG/NAME"):
        fetch("detector:zip:x", tmp_path / "model")
    folder = imported("yolos", tmp_path)
    card = json.loads((folder / CARD_FILE).read_text())
    card["architecture"]["name"] = "haar_cascade"
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(UserError, match="of the architecture haar_cascade"):
        load_detector(folder, device="cpu")


def test_a_picture_without_finite_boxes_fails_alone(pictures: list[Image.Image], tmp_path: Path) -> None:
    network, _ = load_network(imported("yolos", tmp_path))
    detector = Detector(network, device=torch.device("cpu"))
    prepared = [detector.prepare(decoded(image)) for image in pictures[:3]]
    prepared[2].inputs["pixel_values"].fill_(float("nan"))
    first, second, third = detector.detect(prepared, EVERYTHING)
    assert isinstance(third, ItemError)
    assert third.code == "bad_boxes"
    assert isinstance(first, tuple)
    assert first == detector.detect(prepared[:1], EVERYTHING)[0]
    assert isinstance(second, tuple)


def test_pictures_of_any_shape(tmp_path: Path) -> None:
    detector = load_detector(imported("conditional_detr", tmp_path), device="cpu")
    (pixel,) = detector.detect([detector.prepare(decoded(Image.new("RGB", (1, 1))))], EVERYTHING)
    assert isinstance(pixel, tuple)
    assert all(0 <= side <= 1 for region in pixel for side in region.box)
    with pytest.raises(ItemError, match="1 x 9000, too long and narrow"):
        detector.prepare(decoded(Image.new("RGB", (1, 9000))))


def test_boxes_are_of_the_picture_at_full_scale(tmp_path: Path) -> None:
    """Of a JPEG of 515 pixels that is decoded at an eighth, 65 pixels hold 64.375 of picture."""
    detector = load_detector(imported("yolos", tmp_path), device="cpu")
    Image.new("RGB", (515, 515), (120, 90, 60)).save(tmp_path / "photo.jpg")
    with decoding((tmp_path / "photo.jpg").read_bytes(), target=detector.target) as reduced:
        assert (reduced.image.width, reduced.size) == (65, (515, 515))
        prepared = detector.prepare(reduced)
    found = Boxes(torch.tensor([[0.0, 0.2, 0.5, 1.0]]), torch.tensor([0]), torch.tensor([0.9]))
    # 0.5 of 65 pixels is 32.5, and 32.5 of 64.375 is 260 of 515; the last pixel reaches to 520.
    np.testing.assert_allclose(prepared.at_full_scale(found).boxes.tolist(), [[0, 104, 260, 520]], atol=1e-3)
    (regions,) = detector.detect([prepared], EVERYTHING)
    assert isinstance(regions, tuple)
    assert max(max(region.box) for region in regions) <= 515


def test_the_card_says_the_threshold(pictures: list[Image.Image], tmp_path: Path) -> None:
    folder = imported("yolos", tmp_path)
    card = read_card(folder).model_copy(update={"thresholds": {"score": 0.875}})
    (folder / CARD_FILE).write_bytes(card.to_bytes())
    assert load_detector(folder, device="cpu").rules.score == 0.875
