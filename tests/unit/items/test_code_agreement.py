"""What the model codes of two items say, as a pair model is told it."""

from __future__ import annotations

import numpy as np
import pytest

from shopvision.items.code_agreement import MOST_ITEMS, WORDS, agreement, common_codes, item_codes
from shopvision.items.item import Item
from shopvision.items.item_texts import TextBuilder
from shopvision.matching.families.packing import Packer
from tests.unit.matching.tiny_matcher import unigram_tokenizer


def item(title: str, description: str = "", **attributes: str) -> Item:
    return Item("x", title=title, description=description, attributes={k: (v,) for k, v in attributes.items()})


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (item("Sony DSC-W300 camera"), item("camera dscw300 silver"), "same model;"),
        (item("Sony DSC-W300 camera"), item("compact camera", "Sony dsc/w300"), "same model;"),
        (item("Sony DSC-W300 camera"), item("compact camera", 货号="DSC-W300"), "same model;"),
        (item("LG kettle LMVM2085SS"), item("LG kettle LMVM2085"), "similar model;"),
        (item("Alpine cda-9886"), item("Alpine cda-9887"), "other model;"),
        (item("Alpine cda-9886"), item("Alpine receiver"), ""),
        (item("disk 500GB 7200"), item("disk 500GB 1080p"), ""),  # measures are no codes
        (item("phone 711719706205"), item("phone 711719706205"), "same model;"),  # a GTIN
        (item("TV 2008"), item("TV 2008"), ""),
        (item("소니 카메라 DSC-W300"), item("索尼相机dscw300银色"), "same model;"),
        (item(""), item(""), ""),
        # What thousands of items have: units, sizes, standards.
        *(
            (item(f"Acme {one}"), item(f"Other, {other} black"), "")
            for one, other in (
                ("DDR4", "ddr4"),
                ("1920x1080", "1920 X 1080 1920x1080"),
                ("10000mAh", "10000 mAh 10000mAh"),
                ("IP68", "IP68"),
                ("USB3.0", "USB-3.0"),
                ("GDDR5X", "gddr5x"),
                ("2x8GB", "2x8GB"),
                ("PC4-19200", "PC419200"),
                ("802.11ac", "80211ac"),
                ("10x15cm", "10x15cm"),
                ("2666MHz", "2666mhz"),
                ("5400rpm", "5400RPM"),
                ("288-pin", "288pin"),
                ("LGA1151", "LGA-1151"),
                ("24-port", "24port"),
                ("HDMI2.1", "HDMI2.1"),
                ("8GB/256GB", "8GB/256GB"),
                ("110V-240V", "110V-240V"),
                ("256GBSSD", "256GBSSD"),
                ("250mlx24", "250mlx24"),
                ("EU42", "EU42"),
                ("UK 8.5 UK8.5", "UK8.5"),
                ("SPF50", "SPF50+"),
                ("IPX7", "IPX7"),
            )
        ),
        # What looks like one and names a product.
        (item("Canon PIXMA MP980"), item("canon mp-980 printer"), "same model;"),
        (item("Canon iP6600D"), item("photo printer IP6600D"), "same model;"),
        (item("WD 2TB WD20EZRX"), item("2TB drive wd20ezrx"), "same model;"),
        (item("USB hub UH-400"), item("UH400 hub, USB3.0"), "same model;"),
        (item("RAM KVR24N17S8 DDR4"), item("DDR4 RAM KVR24N17S6"), "other model;"),
        (item("Canon iPF510"), item("plotter IPF510"), "same model;"),
        (item("adapter 5V-AB12"), item("5VAB12 adapter"), "same model;"),
        (item("Varta CR2032"), item("battery CR2032"), "same model;"),
    ],
)
def test_what_codes_say(left: Item, right: Item, said: str) -> None:
    codes = item_codes(left), item_codes(right)
    assert WORDS[agreement(*codes)] == said
    assert WORDS[agreement(*reversed(codes))] == said


def test_a_code_that_many_items_carry_says_nothing() -> None:
    """Eight offers may be of one product; nine share a part of it."""
    products = [item(f"Laptop {code} i7-7500U") for code in ("AB-1000",) * MOST_ITEMS + ("CD-2000",)]
    assert common_codes(products) == ("I77500U",)
    left, right = item("Laptop AB-1000 i7-7500U"), item("Laptop i7-7500U")
    assert agreement(item_codes(left), item_codes(right)) == WORDS.index("same model;")
    common = frozenset(common_codes(products))
    assert agreement(item_codes(left, common), item_codes(right, common)) == WORDS.index("")
    builder = TextBuilder("title", compare_codes=True, common_codes=common)
    assert builder.item(right).codes == item_codes(right, common)


@pytest.mark.parametrize("image_token", [False, True])
def test_a_pair_begins_with_what_codes_say(image_token: bool) -> None:
    items = [item("red band dscw300"), item("band DSC-W300", "size 40"), item("red band"), item("band AB-9000")]
    tokenizer = unigram_tokenizer()
    plain, comparing = (
        Packer(
            tokenizer, TextBuilder("title_attributes", compare_codes=compare), max_length=64, token_types=2,
            image_token=image_token,
        )
        for compare in (False, True)
    )  # fmt: skip
    left, right = np.array([0, 1, 0, 0, 2]), np.array([1, 0, 2, 3, 0])
    said = [WORDS[1], WORDS[1], WORDS[0], WORDS[3], WORDS[0]]
    without, batch = (of.pairs(of.items(items), left, right) for of in (plain, comparing))
    lengths = comparing.pair_lengths(comparing.items(items), left, right)
    before = 3 if image_token else 1  # [CLS], or [CLS] [IMG] [SEP]
    for row, words in enumerate(said):
        hint = tokenizer.encode(words, add_special_tokens=False) if words else []
        expected = without.tokens.rows(slice(row, row + 1)).input_ids[0].tolist()
        ids = batch.tokens.rows(slice(row, row + 1)).input_ids[0].tolist()
        assert ids == expected[:before] + hint + expected[before:]
        assert len(ids) == lengths[row]
        assert batch.tokens.token_type_ids[row].sum() == without.tokens.token_type_ids[row].sum()
        if image_token:
            assert (batch.slots[row] - without.slots[row]).tolist() == [0, len(hint)]
    short = Packer(tokenizer, comparing.builder, max_length=30, token_types=2, image_token=image_token)
    assert short.pairs(short.items(items), left, right).tokens.input_ids.shape[1] <= 30
