"""Texts of items: normalised, cut into words, attributes in order."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType

import pytest
import rjieba

from shopvision.errors import UserError
from shopvision.items import text_normalisation
from shopvision.items.category_statistics import CategoryStatistics
from shopvision.items.item import Item
from shopvision.items.item_texts import MAX_PIECES_CHARACTERS, BuilderName, ItemText, Segmenter, TextBuilder
from shopvision.items.text_normalisation import MAX_TEXT_CHARACTERS, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a\tb\nc\r\n\x00d\x1fe ", "a b c d e"),
        ("a\u00a0b\u3000c\u2028d", "a b c d"),
        ("zero\u200bwidth\ufeff so\u00adft", "zerowidth soft"),
        ("\uff2e\uff49\uff4b\uff45\u3000\uff11\uff12", "Nike 12"),
        ("㎏ ™ ①", "kg TM 1"),
        ("\u1102\u1161\u110b\u1175\u110f\u1175", "나이키"),  # letters that make syllables are joined
        ("나이키 운동화", "나이키 운동화"),
        ("ㅋㅏ ㅎㅎ", "ㅋㅏ ㅎㅎ"),  # letters that stand alone stay apart
        ("상품\u3164명", "상품 명"),
        ("Levi\u00b4s", "Levi\u00b4s"),
        ("Cafe\u0301", "Café"),
        ("lone \ud800 half", "lone half"),
        ("😀 sale", "😀 sale"),
        ("", ""),
    ],
)
def test_one_form_for_texts(text: str, expected: str) -> None:
    assert normalise(text) == expected
    assert normalise(expected) == expected


def built(
    item: Item, name: BuilderName = "title_attributes", segmenter: Segmenter = "none", *training: Item
) -> ItemText:
    return TextBuilder(name, statistics=CategoryStatistics.fit(training), segmenter=segmenter).item(item)


SHOE = Item(
    "1",
    title="Air  Zoom",
    category="shoes",
    brand="Nike",
    price="99.5",
    description="Light",
    attributes={"size": ("41", "42"), "colour": ("red",), "": ("x",), "blank": (" ",)},
)


def test_brand_comes_first_and_price_and_description_last() -> None:
    text = built(SHOE)
    assert text.title == "Air Zoom"
    assert text.keys == ("brand", "size", "colour", "price", "description")
    assert text.pieces == ("brand:Nike;", "size:41,42;", "colour:red;", "price:99.5;", "description:Light;")


def test_title_alone() -> None:
    assert built(SHOE, "title") == ItemText("Air Zoom", (), ())


def test_empty_item() -> None:
    assert built(Item("1")) == ItemText("", (), ())


def test_attributes_that_become_equal_are_merged() -> None:
    item = Item(
        "1", brand="A", attributes={"price": ("5",), "\uff33ize": ("\uff38",), "Size": ("X", "L"), "brand": ("B",)}
    )
    assert built(item).pieces == ("brand:A,B;", "Size:L,X;", "price:5;")


def test_attributes_by_frequency_in_the_category() -> None:
    others = [
        Item(str(row), category="shoes", attributes=dict.fromkeys(keys, ("v", "w")))
        for row, keys in enumerate([("colour", "sole"), ("colour", "sole"), ("colour", "size"), ("heel",)])
    ]
    hats = [Item(str(row), category="hats", attributes={"heel": ("v",)}) for row in range(9)]
    item = Item("x", category="shoes", attributes=dict.fromkeys(["z", "heel", "size", "sole", "colour"], ("1",)))
    # colour 3, sole 2; keys that fewer than two training items have count nothing and go by name
    assert built(item, "frequency", "none", *others, *hats).keys == ("colour", "sole", "heel", "size", "z")


def order(builder: TextBuilder, left: Item, right: Item) -> tuple[list[str], list[str]]:
    texts = builder.item(left), builder.item(right)
    orders = builder.order(texts[0], left.category, texts[1], right.category)
    first, second = ([text.keys[place] for place in places] for text, places in zip(texts, orders, strict=True))
    return first, second


def test_common_keys_line_up_whatever_each_item_s_own_order() -> None:
    training = [Item(f"a{row}", category="A", attributes={"p": ("1",), "q": ("1",)}) for row in range(2)]
    training += [Item(f"b{row}", category="B", attributes={"q": ("1",), "own": ("1",)}) for row in range(3)]
    builder = TextBuilder("aligned", statistics=CategoryStatistics.fit(training))
    # p has 2 + 0, q 2 + 3, c and d nothing: equal, so by name
    left = Item("l", category="A", attributes=dict.fromkeys(["d", "c", "p", "only", "q"], ("1",)), description="x")
    right = Item("r", category="B", attributes=dict.fromkeys(["c", "q", "z", "d", "own", "p"], ("2",)), brand="N")
    assert order(builder, left, right) == (
        ["q", "p", "c", "d", "only", "description"],
        ["q", "p", "c", "d", "brand", "own", "z"],
    )
    assert order(builder, right, left) == order(builder, left, right)[::-1]


def test_capitals_make_no_other_key_and_are_kept_in_the_text() -> None:
    training = [Item(str(row), category="A", attributes={"p": ("1",), "Q": ("1",), "q ": ("1",)}) for row in range(2)]
    training += [Item("3", category="A", attributes={"Q": ("1",)})]
    builder = TextBuilder("aligned", statistics=CategoryStatistics.fit(training))
    left = Item("l", category="A", attributes={"own": ("1",), "P": ("1",), "q": ("2",)}, brand="N")
    right = Item("r", category="A", attributes={"p": ("1",), "Q": ("2",), "Brand": ("M",)})
    assert order(builder, left, right) == (["brand", "q", "p", "own"], ["brand", "q", "p"])
    assert builder.item(right).pieces == ("brand:M;", "Q:2;", "p:1;")


def test_common_keys_of_equal_frequency_line_up_by_name() -> None:
    training = [Item(f"{c}{row}", category=c, attributes={k: ("1",)}) for c, k in ("Aq", "Bp") for row in range(2)]
    builder = TextBuilder("aligned", statistics=CategoryStatistics.fit(training))
    # 2 + 0 and 0 + 2, though each side alone would begin with another one
    left, right = (Item(name, category=name, attributes={"p": ("1",), "q": ("1",)}) for name in "AB")
    assert (builder.item(left).keys, builder.item(right).keys) == (("q", "p"), ("p", "q"))
    assert order(builder, left, right) == (["p", "q"], ["p", "q"])


def test_common_brand_leads_and_common_description_does_not_push_out_attributes() -> None:
    left = Item("l", brand="N", price="1", description="long", attributes={"b": ("1",), "own": ("1",)})
    right = Item("r", brand="M", description="text", attributes={"b": ("1",)})
    assert order(TextBuilder("aligned", statistics=CategoryStatistics()), left, right) == (
        ["brand", "b", "own", "price", "description"],
        ["brand", "b", "description"],
    )


def test_other_builders_keep_each_item_s_order() -> None:
    right = Item("2", attributes={"colour": ("red",)})
    assert order(TextBuilder("title_attributes"), SHOE, right) == (list(built(SHOE).keys), ["colour"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Chinese as jieba 0.42.1 cuts it; letters and digits stay in one piece
        ("2020冬季新款高领复古印花", "2020 冬季 新款 高领 复古 印花"),
        ("南京市长江大桥", "南京市 长江大桥"),
        ("纯棉T恤:白色,L码;", "纯棉 T恤 : 白色 , L 码 ;"),
        ("나이키 운동화 정품", "나이키 운동화 정품"),
        ("나이키运动鞋air-max", "나이키 运动鞋 air-max"),
        ("canon cda-9887 4.5mm; red", "canon cda-9887 4.5mm; red"),
        ("Café Crème cda-9887", "Café Crème cda-9887"),
    ],
)
def test_words_of_chinese_and_no_others(text: str, expected: str) -> None:
    assert built(Item("1", title=text), "title", "jieba").title == expected


def test_pieces_are_cut_into_words_too() -> None:
    text = built(Item("1", attributes={"适用年龄": ("14周岁以上",)}), "title_attributes", "jieba")
    assert text.keys == ("适用年龄",)
    assert text.pieces == ("适用 年龄 : 14 周岁 以上 ;",)


def test_texts_without_end_are_cut_before_anything_is_done_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"normalize": 0, "cut": 0}  # characters

    def count(module: ModuleType, name: str) -> None:
        function = getattr(module, name)

        def counted(*arguments: str) -> object:
            given[name] += len(arguments[-1])
            return function(*arguments)

        monkeypatch.setattr(module, name, counted)

    count(text_normalisation, "normalize")
    count(rjieba, "cut")
    item = Item("1", title="冬季x " * 50_000, brand="b" * 100_000, attributes={str(k): ("v" * 900,) for k in range(99)})
    text = built(item, "title_attributes", "jieba")
    assert 0 < given["cut"] <= given["normalize"] <= MAX_TEXT_CHARACTERS
    assert len(text.title) <= 2 * MAX_TEXT_CHARACTERS
    assert 0 < sum(map(len, text.pieces)) <= MAX_PIECES_CHARACTERS
    assert all(piece.endswith(";") for piece in text.pieces)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"name": "bag_of_words"}, "title, title_attributes, frequency, aligned"),
        ({"name": "title", "segmenter": "mecab"}, "none, jieba"),
        ({"name": "aligned"}, "give it the training items' statistics"),
    ],
)
def test_refused_builders(arguments: dict[str, str], part: str) -> None:
    with pytest.raises(UserError, match=part):
        TextBuilder(**arguments)  # type: ignore[arg-type]  # wrong on purpose


PRINT_TEXTS = """
from shopvision.items.attribute_strings import merge_attributes, parse_attributes
from shopvision.items.item import Item
from shopvision.items.category_statistics import CategoryStatistics
from shopvision.items.item_texts import TextBuilder
strings = ["#;#".join(f"k{i % m}#:#v{(i * 7) % 13}" for i in range(m, 40)) for m in (3, 5, 11)]
items = [Item(str(n), category="c", attributes=merge_attributes(parse_attributes(s))) for n, s in enumerate(strings)]
statistics = CategoryStatistics.fit(items)
builder = TextBuilder("aligned", statistics=statistics)
texts = [builder.item(item) for item in items]
print(statistics.to_json(), texts, [builder.order(a, "c", b, "c") for a in texts for b in texts])
print([item.content_hash().hex() for item in items])
"""


def test_same_texts_whatever_the_hash_seed() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", PRINT_TEXTS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert b"k1:v" in runs[0]
