"""Files of boxes: what is read, and that every mistake is named before any work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.fashion.detection.coco import read_boxes
from tests.unit.fashion.boxes_world import coco, write


def test_boxes_are_read_with_their_classes(tmp_path: Path) -> None:
    values = coco(
        {}, {"category_id": 20, "bbox": [0, 0, 100.4, 80]}, {"bbox": [5, 5, 5, 5], "iscrowd": 1}, {"image_id": 2}
    )
    data = read_boxes(write(tmp_path, values))
    assert data.classes == ("bag", "dress")
    first, second = data.pictures
    assert first.uri == (tmp_path / "1.png").as_uri()
    assert (first.size, first.photo, first.part) == ((100, 80), "1.png", None)
    np.testing.assert_array_equal(first.boxes, [[10, 20, 40, 60], [0, 0, 100, 80]])  # cut by what was rounded
    assert first.labels.tolist() == [0, 1]
    assert second.labels.tolist() == [0]
    assert data.boxes_by_class() == {"bag": 2, "dress": 1}


def test_a_detector_says_the_order_of_its_classes(tmp_path: Path) -> None:
    path = write(tmp_path, coco({"category_id": 20}))
    data = read_boxes(path, classes=("shoes", "dress", "bag"))
    assert data.classes == ("shoes", "dress", "bag")
    assert data.pictures[0].labels.tolist() == [1]
    with pytest.raises(UserError, match=r"category 'bag' is unknown to the detector, which has dress, shoes"):
        read_boxes(path, classes=("dress", "shoes"))


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"bbox": [90, 0, 30, 10]}, r"annotation 2 on 1.png: its box \[90, 0, 30, 10\] lies outside of the picture"),
        ({"bbox": [-3, 0, 30, 10]}, "lies outside"),
        ({"bbox": [200, 0, 1, 1]}, "lies outside"),
        ({"bbox": [10, 10, 0, 5]}, "is empty"),
        ({"bbox": [10, 10, 5, -1]}, "is empty"),
        ({"bbox": [10, float("nan"), 5, 5]}, "is not finite"),
        ({"bbox": [10, 10, float("inf"), 5]}, "is not finite"),
        ({"category_id": 70}, "annotation 2 names the category 70, which is not there: add the category"),
        ({"image_id": 70}, "annotation 2 names the image 70, which is not there: remove it"),
        ({"id": 1}, "annotation 1 stands there twice: give each its own"),
        ({"bbox": [1, 2, 3]}, r"is no COCO file: annotations.1.bbox.3: Field required"),
        ({"bbox": "all"}, r"is no COCO file: annotations.1.bbox"),
    ],
)
def test_wrong_annotations_are_named(annotation: dict[str, Any], message: str, tmp_path: Path) -> None:
    values = coco({}, {})
    path = write(tmp_path, values)
    values["annotations"][1] |= annotation
    from json import dumps

    path.write_text(dumps(values))
    with pytest.raises(UserError, match=message):
        read_boxes(path)


def test_how_many_mistakes_of_a_kind_there_are(tmp_path: Path) -> None:
    values = coco({"bbox": [0, 0, 0, 0]}, {"bbox": [0, 0, 0, 0]}, {})
    with pytest.raises(UserError, match=r"is empty \(100 x 80\) \(2 such cases\): correct the box"):
        read_boxes(write(tmp_path, values))


@pytest.mark.parametrize("what", ["images", "categories"])
def test_ids_are_given_once(what: str, tmp_path: Path) -> None:
    values = coco({})
    values[what].append(dict(values[what][0]))
    with pytest.raises(UserError, match="stands there twice"):
        read_boxes(write(tmp_path, values))


def test_pictures_must_be_there(tmp_path: Path) -> None:
    path = write(tmp_path, coco({}, images=3))
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").unlink()
    with pytest.raises(UserError, match=rf"the picture 2.png is not in {tmp_path} \(2 such cases\): name its folder"):
        read_boxes(path)
    data = read_boxes(path, images="s3://shop/photos")
    assert data.pictures[1].uri == "s3://shop/photos/2.png"  # looked at when it is read
    path.write_text(path.read_text().replace("2.png", str(tmp_path / "1.png")).replace("3.png", "../3.png"))
    with pytest.raises(UserError, match=rf"{path}: file '.*1.png' is not inside the picture folder"):
        read_boxes(path, images="s3://shop/photos")
    with pytest.raises(UserError, match="there is no such folder"):
        read_boxes(path, images=str(tmp_path / "nowhere"))


def test_pictures_lie_in_images_beside_the_file_where_there_is_such_a_folder(tmp_path: Path) -> None:
    path = write(tmp_path, coco({}))
    (tmp_path / "images").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / name).rename(tmp_path / "images" / name)
    assert read_boxes(path).pictures[0].uri == (tmp_path / "images" / "1.png").as_uri()
    path.write_text(path.read_text().replace('"file_name": "', '"file_name": "images/'))
    assert read_boxes(path).pictures[0].uri == (tmp_path / "images" / "1.png").as_uri()


def test_what_is_no_file_of_boxes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.json cannot be read \(No such file"):
        read_boxes(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("boxes")
    with pytest.raises(UserError, match=r"text.json is no COCO file: the text: Invalid JSON"):
        read_boxes(tmp_path / "text.json")
    (tmp_path / "list.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(UserError, match="is no COCO file: categories: Field required"):
        read_boxes(tmp_path / "list.json")
