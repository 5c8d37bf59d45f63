"""What two items are found to share, whatever way people write it."""

from __future__ import annotations

import pytest

from shopvision.items.item import Item
from shopvision.matching.blocking.keys import attribute_keys, code_keys, codes, stems, title_keys, words


@pytest.mark.parametrize(
    "text",
    [
        "Sony DSC-W300 black",
        "sony dsc w300",
        "DSCW300, Sony",
        "Sony \uff24\uff33\uff23\uff0d\uff37\uff13\uff10\uff10",
        "sony (dsc.w300)",
    ],
)
def test_one_model_code_is_one_key(text: str) -> None:
    assert "DSCW300" in codes(text)


@pytest.mark.parametrize("text", ["ISBN: 978-3-16-148410-0", "9783161484100", "gtin:978.316.1484100"])
def test_article_numbers_lose_their_dashes(text: str) -> None:
    assert codes(text) == {"9783161484100"}


def test_codes_stand_out_of_chinese_and_korean_text() -> None:
    assert "MC106" in codes("2020适用马自达MC-106车载充气床")
    assert "AB123" in codes("나이키 운동화 AB-123 정품")


@pytest.mark.parametrize("text", ["", "summer dress", "size: 42", "V8", "12345", "x" * 20 + "12345"])
def test_words_sizes_and_monsters_are_no_codes(text: str) -> None:
    assert codes(text) == set()


def test_two_numbers_are_not_joined() -> None:
    assert codes("100 500 70") == set()


def test_a_stem_drops_the_letters_at_the_end() -> None:
    assert stems({"KDL46XBRB", "KDL46", "9783161484100", "AB12"}) == {"KDL46"}
    assert stems({"A12B"}) == set()  # too short to tell anything
    one, other = Item("1", title="dav-hdx279w"), Item("2", title="Sony DAVHDX279WC")
    assert title_keys(one) & title_keys(other) == code_keys(one) & code_keys(other) == {"DAVHDX279"}


def test_words_of_scripts_without_blanks_are_pairs_of_characters() -> None:
    assert words("高领复古 印花T恤") == {"高领", "领复", "复古", "印花", "t", "恤"}
    assert words("운동화를") & words("운동화") == {"운동", "동화"}
    assert words("Café CRÈME, 50%_off") == {"café", "crème", "50", "off"}


def test_brand_is_one_of_the_words() -> None:
    assert {"acme", "chair"} <= title_keys(Item("1", title="Chair", brand="ACME"))


def test_codes_of_attributes_count_whatever_they_are_called() -> None:
    one = Item("1", attributes={"货号": ("ab-1234",), "color": ("red",)})
    other = Item("2", title="Shoe, AB1234")
    assert code_keys(one) == code_keys(other) == {"AB1234"}


def test_attribute_values_are_compared_without_case_width_and_punctuation() -> None:
    one = Item("1", attributes={"Material ": ("\uff37ool.", "  SILK  blend"), "note": ("--", "x" * 300)})
    assert attribute_keys(one) == {"material=wool", "material=silk blend"}
    # A value says nothing without its attribute.
    assert not attribute_keys(Item("2", attributes={"inner": ("wool",)})) & attribute_keys(one)


def test_names_of_attributes_are_compared_as_everywhere() -> None:
    spellings = ("Colour", " COLOUR:", "\uff23olour")
    assert {frozenset(attribute_keys(Item("1", attributes={name: ("red",)}))) for name in spellings} == {
        frozenset({"colour=red"})
    }
    assert attribute_keys(Item("1", attributes={"-": ("red",)})) == {"-=red"}


def test_an_item_without_texts_shares_nothing() -> None:
    assert title_keys(Item("1")) == code_keys(Item("1")) == attribute_keys(Item("1")) == set()


def test_a_title_of_100_kilobytes_has_as_many_keys_as_its_beginning() -> None:
    title = " ".join(f"word{number}" for number in range(12_000))
    assert len(title) > 100_000
    assert 0 < len(title_keys(Item("1", title=title))) < 2_000
