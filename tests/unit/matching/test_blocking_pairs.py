"""Pairs out of memory, against counting by hand and comparing all with all."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from shopvision.errors import ItemError, UserError
from shopvision.index import scanning
from shopvision.items.item import Item
from shopvision.matching.blocking import (
    CandidatePair,
    blocking_recall,
    inverted,
    merging,
    pairs_of_items,
)
from shopvision.matching.options import BlockingOptions

ONLY_WORDS = BlockingOptions(sources=("words",), min_similarity=0)


def pairs_of(items: Iterable[Item], options: BlockingOptions, **others: object) -> dict[tuple[str, str], CandidatePair]:
    """By ids; each must have been given once, in order."""
    given = [pair for batch in pairs_of_items(items, options, **others) for pair in batch]  # type: ignore[arg-type]
    assert all(pair.left < pair.right for pair in given)
    assert len({(pair.left, pair.right) for pair in given}) == len(given)
    return {(pair.left, pair.right): pair for pair in given}


def random_items(count: int, seed: int = 0) -> list[Item]:
    generator = random.Random(seed)
    names = [f"w{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(60)]
    titles = [" ".join(generator.choices(names, k=5)) for _ in range(count)]
    return [Item(f"i{generator.randrange(10**6):06d}-{number}", title=title) for number, title in enumerate(titles)]


def cosines(items: list[Item]) -> dict[tuple[str, str], float]:
    """Of words weighted by log(1 + N / df), among those that two items have, computed pair by pair."""
    bags = {item.item_id: set(item.title.split()) for item in items}
    frequency = Counter(word for bag in bags.values() for word in bag)
    weight = {word: math.log(1 + len(items) / often) if often > 1 else 0.0 for word, often in frequency.items()}
    length = {name: math.sqrt(sum(weight[word] ** 2 for word in bag)) for name, bag in bags.items()}
    return {
        (a, b): sum(weight[word] ** 2 for word in bags[a] & bags[b]) / (length[a] * length[b])
        for a in bags
        for b in bags
        if a != b and bags[a] & bags[b]
    }


def nearest(similarity: dict[tuple[str, str], float], due: Iterable[str], k: int) -> set[tuple[str, str]]:
    pairs = set()
    for name in due:
        mine = sorted(((-value, b) for (a, b), value in similarity.items() if a == name))[:k]
        pairs |= {(min(name, b), max(name, b)) for _, b in mine}
    return pairs


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is done in parts is done in many."""
    monkeypatch.setattr(merging, "BATCH_ITEMS", 7)
    monkeypatch.setattr(inverted, "PARTITION", 50)
    monkeypatch.setattr(inverted, "BLOCK", 64)


@pytest.mark.usefixtures("small_parts")
def test_words_give_the_items_with_the_highest_cosine() -> None:
    items = random_items(150)
    right = cosines(items)
    found = pairs_of(items, ONLY_WORDS)  # 20 neighbours
    for (a, b), pair in found.items():
        assert pair.similarity == pytest.approx(right[a, b], abs=1e-4)
        assert pair.sources == ("words",)
    # Where similarities are equal either of them may stay, so what counts is how similar the neighbours are.
    for item in items:
        mine = sorted((value for (a, _), value in right.items() if a == item.item_id), reverse=True)[:20]
        got = sorted((p.similarity for key, p in found.items() if item.item_id in key), reverse=True)[: len(mine)]
        np.testing.assert_allclose(got, mine, atol=1e-4)


def test_parts_change_nothing(small_parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    items = random_items(150)
    in_parts = pairs_of(items, BlockingOptions(max_per_item=6))
    monkeypatch.undo()
    whole = pairs_of(items, BlockingOptions(max_per_item=6))
    assert in_parts == whole
    assert len(whole) > 300


def test_a_pair_is_given_once_whoever_finds_it(small_parts: None) -> None:
    # "hub" is among the nearest of every item, but has itself room for three.
    items = [Item("hub", title="aa bb cc dd ee ff gg hh")]
    items += [Item(f"i{n}", title=f"{a} {b}") for n, (a, b) in enumerate(zip("abcdefgh", "abcdefgh", strict=True))]
    items = [
        Item(item.item_id, title=" ".join(w * 2 if len(w) == 1 else w for w in item.title.split())) for item in items
    ]
    for ordered in (items, items[::-1]):
        found = pairs_of(ordered, BlockingOptions(sources=("words",), max_per_item=3))
        assert {(a, b) for a, b in found if "hub" in (a, b)} == {("hub", f"i{n}") for n in range(8)}


@pytest.mark.usefixtures("small_parts")
def test_due_items_look_among_all_others() -> None:
    items = random_items(120)
    due = {item.item_id for item in items[::9]}
    found = pairs_of(items, ONLY_WORDS, due=[*due, "unknown", *due])
    everything = pairs_of(items, ONLY_WORDS)
    assert found.keys() < everything.keys()
    assert all(due & set(pair) for pair in found)
    # What a due item finds does not depend on who else is due.
    assert found.keys() == set().union(*(pairs_of(items, ONLY_WORDS, due=[one]).keys() for one in due))


def test_nothing_is_due() -> None:
    assert list(pairs_of_items(random_items(5), ONLY_WORDS, due=[])) == []
    assert list(pairs_of_items([], BlockingOptions())) == []
    assert list(pairs_of_items([Item("a"), Item("b")], BlockingOptions())) == []


@pytest.mark.parametrize(("shared", "pairs"), [(2, 1), (5, 10), (6, 0)])
def test_a_value_that_too_many_share_is_no_evidence(shared: int, pairs: int) -> None:
    items = [Item(f"i{n}", attributes={"mpn": ("zx",) if n < shared else (f"unlike{n}",)}) for n in range(20)]
    found = pairs_of(items, BlockingOptions(rare_value_limit=5))
    assert len(found) == pairs
    assert all(pair.sources == ("attribute",) for pair in found.values())


def test_sources_of_a_pair_are_put_together() -> None:
    items = [
        Item("b", title="Camera W300-X", attributes={"sku": ("W300X",)}),
        Item("a", title="camera w300 x", attributes={"sku": ("w300x",)}),
        Item("c", title="tripod", attributes={"mpn": ("W-300-X",)}),
    ]
    found = pairs_of(items, BlockingOptions())
    assert {key: pair.sources for key, pair in found.items()} == {
        ("a", "b"): ("code", "attribute", "words"),
        ("a", "c"): ("code",),
        ("b", "c"): ("code",),
    }
    assert found["a", "b"].similarity == 1.0
    assert pairs_of(items, BlockingOptions(sources=("attribute",))).keys() == {("a", "b")}


def test_the_strongest_partners_stay() -> None:
    """Two sources outweigh one; then the more alike comes first."""
    items = [
        Item("query", title="red wool hat", attributes={"sku": ("zz-991",)}),
        Item("equal", title="red wool hat"),
        Item("both", title="red wool cap", attributes={"sku": ("zz-991",)}),
        Item("less", title="red shoe"),
    ]
    kept = [pairs_of(items, BlockingOptions(max_per_item=limit), due=["query"]).keys() for limit in (1, 2, 3)]
    assert kept == [
        {("both", "query")},
        {("both", "query"), ("equal", "query")},
        {("both", "query"), ("equal", "query"), ("less", "query")},
    ]


MEN, TOPS, TANKS, TOPSY, WOMEN, NONE = "Men", "Men/Tops", "Men > Tops > Tanks", "Men/Topsy", "Women/Tops", ""


@pytest.mark.parametrize(
    ("within", "apart"),
    [
        ("any", set()),
        ("root_category", {(category, WOMEN) for category in (MEN, TOPS, TANKS, TOPSY)}),
        (
            "category",
            {(category, WOMEN) for category in (MEN, TOPS, TANKS, TOPSY)} | {(TOPS, TOPSY), (TANKS, TOPSY)},
        ),
    ],
)
def test_categories_keep_items_apart(within: str, apart: set[tuple[str, str]]) -> None:
    categories = [MEN, TOPS, TANKS, TOPSY, WOMEN, NONE]
    items = [Item(str(n), title="same words", category=category) for n, category in enumerate(categories)]
    units = np.ones((6, 4), np.float32)
    expected = {
        (str(a), str(b))
        for a in range(6)
        for b in range(a + 1, 6)
        if not {(categories[a], categories[b]), (categories[b], categories[a])} & apart
    }
    for source in ("words", "text_vector"):
        options = BlockingOptions(sources=(source,), within=within)  # type: ignore[arg-type]
        assert pairs_of(items, options, text_vectors=units).keys() == expected


def test_a_category_path_given_beside_the_name_counts() -> None:
    items = [
        Item("a", title="lamp", category="Lamps", category_path="Home->Light->Lamps"),
        Item("b", title="lamp", category="Shades", category_path="Home->Light->Shades"),
        Item("c", title="lamp", category="Lamps", category_path="Cars->Lamps"),
    ]
    assert pairs_of(items, BlockingOptions()).keys() == {("a", "b")}


@pytest.mark.parametrize("exact", [True, False])
def test_vectors_give_the_nearest_items(monkeypatch: pytest.MonkeyPatch, exact: bool) -> None:
    generator = np.random.default_rng(0)
    given = (generator.normal(size=(60, 16))[generator.integers(0, 60, 3000)]).astype(np.float32)
    given += 0.2 * generator.normal(size=given.shape).astype(np.float32)
    given[7], given[8, 3] = 0, np.nan
    if not exact:
        monkeypatch.setattr(scanning, "EXACT_UP_TO", 100)
    # The second root category holds one item in a hundred: few of the cells that are looked at first have any.
    items = [Item(f"{n:04d}", category="B" if n % 100 == 0 else "A") for n in range(3000)]
    units = given / np.maximum(np.linalg.norm(given, axis=1, keepdims=True), 1e-9)
    roots = np.array([item.category for item in items])
    right = np.where((roots[:, None] == roots) & np.isfinite(units @ units.T), units @ units.T, -1)
    right[np.arange(3000), np.arange(3000)] = -1
    right[[7, 8]] = right[:, [7, 8]] = -1
    due = [*range(0, 3000, 100), *range(1, 3000, 60), 7, 8]
    options = BlockingOptions(sources=("text_vector",), neighbours=5)
    found = pairs_of(items, options, text_vectors=given, due=[items[row].item_id for row in due])
    expected = {
        (min(row, int(other)), max(row, int(other)))
        for row in due
        for other in np.argsort(-right[row], kind="stable")[:5]
        if right[row, other] > 0.1
    }
    got = {(int(a), int(b)) for a, b in found}
    assert not any({7, 8} & set(pair) for pair in got)
    # Half precision swaps neighbours that are nearly equally near.
    assert len(got & expected) >= (0.97 if exact else 0.9) * len(expected)
    for (a, b), pair in found.items():
        assert pair.similarity == pytest.approx(right[int(a), int(b)], abs=2e-3 if exact else 2e-2)


def test_items_are_near_by_any_of_their_pictures() -> None:
    east, north, up = np.eye(3, dtype=np.float32)
    nearly = (east + 0.2 * north) / np.linalg.norm(east + 0.2 * north)  # cosine 0.981 to east
    somewhat = (up + north) / np.sqrt(2)  # 0.707 to up
    items = [Item(name) for name in ("a", "b", "c", "d")]
    pictures = ([0, 0, 0, 1, 2, 3], np.stack([east, east, up, nearly, somewhat, -east]))
    found = pairs_of(items, BlockingOptions(), pictures=pictures)
    assert {key: pair.sources for key, pair in found.items()} == {
        ("a", "b"): ("picture", "same_picture"),
        ("a", "c"): ("picture",),
        ("b", "c"): ("picture",),
    }
    copies = pairs_of(items, BlockingOptions(sources=("same_picture",)), pictures=pictures)
    assert {key: pair.sources for key, pair in copies.items()} == {("a", "b"): ("same_picture",)}


def test_vectors_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "available_memory", lambda: 2**20)
    with pytest.raises(Exception, match=r"20 vectors of dimension 8 needs .* larger machine, or do without them"):
        pairs_of(random_items(20), BlockingOptions(), text_vectors=np.ones((20, 8), np.float32))


def test_an_id_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="'x' is given twice"):
        pairs_of([Item("x"), Item("y"), Item("x")], BlockingOptions())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_per_item": 0}, "max_per_item is 0"),
        ({"neighbours": -1}, "neighbours is -1"),
        ({"rare_value_limit": 1}, "at least 2"),
        ({"min_similarity": 1.5}, "from 0 to 1"),
        ({"sources": ("words", "smell")}, "give some of code, attribute"),
        ({"sources": ()}, "give some of"),
        ({"within": "family"}, "category, root_category, any"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        BlockingOptions(**wrong)  # type: ignore[arg-type]


def test_recall_counts_positives_pairs_and_sources() -> None:
    batches = [
        [CandidatePair("a", "b", ("code", "words"), 1.0), CandidatePair("a", "c", ("words",), 0.5)],
        [CandidatePair("b", "d", ("picture",), 0.5)],
    ]
    quality = blocking_recall([("b", "a"), ("b", "d"), ("c", "d"), ("a", "b"), ("d", "e")], batches)
    assert (quality.positives, quality.pairs, quality.recall) == (4, 3, 0.5)
    assert quality.by_source == {"code": 0.25, "words": 0.25, "picture": 0.25}
    assert quality.candidates_per_item(5) == pytest.approx(6 / 5)
    assert quality.reduction_ratio(5) == pytest.approx(1 - 3 / 10)
    assert blocking_recall([], []).recall == 1.0
    with pytest.raises(ItemError, match="paired with itself"):
        blocking_recall([("a", "a")], [])
