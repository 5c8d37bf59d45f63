"""The laptop family: the same kind of version and the same regions as any other detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from shopvision.errors import ItemError, JobError, UserError
from shopvision.fashion.detection.card import load_network, save_detector
from shopvision.fashion.detection.compiled_cores import SEEN_BEFORE, CompiledCores
from shopvision.fashion.detection.predict import Detector, load_detector
from shopvision.fashion.detection.pyramid_network import PyramidArguments, PyramidNetwork, build_pyramid
from shopvision.fashion.detection.regions import RegionRules
from shopvision.images import Decoded
from shopvision.models.card import WEIGHTS_FILE, Architecture
from shopvision.models.importers import fetch
from shopvision.models.weights import read_tensors, save_tensors

LABELS = ("bag", "dress", "shoes")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EVERYTHING = RegionRules(score=0.0, same_class_iou=1.0, any_class_iou=1.0, smallest_side=0.0)


def arguments(**changes: Any) -> PyramidArguments:
    backbone = Architecture(name="test_efficientnet", arguments={"num_classes": 0})
    values = {"backbone": backbone, "labels": LABELS, "mean": MEAN, "std": STD, "longest_side": 96, "channels": 64}
    return PyramidArguments(**(values | changes))


def tiny() -> PyramidNetwork:
    torch.manual_seed(5)
    network = build_pyramid(arguments())
    for weight in network.fcos.head.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network


def decoded(image: Image.Image) -> Decoded:
    return Decoded(image, image.size, (0.0, 0.0, *image.size))


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def test_a_version_gives_the_regions_of_the_network_it_was_made_of(tmp_path: Path) -> None:
    network = tiny()
    card = save_detector(tmp_path / "model", network, name="laptop", source="test")
    assert fetch(f"local-dir:{tmp_path / 'model'}", tmp_path / "copy") == card
    images = [decoded(picture(80, 60)), decoded(picture(40, 90, 1))]
    loaded = load_detector(tmp_path / "copy", device="cpu")
    ours = Detector(network, device=torch.device("cpu"))
    assert loaded.labels == LABELS
    found = loaded.detect([loaded.prepare(image) for image in images], EVERYTHING)
    assert found == ours.detect([ours.prepare(image) for image in images], EVERYTHING)
    assert all(isinstance(regions, tuple) and len(regions) > 3 for regions in found)


@pytest.mark.parametrize("candidates", [1000, 20])  # the best of each level that count: here all, or not all
def test_regions_are_those_of_torchvision(candidates: int) -> None:
    """The reference side calls FCOS on the picture as it is: its longest side is what the network wants."""
    network = tiny()
    network.fcos.topk_candidates = candidates
    detector = Detector(network, device=torch.device("cpu"))
    image = picture(96, 60)
    (regions,) = detector.detect([detector.prepare(decoded(image))], EVERYTHING)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        expected = network.fcos([pixels])[0]
    assert isinstance(regions, tuple)
    np.testing.assert_allclose([region.score for region in regions], expected["scores"].numpy(), atol=1e-6)
    np.testing.assert_allclose([region.box for region in regions], expected["boxes"].numpy(), atol=1e-3)
    score = regions[len(regions) // 2].score
    (best,) = detector.detect([detector.prepare(decoded(image))], replace(EVERYTHING, score=score))
    assert best == regions[: len(regions) // 2]


def test_the_fast_path_finds_the_same(set_environment: Callable[..., None]) -> None:
    image = decoded(picture(96, 60))
    fast, plain = tiny(), tiny()
    layers = [fast.fcos.backbone.body, plain.fcos.backbone.body]
    detectors = [Detector(fast, device=torch.device("cpu"))]
    set_environment(SHOPVISION_FAST_PATHS="false")
    detectors.append(Detector(plain, device=torch.device("cpu")))
    folded, kept = (sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in body.modules()) for body in layers)
    assert folded < kept
    found, expected = (detector.boxes([detector.prepare(image)])[0] for detector in detectors)
    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)


def test_usual_shapes_and_those_that_come_up_often_are_compiled() -> None:
    cores = CompiledCores(tiny(), device=torch.device("cpu"), dtype=torch.float32, mode="never")
    assert len(cores.modules) == 2  # of 96 x 96; of 96 x 72 and 96 x 64, filled up to 96 x 96 and 96 x 64

    def run(count: int, height: int) -> None:
        with torch.inference_mode():
            cores(torch.zeros(count, height, 96, 3, dtype=torch.uint8), torch.tensor([[height, 96]] * count))

    run(SEEN_BEFORE - 1, 64)
    run(2, 32)
    assert len(cores.modules) == 2
    run(1, 64)
    assert len(cores.modules) == 3
    assert cores.modules[2].fits(torch.zeros(5, 64, 96, 3, dtype=torch.uint8), torch.zeros(5, 2, dtype=torch.int64))


def test_regions_do_not_depend_on_the_neighbours() -> None:
    detector = Detector(tiny(), device=torch.device("cpu"))
    prepared = [detector.prepare(decoded(picture(96, height, height))) for height in (60, 40, 61, 33, 64)]
    together = detector.detect(prepared, EVERYTHING)
    for one, regions in zip(prepared, together, strict=True):
        (alone,) = detector.detect([one], EVERYTHING)
        assert isinstance(alone, tuple)
        assert isinstance(regions, tuple)
        assert len(alone) == len(regions)
        np.testing.assert_allclose([r.box for r in alone], [r.box for r in regions], atol=1e-2)


def test_boxes_are_of_the_picture_at_full_scale() -> None:
    """A picture twice as large has its boxes at twice the place: both become the same pixels."""
    detector = Detector(tiny(), device=torch.device("cpu"))
    small = picture(96, 60)
    large = Decoded(small, (192, 120), (0.0, 0.0, 96.0, 60.0))
    one, other = detector.detect([detector.prepare(decoded(small)), detector.prepare(large)], EVERYTHING)
    assert isinstance(one, tuple)
    assert isinstance(other, tuple)
    np.testing.assert_allclose(2 * np.array([r.box for r in one]), [r.box for r in other], rtol=1e-5, atol=1e-4)


def test_a_picture_without_finite_boxes_fails_alone() -> None:
    network = tiny()
    with torch.no_grad():
        network.fcos.head.classification_head.cls_logits.bias.fill_(float("nan"))
    detector = Detector(network, device=torch.device("cpu"))
    (failed,) = detector.detect([detector.prepare(decoded(picture(96, 60)))], EVERYTHING)
    assert isinstance(failed, ItemError)
    assert failed.code == "bad_boxes"


def test_pictures_of_any_shape() -> None:
    detector = Detector(tiny(), device=torch.device("cpu"))
    for size in ((1, 1), (1, 9000), (4000, 3)):
        (regions,) = detector.detect([detector.prepare(decoded(Image.new("RGB", size)))], EVERYTHING)
        assert isinstance(regions, tuple)
        assert all(0 <= r.box[0] <= r.box[2] <= size[0] and 0 <= r.box[1] <= r.box[3] <= size[1] for r in regions)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_detector(tmp_path / "model", tiny(), name="laptop", source="test")
    tensors = read_tensors(tmp_path / "model" / WEIGHTS_FILE)
    del tensors["fcos.head.classification_head.cls_logits.bias"]
    save_tensors(tensors, tmp_path / "model" / WEIGHTS_FILE)
    with pytest.raises(JobError, match=r"tensor 'fcos.head.classification_head.cls_logits.bias' is missing"):
        load_network(tmp_path / "model")


def test_a_backbone_without_the_right_maps_is_refused() -> None:
    architecture = Architecture(name="test_vit", arguments={"num_classes": 0})
    with pytest.raises(UserError, match=r"backbone test_vit has no feature maps at the strides \(8, 16, 32\)"):
        build_pyramid(arguments(backbone=architecture))


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_backbones_of_several_kinds(name: str) -> None:
    encoder = timm.create_model(name, num_classes=0)
    network = PyramidNetwork(arguments(backbone=Architecture(name=name, arguments={"num_classes": 0})), encoder).eval()
    assert len(network.find(network.prepare(picture(50, 70)))) == 1


def best_scores(detector: Detector, prepared: list[Any]) -> list[float]:
    return [regions[0].score for regions in detector.detect(prepared, EVERYTHING) if isinstance(regions, tuple)]


def test_out_of_memory_halves_the_batches_of_each_shape_and_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny()
    detector = Detector(network, device=torch.device("cpu"))
    detector._batches.largest = None
    prepared = [detector.prepare(decoded(picture(96, 60 + 40 * (number // 5), number))) for number in range(7)]
    expected = best_scores(detector, prepared)
    seen: list[int] = []
    find, most = network.find, 2

    def hungry(inputs: Any, **options: Any) -> Any:
        seen.append(len(inputs["pixels"]))
        if seen[-1] > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return find(inputs, **options)

    monkeypatch.setattr(network, "find", hungry)
    np.testing.assert_allclose(best_scores(detector, prepared), expected, atol=1e-5)
    assert seen == [5, 2, 2, 1, 2]
    most = 0
    with pytest.raises(JobError, match="Not enough memory on cpu for one picture"):
        detector.detect(prepared, EVERYTHING)


def test_frozen_layers_keep_their_weights() -> None:
    """Up to the last map of a stride, in the order in which a picture meets the layers, and no further."""
    network = tiny()
    network.freeze(8)
    learning = [name for name, weight in network.fcos.backbone.body.named_parameters() if weight.requires_grad]
    resting = [name for name, weight in network.fcos.backbone.body.named_parameters() if not weight.requires_grad]
    assert {name.split(".")[1] for name in resting if "blocks" in name} == {"0", "1", "2"}
    assert {name.split(".")[1] for name in learning if "blocks" in name} == {"3", "4"}
    assert "conv_stem.weight" in resting
    assert all(weight.requires_grad for weight in network.fcos.head.parameters())
    with pytest.raises(UserError, match="has no map of the stride 3 to freeze it up to"):
        network.freeze(3)
