"""What the model codes of two items say, as a pair model is told it."""

from __future__ import annotations

import numpy as np
import pytest

from shopvision.items.code_agreement import WORDS, agreement, item_codes
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
    ],
)
def test_what_codes_say(left: Item, right: Item, said: str) -> None:
    codes = item_codes(left), item_codes(right)
    assert WORDS[agreement(*codes)] == said
    assert WORDS[agreement(*reversed(codes))] == said


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
