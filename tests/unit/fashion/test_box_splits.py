"""Photos are parted before anything is cut out of them, and boxes stay with their labels."""

from __future__ import annotations

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.fashion.detection.coco import DetectionData, LabelledPicture
from shopvision.fashion.detection.splits import around, cut, require_apart, split_by_photo, with_parts


def picture(name: str, *boxes: tuple[float, float, float, float], photo: str | None = None) -> LabelledPicture:
    return LabelledPicture(
        f"file:///{name}", (100, 200), np.array(boxes, np.float32).reshape(-1, 4),
        np.arange(len(boxes), dtype=np.int64), photo or name,
    )  # fmt: skip


def data(*pictures: LabelledPicture) -> DetectionData:
    return DetectionData(("a", "b", "c"), pictures)


def names(found: DetectionData) -> list[str]:
    return [one.uri.removeprefix("file:///") for one in found.pictures]


def test_what_was_cut_from_one_photo_is_on_one_side() -> None:
    whole = data(*(picture(f"{n}-{part}", (0, 0, 9, 9), photo=f"p{n}") for n in range(20) for part in range(3)))
    train, valid = split_by_photo(whole, 0.25, seed=4)
    assert len(valid.pictures) == 15
    assert len(train.pictures) == 45
    require_apart(train, valid)
    assert sorted(names(train) + names(valid)) == sorted(names(whole))


def test_the_split_depends_on_the_seed_and_not_on_the_order() -> None:
    pictures = [picture(f"{n}", (0, 0, 9, 9)) for n in range(30)]
    one = names(split_by_photo(data(*pictures), 0.2, seed=1)[1])
    assert sorted(one) == sorted(names(split_by_photo(data(*reversed(pictures)), 0.2, seed=1)[1]))
    assert sorted(one) != sorted(names(split_by_photo(data(*pictures), 0.2, seed=2)[1]))


def test_a_side_without_photos_is_refused() -> None:
    with pytest.raises(UserError, match=r"2 photos cannot be parted with a share of 0.1: add some, or name data.valid"):
        split_by_photo(data(picture("1"), picture("2")), 0.1, seed=0)


def test_a_photo_on_both_sides_is_refused() -> None:
    one = data(picture("1", photo="p"), picture("2"))
    with pytest.raises(UserError, match=r"photo p is in training and validation \(1 such photos\)"):
        require_apart(one, data(picture("3", photo="p")))


def test_the_part_goes_beyond_a_box_by_shares_of_its_sides() -> None:
    assert around((40, 100, 60, 140), 0.5, (100, 200)) == (30, 80, 70, 160)
    assert around((5, 100, 65, 190), 0.5, (100, 200)) == (0, 55, 95, 200)  # within the picture


@pytest.mark.parametrize(
    ("box", "left"),
    [
        ((10, 10, 30, 40), (10, 10, 30, 40)),  # wholly inside
        ((30, 10, 70, 40), None),  # half of its width: 20 of 40
        ((31, 10, 69, 40), None),
        ((31, 10, 68, 40), (31, 10, 50, 40)),  # 19 of 37
        ((10, 40, 30, 65), None),  # 10 of 25: 0.4 of its height
        ((10, 40, 30, 64), (10, 40, 30, 50)),  # 10 of 24
        ((60, 60, 90, 90), None),
        ((60, 10, 90, 40), None),
        ((10, 60, 30, 90), None),
    ],
)
def test_enough_must_be_left_of_a_box(
    box: tuple[float, float, float, float], left: tuple[float, float, float, float] | None
) -> None:
    part = cut(picture("1", box), (0, 0, 50, 50))
    assert part.boxes.tolist() == ([] if left is None else [list(left)])
    assert part.size == (50, 50)


def test_boxes_of_a_part_are_counted_from_its_corner_and_keep_their_labels() -> None:
    part = cut(picture("1", (0, 0, 9, 9), (30, 40, 50, 60), (90, 190, 99, 199)), (20, 30, 80, 90))
    assert part.boxes.tolist() == [[10, 10, 30, 30]]
    assert part.labels.tolist() == [1]
    assert (part.part, part.photo, part.uri) == ((20, 30, 80, 90), "1", "file:///1")


def test_parts_come_of_pictures_with_several_boxes_and_show_fewer() -> None:
    lonely = picture("1", (0, 0, 50, 50))
    far = picture("2", (0, 0, 20, 20), (70, 150, 90, 190))
    near = picture("3", (40, 90, 60, 110), (45, 95, 55, 105))
    found = with_parts(data(lonely, far, near), seed=3)
    assert names(found)[:3] == ["1", "2", "3"]
    assert all(one.uri == far.uri and len(one.boxes) == 1 for one in found.pictures[3:])
    assert len(found.pictures) == 4
    again = with_parts(data(lonely, far, near), seed=3)
    assert [one.part for one in again.pictures] == [one.part for one in found.pictures]
