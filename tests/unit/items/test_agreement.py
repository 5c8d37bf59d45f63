"""What the statements of two items say about each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.items.facts.agreement import FEATURES, agreement_features
from shopvision.items.facts.item_facts import item_facts, price_of
from shopvision.items.facts.weights import TermWeights
from shopvision.items.item import Item


def item(title: str = "", attributes: dict[str, str] | None = None, **fields: Any) -> Item:
    return Item("x", title=title, attributes={key: (value,) for key, value in (attributes or {}).items()}, **fields)


def said(left: Item, right: Item, weights: TermWeights | None = None) -> dict[str, float]:
    """The features that are not 0, the same in both orders."""
    facts, known = (item_facts(left), item_facts(right)), (weights or TermWeights()).weights
    values = agreement_features(*facts, known)
    np.testing.assert_array_equal(values, agreement_features(*reversed(facts), known))
    assert values.dtype == np.float32
    assert values.shape == (len(FEATURES),)
    assert 0 <= values.min() <= values.max() <= 1
    return {name: value for name, value in zip(FEATURES, values.tolist(), strict=True) if value}


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        # codes
        (item("Sony DSC-W300"), item("dscw300 silver"), {"code agrees": 1, "codes shared": 1, "code disagrees": 0}),
        (item("Sony DSC-W300"), item("camera", description="DSCW300"), {"code agrees": 1}),
        (item("Alpine CDA-9886"), item("Alpine CDA-9887"), {"code disagrees": 1, "code is alike": 6 / 7}),
        (item("LG LMVM2085SS"), item("LG LMVM2085"), {"code is alike": 0.8}),
        (item("Alpine CDA-9886"), item("Alpine"), {"code agrees": 0, "code disagrees": 0}),
        # measures: an equal one is seen from both titles
        (item("disk 1TB"), item("disk 1000 GB"), {"measures agree": 0.5, "measures disagree": 0, "measures shared": 1}),
        (item("disk 1TB"), item("disk", description="holds 1024 GB"), {"measures agree": 1 - 0.5**0.5}),
        (item("disk 1TB"), item("disk 2TB"), {"measures agree": 0, "measures disagree": 0.5}),
        (item("disk 1TB 2.5in"), item("disk 2TB 2.5in"), {"measures shared": 0.5}),
        (item("disk 1TB"), item("tv 55in"), {"measures agree": 0, "measures disagree": 0}),
        # numbers
        (item("Air Jordan 13"), item("Jordan 13 Retro"), {"numbers agree": 1, "numbers disagree": 0}),
        (item("Air Jordan 13"), item("Air Jordan 7"), {"numbers agree": 0, "numbers disagree": 1}),
        (item("Air Jordan 13"), item("Air Jordan"), {"numbers agree": 0, "numbers disagree": 0}),
        # words: each lacks one of the other's; two are shared of four
        (item("red Nike shoe"), item("Nike shoe blue"), {"words disagree": 1, "all words shared": 0.5}),
        # brand
        (item("a", brand="Nike"), item("b", brand="NIKE."), {"brand agrees": 1}),
        (item("a", brand="Nike"), item("b", brand="Puma"), {"brand disagrees": 1}),
        (item("a", brand="Nike"), item("nike shoe"), {"brand agrees": 1}),
        (item("a", brand="Nike"), item("shoe"), {"brand agrees": 0, "brand disagrees": 0}),
        # colours across languages; an attribute; a description where nothing else tells
        (item("nero"), item("连衣裙 黑色"), {"colours agree": 1, "colours disagree": 0}),
        (item("coat", {"색상": "블랙"}), item("black coat"), {"colours agree": 1}),
        (item("coat", description="in navy"), item("blue coat"), {"colours agree": 1}),
        (item("red coat"), item("green coat"), {"colours agree": 0, "colours disagree": 1}),
        (item("red coat"), item("red and white coat"), {"colours agree": 0.5, "colours disagree": 0}),
        (item("red coat"), item("coat"), {"colours agree": 0, "colours disagree": 0}),
        # sizes, audience, packs
        (item("Shirt, size L"), item("衬衫 L码"), {"size agrees": 1}),
        (item("Shirt, size L"), item("Shirt XL"), {"size disagrees": 1}),
        (item("shoe EU 42"), item("女鞋42码黑色"), {"size agrees": 1, "size disagrees": 0}),
        (item("shoe US 9"), item("shoe EU 42"), {"size agrees": 0, "size disagrees": 0}),
        (item("shoe US 9"), item("shoe US 10"), {"size agrees": 0, "size disagrees": 1}),
        (item("shoe US 9, EU 42"), item("shoe EU 42"), {"size agrees": 0.5, "size disagrees": 0}),
        (item("shoe US 9, EU 42"), item("shoe US 10, EU 42"), {"size agrees": 1 / 3, "size disagrees": 1}),
        (item("Men's shoe"), item("女鞋"), {"audience disagrees": 1}),
        (item("Cola 6 x 330ml"), item("Cola 330 ml, pack of 6"), {"pack agrees": 1, "measures agree": 0.5}),
        (item("Cola 6 x 330ml"), item("콜라 330ml 24개입"), {"pack disagrees": 1, "measures agree": 0.5}),
        # prices
        (item(price="10"), item(price="$10.00"), {"price agrees": 1, "price disagrees": 0}),
        (item(price="10"), item(price="12"), {"price agrees": 1 - math.log(1.2) / math.log(1.5)}),
        (item(price="10"), item(price="20"), {"price agrees": 0, "price disagrees": 0.5}),
        (item(price="10"), item(price="400"), {"price disagrees": 1}),
        (item(price="10 €"), item(price="10 USD"), {"price agrees": 0, "price disagrees": 0}),
        (item(price="10"), item(price="on request"), {"price agrees": 0, "price disagrees": 0}),
        (item("a", {"currency": "USD"}, price="10"), item("b", {"currency": "KRW"}, price="13000"),
         {"price agrees": 0, "price disagrees": 0}),
        (item(price="10"), item(price="9" * 400), {"price agrees": 0, "price disagrees": 0}),
        # attributes
        (item("a", {"Size:": "3", "material": "wool"}), item("b", {"size": "3", "material": "silk"}),
         {"attributes agree": 0.5, "attributes disagree": 0.5}),
        (item("a", {"Size": "3", "size:": "4"}), item("b", {"size": "3"}),
         {"attributes agree": 0.5, "attributes disagree": 0}),
        # a GTIN, with and without its leading zero
        (item("a", {"ean": "0711719706205"}), item("711719706205"), {"identifier agrees": 1}),
        (item("a", {"ean": "0711719706205"}), item("b", {"ean": "4006381333931"}), {"identifier disagrees": 1}),
    ],
)  # fmt: skip
def test_what_statements_say(left: Item, right: Item, expected: dict[str, float]) -> None:
    found = said(left, right)
    assert {name: found.get(name, 0) for name in expected} == pytest.approx(expected)


def test_what_is_not_known_counts_neither_way() -> None:
    assert said(item(), item("Sony DSC-W300 1TB red", brand="Sony", price="3")) == {}
    assert said(item(), item()) == {}


def test_a_word_that_many_items_have_tells_little() -> None:
    facts = [item_facts(item(f"nike shoe w{number}")) for number in range(16)]
    weights = TermWeights.fit([*facts, *[item_facts(item("rare shoe"))] * 4])
    assert weights.items == 20
    assert weights.counts == {"nike": 16, "rare": 4, "shoe": 20}  # what fewer than three have is rare
    nike = math.log(20 / 16) / math.log(20)
    assert weights.weights == pytest.approx({"nike": nike, "rare": math.log(5) / math.log(20), "shoe": 0})
    found = said(item("Nike shoe"), item("Nike shoe Wichita"), weights)
    assert found["words agree"] == pytest.approx(nike)
    assert found["all words shared"] == pytest.approx(nike / (nike + 1))
    assert TermWeights.from_json(weights.to_json()) == weights
    with pytest.raises(UserError, match="weights of terms are no counts"):
        TermWeights.from_json({"items": 3, "counts": {"a": 4}})


@pytest.mark.parametrize(
    ("written", "price"),
    [
        ("1,288.99", (1288.99, "")), ("¥ 88", (88.0, "cny")), ("￥88", (88.0, "cny")), ("9900원", (9900.0, "krw")),
        ("12,50 EUR", (12.5, "eur")), ("", None), ("0", None), ("free", None),
        # thousands as they are written elsewhere
        ("1.288,99", (1288.99, "")), ("1 288,99 zł", (1288.99, "pln")), ("1'288.50 CHF", (1288.5, "chf")),
        ("1.234.567", (1234567.0, "")), ("1,288", (1288.0, "")), ("1.288", (1.288, "")), ("1.288 €", (1288.0, "eur")),
        ("0,125 €", (0.125, "eur")), ("1,234,567.5", (1234567.5, "")), ("1.5만원", (15000.0, "krw")),
        ("12.5万", (125000.0, "")), ("49,- €", (49.0, "eur")),
        # words and signs of other currencies
        ("from 10", (10.0, "")), ("12.99 per piece", (12.99, "")), ("HK$88", (88.0, "hkd")), ("88 RMB", (88.0, "cny")),
        ("¥1000 JPY", (1000.0, "jpy")),
        # digits that are no price
        ("1" * 400, None), ("12.990000000000001", (12.99, "")),
    ],
)  # fmt: skip
def test_prices(written: str, price: tuple[float, str] | None) -> None:
    found = price_of(written)
    assert found == (price and (pytest.approx(price[0]), price[1]))
