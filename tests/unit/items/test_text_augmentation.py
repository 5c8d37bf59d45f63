"""Offers written otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from shopvision.items.item import Item
from shopvision.items.text_augmentation import AUGMENTATIONS, LONGEST_SPAN, augmented, delete_span

TITLE = "sony cyber-shot dsc-w300 digital camera 13.6 mp 4905524475661 black"


def several(name: str, text: str, count: int = 300) -> set[str]:
    generator = np.random.default_rng(1)
    return {AUGMENTATIONS[name](text, generator) for _ in range(count)}  # type: ignore[index] # a name


def without(places: range) -> str:
    return " ".join(word for place, word in enumerate(TITLE.split()) if place not in places)


def test_what_each_may_make_of_a_title() -> None:
    words = TITLE.split()
    assert several("drop_word", TITLE) == {without(range(place, place + 1)) for place in range(9)}
    swapped = set()
    for a in range(9):
        for b in range(a):
            other = list(words)
            other[a], other[b] = other[b], other[a]
            swapped.add(" ".join(other))
    assert several("swap_words", TITLE, 600) == swapped
    spans = {
        without(range(start, start + length)) for length in range(1, LONGEST_SPAN + 1) for start in range(10 - length)
    }
    assert several("delete_span", TITLE, 600) == spans
    # Neither a number with a unit beside it, nor a word without digits, is a code.
    assert several("mask_code", TITLE) == {without(range(2, 3)), without(range(7, 8))}


def test_chinese_words_are_words() -> None:
    title = "索尼DSC-W300数码相机 银色"
    dropped = {"DSC-W300数码相机 银色", "索尼数码相机 银色", "索尼DSC-W300 银色", "索尼DSC-W300数码相机"}
    assert several("drop_word", title) == dropped
    assert "数码相机DSC-W300索尼 银色" in several("swap_words", title)
    assert several("drop_word", "sony的camera") >= {"sony camera"}
    assert several("delete_span", "운동화 검정 250") == {"검정 250", "운동화 250", "운동화 검정"}


def test_a_code_ends_where_chinese_or_korean_begins() -> None:
    assert several("mask_code", "索尼DSC-W300数码相机 银色") == {"索尼 数码相机 银色"}
    assert several("mask_code", "소니DSC-W300카메라") == {"소니 카메라"}
    assert several("mask_code", "2023新款运动鞋 男") == {"2023新款运动鞋 男"}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_no_text_of_words_becomes_empty(name: str) -> None:
    assert several(name, "", 5) == {""}
    assert several(name, "dsc-w300", 5) == {"dsc-w300"}
    assert all(several(name, "sony dsc-w300"))


def test_no_more_than_half_of_a_text_is_deleted() -> None:
    generator = np.random.default_rng(2)
    assert {len(delete_span("a b c d e", generator).split()) for _ in range(50)} == {3, 4}


def test_title_and_description_are_changed_by_the_generator_alone() -> None:
    item = Item("1", TITLE, brand="sony", description="a camera of thirteen megapixels", attributes={"mp": ("13.6",)})
    names = tuple(AUGMENTATIONS)
    first, again = (augmented(item, names, np.random.default_rng(5)) for _ in range(2))
    assert first == again
    assert first.title != item.title
    assert (first.item_id, first.brand, first.attributes) == ("1", "sony", item.attributes)
    titles = {augmented(item, ("mask_code",), np.random.default_rng(seed)).title for seed in range(20)}
    assert titles == {without(range(2, 3)), without(range(7, 8))}
