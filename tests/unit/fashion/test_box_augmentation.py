"""Labelled pictures as pixels: boxes stay on their garments, whatever is done to a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from shopvision.errors import JobError, UserError
from shopvision.fashion.detection.coco import read_boxes
from shopvision.fashion.detection.samples import Augmentation, Sample, SampleReader, canvas_for
from shopvision.fashion.detection.splits import cut
from shopvision.images import PictureDoor
from shopvision.settings import get_settings
from tests.unit.fashion.boxes_world import COLOURS, coco, world, write


def door(folder: Path) -> PictureDoor:
    return PictureDoor(get_settings().with_image_roots((folder,)))


def colours(sample: Sample) -> list[list[int]]:
    """The colour in the middle of each box."""
    middles = ((sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2).long()
    return [sample.pixels[:, y, x].tolist() for x, y in middles.tolist()]


def test_boxes_are_where_the_pixels_are(tmp_path: Path) -> None:
    values = coco({"bbox": [10, 20, 30, 40]}, {"category_id": 20, "bbox": [120, 30, 60, 60]}, size=(200, 100))
    data = read_boxes(write(tmp_path, values))
    with door(tmp_path) as opened:
        whole, part = SampleReader(opened, (64, 64)).read(
            [data.pictures[0], cut(data.pictures[0], (100, 10, 200, 100))]
        )
    assert whole.pixels.shape == (3, 48, 96)  # at most one and a half times what the network wants
    np.testing.assert_allclose(whole.boxes, np.array([[10, 20, 40, 60], [120, 30, 180, 90]]) * 0.48, atol=1e-4)
    np.testing.assert_allclose(colours(whole), COLOURS, atol=2)
    assert part.labels.tolist() == [1]
    assert part.pixels.shape == (3, 86, 96)
    np.testing.assert_allclose(colours(part), COLOURS[1:], atol=2)
    np.testing.assert_allclose(whole.truth.boxes, [[0.05, 0.2, 0.2, 0.6], [0.6, 0.3, 0.9, 0.9]], atol=1e-6)


def test_labels_stay_with_their_boxes(tmp_path: Path) -> None:
    """Whatever is left of a box still has the hue of its class in its middle, and boxes lie on the canvas."""
    data = read_boxes(world(tmp_path))
    with door(tmp_path) as opened:
        samples = SampleReader(opened, (96, 96)).read(data.pictures)
    change = Augmentation((96, 96), (0.5, 2.5))
    torch.manual_seed(0)
    counts = []
    for sample in samples * 4:
        changed = change(sample)
        counts.append(len(changed.boxes) - len(sample.boxes))
        assert changed.pixels.shape == (3, 96, 96)
        assert len(changed.boxes) == len(changed.labels)
        assert (changed.boxes >= 0).all()
        assert (changed.boxes <= 96).all()
        assert (changed.boxes[:, 2:] - changed.boxes[:, :2] >= 4).all()
        for (red, _, blue), label in zip(colours(changed), changed.labels.tolist(), strict=True):
            assert (red > blue) == (label == 0)
    assert min(counts) < 0 == max(counts)  # some boxes were lost, with their labels


def test_changes_are_drawn_from_the_seed(tmp_path: Path) -> None:
    data = read_boxes(world(tmp_path, 2))
    with door(tmp_path) as opened:
        (sample, _) = SampleReader(opened, (96, 96)).read(data.pictures)
    change, results = Augmentation((96, 96), (0.5, 2.0)), []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(change(sample))
    assert torch.equal(results[0].pixels, results[1].pixels)
    assert torch.equal(results[0].boxes, results[1].boxes)
    assert not torch.equal(results[0].pixels, results[2].pixels)


def test_a_picture_just_fits_its_canvas(tmp_path: Path) -> None:
    """200 x 100 on a canvas 32 wide and 64 high: 32 x 16 of it are picture, wherever they lie; the rest is grey."""
    data = read_boxes(write(tmp_path, coco({"bbox": [0, 0, 200, 100]}, size=(200, 100))))
    with door(tmp_path) as opened:
        (sample, _) = SampleReader(opened, (96, 96)).read(data.pictures)
    torch.manual_seed(0)
    changed = Augmentation((64, 32), (1.0, 1.0))(sample)
    left, top, right, bottom = changed.boxes[0].tolist()
    assert (left, right, bottom - top) == (0, 32, 16)
    is_grey = changed.pixels.amax(0) - changed.pixels.amin(0) < 3  # whatever its light; the box is red
    assert is_grey[: int(top)].all()
    assert is_grey[int(bottom) :].all()
    assert not is_grey[int(top) : int(bottom)].any()


def test_the_canvas_has_the_proportions_of_most_pictures(tmp_path: Path) -> None:
    for size, canvas in (
        ((341, 512), (320, 224)),
        ((512, 341), (224, 320)),
        ((90, 90), (320, 320)),
        ((9, 900), (320, 32)),
    ):
        data = read_boxes(write(tmp_path, coco({"bbox": [0, 0, 5, 5]}, size=size)))
        assert canvas_for(data.pictures, 320) == canvas


def test_a_picture_of_another_size_than_its_file_says_is_refused(tmp_path: Path) -> None:
    values = coco({})
    path = write(tmp_path, values)
    values["images"][0] |= {"width": 80, "height": 100}
    write(tmp_path / "turned", values)
    (tmp_path / "turned" / "boxes.json").rename(path)
    with door(tmp_path) as opened, pytest.raises(UserError, match=r"1.png is 100 x 80 upright, .* says 80 x 100"):
        SampleReader(opened, (64, 64)).survey(read_boxes(path).pictures, lambda *_: None)


def test_unreadable_pictures_are_found_before_training(tmp_path: Path) -> None:
    data = read_boxes(world(tmp_path, 3))
    (tmp_path / "2.png").write_bytes(b"<html></html>")
    with door(tmp_path) as opened:
        reader = SampleReader(opened, (64, 64))
        failures = reader.survey(data.pictures, lambda *_: None)
        assert list(failures) == [1]
        with pytest.raises(JobError, match=r"2.png was readable before training"):
            reader.read(data.pictures)
