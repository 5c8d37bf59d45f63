"""The order of what was found, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from shopvision.fashion.composition.routing import Routes
from shopvision.search.arranging import Candidate, arrange, in_order


def at(degrees: float) -> np.ndarray:
    return np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))], np.float32)


def candidate(name: str, similarity: float, degrees: float = 0.0, **fields: Any) -> Candidate:
    values: dict[str, Any] = {
        "key": (ord(name[0]), 0), "item_id": name, "style": f"item {name}", "similarity": similarity, "fits": True,
        "colour_difference": None, "content": None, "vector": at(degrees),
    }  # fmt: skip
    return Candidate(**values | fields)


def names(shown: list[Any]) -> list[str]:
    return [one.candidate.item_id for one in shown]


def test_the_best_picture_of_each_item_by_falling_similarity() -> None:
    found = [candidate("a", 0.5), candidate("b", 0.7, 40), candidate("a", 0.9, 80), candidate("c", 0.6, 120)]
    shown = arrange(found, 10)
    assert [(one.candidate.item_id, one.candidate.similarity) for one in shown] == [("a", 0.9), ("b", 0.7), ("c", 0.6)]
    assert [one.variants for one in shown] == [[], [], []]
    assert names(arrange(found, 2)) == ["a", "b"]


def test_what_fits_comes_first() -> None:
    found = [candidate("a", 0.9, fits=False), candidate("b", 0.5, 40), candidate("c", 0.6, 80)]
    assert names(arrange(found, 10)) == ["c", "b", "a"]


def test_one_item_of_a_style_stands_for_the_others() -> None:
    found = [
        candidate("red", 0.8, 0, style="style 7"), candidate("blue", 0.9, 40, style="style 7"),
        candidate("shoe", 0.85, 80), candidate("green", 0.3, 120, style="style 7"),
    ]  # fmt: skip
    shown = arrange(found, 10)
    assert [(one.candidate.item_id, one.variants) for one in shown] == [("blue", ["red", "green"]), ("shoe", [])]


def test_nearly_the_same_pictures_are_shown_once() -> None:
    """cos 10 degrees = 0.9848, cos 12 degrees = 0.9781."""
    found = [candidate("a", 0.9, 0), candidate("b", 0.8, 10), candidate("c", 0.7, 12), candidate("d", 0.6, 22)]
    shown = arrange(found, 10, nearly_same=0.98)
    assert [(one.candidate.item_id, one.variants) for one in shown] == [("a", ["b"]), ("c", ["d"])]
    assert names(arrange(found, 10, nearly_same=0.99)) == ["a", "b", "d"]
    assert names(arrange([candidate("a", 0.9, 30), candidate("b", 0.8, 30)], 10)) == ["a", "b"]


def test_what_is_dropped_does_not_count_among_the_wanted() -> None:
    found = [candidate("a", 0.9, 0), candidate("b", 0.8, 1), candidate("c", 0.7, 90), candidate("d", 0.6, 1)]
    shown = arrange(found, 2, nearly_same=0.98)
    assert [(one.candidate.item_id, one.variants) for one in shown] == [("a", ["b", "d"]), ("c", [])]


def test_equal_bytes_are_shown_once_but_not_two_garments_of_one_picture() -> None:
    same = {"content": (b"1", 0)}
    found = [
        candidate("a", 0.9, 0, **same), candidate("b", 0.8, 90, **same), candidate("c", 0.7, 50, content=(b"1", 2))
    ]  # fmt: skip
    assert [(one.candidate.item_id, one.variants) for one in arrange(found, 9)] == [("a", ["b"]), ("c", [])]


def test_vectors_of_several_encoders_are_compared_by_their_cosine() -> None:
    """0.3 cos + 0.7 within an encoder: of two vectors 30 degrees apart 0.9598, and yet they are not nearly the same."""
    routes = Routes(("shoes",))
    vectors = routes.extend(np.stack([at(0), at(30), at(5)]), [1, 1, 1])
    found = [candidate(name, 0.9, vector=vector) for name, vector in zip("abc", vectors, strict=True)]
    assert names(arrange(found, 9, nearly_same=0.9)) == ["a"]
    assert vectors[0] @ vectors[1] == pytest.approx(0.9598, abs=1e-4)
    assert names(arrange(found, 9, nearly_same=0.9, routes=routes)) == ["a", "b"]


def test_what_another_encoder_made_comes_behind_and_is_no_copy() -> None:
    """Between two encoders a cosine means nothing, however high."""
    routes = Routes(("shoes",))
    vectors = routes.extend(np.stack([at(0), at(90), at(90)]), [1, 1, 0])
    found = [
        candidate("other", 0.99, vector=vectors[2], is_comparable=False), candidate("near", 0.6, vector=vectors[0]),
        candidate("far", -0.5, vector=vectors[1]), candidate("misfit", 0.9, 45, fits=False, vector=vectors[1]),
    ]  # fmt: skip
    shown = arrange(found, 9, nearly_same=0.3, routes=routes)
    assert [(one.candidate.item_id, one.variants) for one in shown] == [
        ("near", []),
        ("far", ["misfit"]),
        ("other", []),
    ]


@pytest.mark.parametrize(
    ("share", "order"),
    [
        (0.0, ["a", "c", "b"]),  # 0.90, 0.89, 0.86
        (0.1, ["c", "a", "b"]),  # a 0.81 + 0.06 = 0.870, c 0.801 + 0.075 = 0.876, b 0.774 + 0.09 = 0.864
        (0.25, ["b", "c", "a"]),  # a 0.675 + 0.15 = 0.825, c 0.6675 + 0.1875 = 0.855, b 0.645 + 0.225 = 0.870
        (1.0, ["b", "c", "a"]),  # 0.9, 0.75, 0.6
    ],
)
def test_the_colour_has_its_share(share: float, order: list[str]) -> None:
    """Differences of 40 and 10 are a closeness of 0.6 and 0.9; c, of which nothing is known, is 0.75 close."""
    found = [
        candidate("a", 0.90, colour_difference=40.0), candidate("b", 0.86, colour_difference=10.0),
        candidate("c", 0.89),
    ]  # fmt: skip
    assert [one.item_id for one in in_order(found, share)] == order


def test_beyond_black_and_white_no_colour_is_farther() -> None:
    found = [candidate("a", 0.5, colour_difference=250.0), candidate("b", 0.4, colour_difference=100.0)]
    assert [one.item_id for one in in_order(found, 0.5)] == ["a", "b"]
    assert [one.item_id for one in in_order([candidate("b", 0.4), candidate("a", 0.5)], 0.5)] == ["a", "b"]
    assert in_order([], 0.5) == []
