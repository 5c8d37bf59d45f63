"""Numbers with units, and whether two say the same."""

from __future__ import annotations

import pytest

from shopvision.items.facts.folding import folded
from shopvision.items.facts.measures import Measure, measures, number_of


def found(text: str) -> set[tuple[str, float]]:
    return {(measure.dimension, measure.number) for measure in measures(folded(text))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Disk 1 TB, 7200RPM", {("storage", 1.0), ("rotation", 7200.0)}),
        ("15.6-inch screen, 2.5KG", {("length", 15.6), ("mass", 2.5)}),
        ('TV 55" black', {("length", 55.0)}),
        ("USB cable 12in", {("length", 12.0)}),
        ("shelf 12 in x 8 in", {("length", 12.0), ("length", 8.0)}),
        ("2x8GB kit", {("storage", 8.0)}),
        ("2 \u00d7 330ml", {("volume", 330.0)}),
        ("1,288.99 g", {("mass", 1288.99)}),
        ("2,5 l", {("volume", 2.5)}),
        ("3x optical zoom, 7.2 Megapixel", {("factor", 3.0), ("pixels", 7.2)}),
        ("27英寸显示器 10000毫安时 1.5升", {("length", 27.0), ("charge", 10000.0), ("volume", 1.5)}),
        ("55인치 TV 1.5리터", {("length", 55.0), ("volume", 1.5)}),
        ("牛奶250ml\u00d724盒, milk 330mlx6", {("volume", 250.0), ("volume", 330.0)}),
        ("TV 27\u2033, tablet 10.1\u201d", {("length", 27.0), ("length", 10.1)}),
        ("小米20000毫安时充电宝65w", {("charge", 20000.0), ("power", 65.0)}),
        ("联想16gb内存 65w快充", {("storage", 16.0), ("power", 65.0)}),
        ("삼성55인치", {("length", 55.0)}),
        ("disque dur 1To, 2 To", {("storage", 1.0), ("storage", 2.0)}),
        ("IronWolf 10 To (NAS), 4 To SSD", {("storage", 10.0), ("storage", 4.0)}),
        # written like a unit, and none
        ("toys from 3 to 5 years", set()),
        ("USB 3 to VGA", set()),
        ("3-in-1 cable", set()),
        ("viera th-42px80u", set()),
        ("2023升级版 2克拉 3米色 3.5转3.5 2转接头", set()),
        ("\u201cRetro 13\u201d", set()),
        ("1" * 400 + " gb", set()),
        ("5G phone", set()),
        ("router 802.11g", set()),
        ("3 in 1 printer", set()),
        ("12 in black", set()),
        ("1920x1080", set()),
        ('Air "Retro 2017"', set()),
        ('"Retro 13"@en', set()),
        ("model A500GBX", set()),
        ("no number", set()),
    ],
)
def test_what_is_a_measure(text: str, expected: set[tuple[str, float]]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("1 TB", "1000 GB", True),
        ("1 TB", "1024 GB", True),
        ("3072MB", "3GB", True),
        ("500GB", "512GB", False),
        ("1 TB", "2 TB", False),
        ("12in", "30.5 cm", True),  # 30.48
        ("12in", "31 cm", False),
        ("15.4in", "15.6in", False),
        ("15.6in", "39.6 cm", True),  # 39.62
        ("15.6in", "40 cm", False),
        ("16 oz", "454 g", True),  # 453.6
        ("1 oz", "28 g", True),  # 28.35, written without decimals
        ("1 oz", "30 g", False),
        ("1 kg", "2.2 lbs", True),  # 0.998 kg
        ("2斤", "1公斤", True),
        ("1 l", "1000 ml", True),
        ("500 ml", "500 g", False),
        ("1m", "3 ft", False),  # 0.914 m
        ("2.4GHz", "2400 MHz", True),
        ("60 min", "1小时", True),
        ("4800万像素", "48MP", True),
        ("4800만 화소", "48 megapixels", True),
        ("1200万像素", "13MP", False),
        ("16 fl. oz.", "473 ml", True),
        ("12 fl oz", "16-fluid ounces", False),
    ],
)
def test_when_two_measures_say_the_same(left: str, right: str, equal: bool) -> None:
    (one,), (other,) = (measures(folded(text)) for text in (left, right))
    assert one.equals(other) is equal
    assert other.equals(one) is equal


def test_numbers_are_read_as_they_are_written() -> None:
    assert [number_of(text) for text in ("1,288.99", "2,5", "12,000", "0.5")] == [1288.99, 2.5, 12000.0, 0.5]
    (measure,) = measures("30.5 cm")
    assert measure == Measure("length", 30.5, 0.01, 0.05)
