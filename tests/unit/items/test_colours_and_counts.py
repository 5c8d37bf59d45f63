"""Colours, pack counts, sizes and audiences in English, Chinese, Korean and some languages of Europe."""

from __future__ import annotations

import pytest

from shopvision.items.facts.colours import colours
from shopvision.items.facts.counts_and_sizes import audience, pack_counts, sizes
from shopvision.items.facts.folding import folded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Navy blue coat", {"blue"}),
        ("Nero/Giallo", {"black", "yellow"}),
        ("Czarny/Biały", {"black", "white"}),
        ("weiße Bluse", set()),  # inflected German is not known
        ("weiß", {"white"}),  # folded to weiss
        ("黑色 连衣裙", {"black"}),
        ("藏青色外套", {"blue"}),
        ("米白 纯棉", {"white"}),
        ("黑/白", {"black", "white"}),
        ("黑客帝国", set()),  # The Matrix
        ("블랙 원피스", {"black"}),
        ("네이비색 코트", {"blue"}),
        ("블랙박스", set()),  # a dash camera
        ("wheels", set()),
    ],
)
def test_colours(text: str, expected: set[str]) -> None:
    assert colours(folded(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Pack of 6", {6}),
        ("6-pack socks", {6}),
        ("500670-B21-2Pack", {2}),
        ("Twin pack", {2}),
        ("6 x 330ml", {6}),
        ("2\u00d78GB", {2}),
        ("x6 batteries", {6}),
        ("六件套", {6}),
        ("三只装", {3}),
        ("套装 2件", {2}),
        ("라면 10개입", {10}),
        ("양말 20개 세트", {20}),
        ("矿泉水十二瓶装", {12}),
        ("面膜二十片", {20}),
        ("三十六件套", {36}),
        ("一百片", set()),
        ("양말20개", {20}),
        ("生抽6x500ml装", {6}),
        ("Water 500ml x 2", {2}),
        ("牛奶250ml\u00d724", {24}),
        ("Water 500ml*6", {6}),
        ("RAM 4GBx2", {2}),
        ("notebook 4gb x 64 windows", set()),
        ("Windows Vista x64", set()),
        ("block 10g x 15 x 3", set()),
        ("1920x1080", set()),
        ("4 packets", set()),
    ],
)
def test_pack_counts(text: str, expected: set[int]) -> None:
    assert pack_counts(folded(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Size 42", {"42"}),
        ("EU 42.5", {"eu 42.5"}),
        ("US 9", {"us 9"}),
        ("2XL", {"xxl"}),
        ("Hoodie-M-Black", {"m"}),
        ("42码", {"42"}),
        ("XL码", {"xl"}),
        ("均码", {"one"}),
        ("사이즈 L", {"l"}),
        ("프리사이즈", {"one"}),
        ("女鞋42码黑色", {"42"}),
        ("男士外套XL灰色", {"xl"}),
        ("原装尺码42.5男", {"42.5"}),
        ("Model M", set()),
        ("level 42", set()),
    ],
)
def test_sizes(text: str, expected: set[str]) -> None:
    assert sizes(folded(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Women's shoe", {"women"}),
        ("Herren Schuhe", {"men"}),
        ("Kids GS", {"children"}),
        ("男童鞋", {"children"}),
        ("男鞋 透气", {"men"}),
        ("女士 外套", {"women"}),
        ("여성 원피스", {"women"}),
        ("남성용 운동화", {"men"}),
        ("menu", set()),
    ],
)
def test_audience(text: str, expected: set[str]) -> None:
    assert audience(folded(text)) == expected
