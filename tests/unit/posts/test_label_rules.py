"""Each rule by its name: which posts give pairs, and which products of them."""

from __future__ import annotations

import math

import pytest

from shopvision.errors import ItemError, UserError
from shopvision.fashion.detection.regions import Region
from shopvision.fashion.posts import rules
from shopvision.fashion.posts.records import MAX_PRODUCTS, SocialPost, TaggedProduct, post_from_record
from shopvision.fashion.posts.rules import LabelRules, SeenThumbnail
from tasks.label_posts import LabelParams

RULES = LabelRules()
CLASSES = frozenset({"bag", "shoes", "top"})
LARGE = (200, 300)


def garments(*labels: str) -> list[Region]:
    """The first one is the surest."""
    return [Region((0, 0, 10, 10 + place), label, 0.9 - place / 10) for place, label in enumerate(labels)]


def products(*names: str) -> list[TaggedProduct]:
    return [TaggedProduct(name, f"file:///{name}.jpg") for name in names]


def test_indexed_classes_are_those_of_both_models_but_for_what_is_no_garment() -> None:
    detector, classifier = ("bag", "glove", "shoes", "etc"), ("bag", "dress", "shoes", "etc")
    assert rules.indexed_classes(detector, classifier, RULES) == {"bag", "shoes"}
    assert rules.indexed_classes(detector, classifier, LabelRules(classes=("bag",))) == {"bag"}
    with pytest.raises(UserError, match="The detector knows no class 'dress', only bag, glove, shoes, etc"):
        rules.indexed_classes(detector, classifier, LabelRules(classes=("bag", "dress")))
    with pytest.raises(UserError, match="have no class in common"):
        rules.indexed_classes(("glove", "etc"), classifier, RULES)


def test_a_post_needs_a_product_with_a_thumbnail() -> None:
    assert rules.reject_products([]) == "no_products"
    assert rules.reject_products([TaggedProduct("a", None)]) == "no_thumbnails"
    assert rules.reject_products([TaggedProduct("a", None), *products("b")]) is None


def test_only_garments_of_indexed_classes_count() -> None:
    kept = rules.of_classes(garments("top", "glove", "glove", "bag"), CLASSES)
    assert [garment.label for garment in kept] == ["top", "bag"]


@pytest.mark.parametrize(("shoes", "too_many"), [(0, False), (2, False), (3, True)])
def test_more_than_two_shoes_are_several_people(shoes: int, *, too_many: bool) -> None:
    assert rules.too_many_shoes(garments(*["shoes"] * shoes, "top", "bag"), RULES) == too_many
    assert not rules.too_many_shoes(garments(*["shoes"] * shoes), LabelRules(max_shoes=3))
    assert not rules.too_many_shoes(garments(*["shoes"] * shoes), LabelRules(shoes="sandals"))


def test_what_one_wears_one_of_stands_once() -> None:
    assert not rules.repeats_a_class(garments("top", "bag", "shoes", "shoes", "shoes"), RULES)
    assert rules.repeats_a_class(garments("top", "bag", "top"), RULES)


def test_a_photo_is_rejected_for_the_first_reason() -> None:
    assert rules.reject_photo([], RULES) == "no_garment"
    assert rules.reject_photo(garments("shoes", "shoes", "shoes", "top", "top"), RULES) == "too_many_shoes"
    assert rules.reject_photo(garments("top", "top"), RULES) == "repeated_class"
    assert rules.reject_photo(garments("shoes", "top", "shoes"), RULES) is None


def test_of_two_shoes_the_surer_one_counts() -> None:
    unordered = [Region((0, 0, 9, 9), "shoes", 0.6), Region((9, 9, 18, 18), "shoes", 0.7), *garments("top")]
    assert {label: one.score for label, one in rules.best_of_each_class(unordered).items()} == {
        "shoes": 0.7, "top": 0.9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (SeenThumbnail((200, 200), "top", 0.8), None),
        (SeenThumbnail((199, 900), "top", 0.99), "small_thumbnail"),
        (SeenThumbnail((900, 199), "etc", 0.1), "small_thumbnail"),
        (SeenThumbnail(LARGE, "top", 0.79), "unsure_class"),
        (SeenThumbnail(LARGE, "top", math.nan), "unsure_class"),
        (SeenThumbnail(LARGE, "etc", 0.99), "other_class"),
        (SeenThumbnail(LARGE, "glove", 0.99), "other_class"),
    ],
)
def test_a_thumbnail_is_large_and_surely_of_an_indexed_class(seen: SeenThumbnail, reason: str | None) -> None:
    assert rules.reject_thumbnail(seen, CLASSES, RULES) == reason


def test_each_product_is_decided_by_itself() -> None:
    """The published way ends at the first class without a garment, and what came before stays written."""
    tagged = [*products("bag", "top", "gone", "etc"), TaggedProduct("bare", None)]
    seen: dict[str, SeenThumbnail | str] = {
        "file:///bag.jpg": SeenThumbnail(LARGE, "bag", 0.9), "file:///top.jpg": SeenThumbnail(LARGE, "top", 0.9),
        "file:///gone.jpg": "not_found", "file:///etc.jpg": SeenThumbnail(LARGE, "etc", 0.9),
    }  # fmt: skip
    reason, pairs = rules.pair_up(tagged, seen, garments("top", "shoes"), CLASSES, RULES)
    assert reason is None
    assert {pair.product.product_id: pair.reason for pair in pairs} == {
        "bag": "not_in_photo", "top": None, "gone": "not_found", "etc": "other_class", "bare": "no_thumbnail",
    }  # fmt: skip
    assert [pair.garment.label for pair in pairs if pair.garment is not None] == ["top"]


def test_a_post_is_rejected_where_nothing_is_left_or_nobody_knows_which_is_which() -> None:
    top = {f"file:///{name}.jpg": SeenThumbnail(LARGE, "top", 0.9) for name in "ab"}
    unsure: dict[str, SeenThumbnail | str] = {"file:///a.jpg": SeenThumbnail(LARGE, "top", 0.1)}
    assert rules.pair_up(products("a"), unsure, garments("top"), CLASSES, RULES)[0] == "no_usable_thumbnail"
    assert rules.pair_up(products("a"), top, garments("bag"), CLASSES, RULES)[0] == "no_pair"
    tagged = [*products("a", "b"), TaggedProduct("bare", None)]
    reason, pairs = rules.pair_up(tagged, top, garments("top"), CLASSES, RULES)
    assert reason == "thumbnails_of_one_class"
    assert [pair.reason for pair in pairs] == [reason, reason, "no_thumbnail"]
    # Two of a class that is not indexed are no ambiguity.
    both: dict[str, SeenThumbnail | str] = {
        "file:///a.jpg": SeenThumbnail(LARGE, "etc", 0.9), "file:///b.jpg": SeenThumbnail(LARGE, "etc", 0.9),
        "file:///c.jpg": SeenThumbnail(LARGE, "top", 0.9),
    }  # fmt: skip
    assert rules.pair_up(products("a", "b", "c"), both, garments("top"), CLASSES, RULES)[0] is None


def test_only_what_pairs_are_made_of_changes_a_post() -> None:
    post = SocialPost("p", "file:///p.jpg", (TaggedProduct("a", "file:///a.jpg", "title"),))
    renamed = SocialPost("p", "file:///p.jpg", (TaggedProduct("a", "file:///a.jpg", "other"),))
    moved = SocialPost("p", "file:///p.jpg", (TaggedProduct("a", None, "title"),))
    assert post.content_hash() == renamed.content_hash() != moved.content_hash()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"post_id": ""}, "no post_id"),
        ({"post_id": "x" * 201}, "ids have 200 at most"),
        ({"photo": 7}, "photo is no text"),
        ({"photo": "p.jpg"}, "has no folder to start from"),
        ({"products": [7]}, "product 1 is 7"),
        ({"products": [{"product_id": "a", "thumbnail": "ftp://a"}]}, "product 1: thumbnail: uri 'ftp://a'"),
        ({"products": [{"product_id": "a"}, {"product_id": "a", "title": "b"}]}, "'a' is tagged twice, in two ways"),
        ({"products": [{"product_id": str(number)} for number in range(MAX_PRODUCTS + 1)]}, "has 1,000 at most"),
        ({"products": r'[{"product_id": "a", "title": "\u0000"}]'}, "products: a NUL character; remove it"),
        ({"products": r'[{"product_id": "\ud800"}]'}, "products is no list"),
        ({"products": "[" * 100_000}, "products is no list"),
    ],
)
def test_what_is_no_post_is_told_with_its_mend(fields: dict[str, object], words: str) -> None:
    record = {"post_id": "p", "photo": "https://shop/p.jpg", "products": []}
    assert post_from_record(record).products == ()
    with pytest.raises(ItemError) as refused:
        post_from_record({**record, **fields})
    assert words in refused.value.message


def test_posts_of_a_service_are_texts_that_can_be_stored() -> None:
    post = {"post_id": "p", "photo": "https://shop/p.jpg", "products": [{"product_id": "a", "title": "e\u0301"}]}
    assert LabelParams(posts=[post]).posts == [{**post, "products": [{"product_id": "a", "title": "\u00e9"}]}]
    for title, words in (("\0", "a NUL character"), ("\ud800", "not valid UTF-8")):
        with pytest.raises(ValueError, match=f"post 1: products: {words}"):
            LabelParams(posts=[{**post, "products": [{"product_id": "a", "title": title}]}])
