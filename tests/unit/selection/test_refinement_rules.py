"""Each refinement rule on a table made by hand, and all of them together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from shopvision.errors import UserError
from shopvision.selection.clik import exhibition_filters as filters
from shopvision.selection.clik import refine as rules
from shopvision.selection.clik.exhibitions import RankingData
from shopvision.selection.clik.refine import RefineOptions, apply_rules, refine
from tests.unit.selection.exhibitions import contents, data, exhibition

ZEROS = [0.0] * 5


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_plans_worth_collecting() -> None:
    table = data(
        exhibition("whole", [1, 1, 0]), exhibition("half", [1, 1, 0], gone=3), exhibition("less", [1, 1, 0], gone=4),
        exhibition("small", [1, 1]),
    )  # fmt: skip
    assert list(contents(filters.keep_available(table, 3))) == ["whole", "half", "less"]
    assert list(contents(filters.keep_available_share(table, 0.5))) == ["whole", "half", "small"]


@pytest.mark.parametrize(
    ("gone", "least", "kept"), [(0, None, True), (51, None, False), (51, 51, False), (0, 51, False)]
)
def test_they_are_the_first_rules(gone: int, least: int | None, *, kept: bool) -> None:
    """50 members with a picture, half of all or more, unless the options say otherwise."""
    options = RefineOptions(fractions=(1, 0, 0), min_available=least)
    table = data(exhibition("e", np.arange(50.0).tolist(), gone=gone))
    splits, log = apply_rules(table, options)
    assert [record.rule for record in log[:2]] == ["members available", "share of members available"]
    assert bool(splits["train"].exhibitions) is kept
    assert bool(log[1].exhibitions_after) is kept


def test_labels_above_zero() -> None:
    table = data(exhibition("five", [1, 1, 1, 1, 1, 0]), exhibition("four", [1, 1, 1, 1, 0, 0]))
    assert list(contents(filters.keep_positive(table, 5))) == ["five"]


def test_distinct_labels() -> None:
    table = data(exhibition("two", [1, 2, 2]), exhibition("one", [2, 2, 2]))
    assert list(contents(filters.keep_distinct(table, 2))) == ["two"]
    assert list(contents(filters.keep_distinct(table, 1))) == ["two", "one"]


def test_published_leftover_rule_is_inverted() -> None:
    table = data(
        exhibition("hardly sold", [1, *ZEROS]), exhibition("all alike", [2.0] * 6), exhibition("good", [1, 2, 3, 4, 5])
    )
    assert list(contents(filters.keep_positive_or_distinct(table, 5))) == ["hardly sold", "good"]


def test_enough_products() -> None:
    table = data(exhibition("three", [1, 0, 0]), exhibition("two", [1, 0]))
    assert list(contents(filters.keep_products(table, 3))) == ["three"]


def test_sampled_products_are_drawn_by_label() -> None:
    """With labels 3, 1 and 0 one product is the first in 3 of 4 draws; a zero is drawn after all others only."""
    table = data(exhibition("e", [3, 1, 0, 0]), exhibition("small", [1]))
    draws = [contents(rules.sample_products(table, 1, generator(seed))) for seed in range(2000)]
    counts = Counter(draw["e"][0] for draw in draws)
    assert set(counts) == {0, 1}
    assert counts[0] / 2000 == pytest.approx(0.75, abs=0.03)
    three = [contents(rules.sample_products(table, 3, generator(seed))) for seed in range(200)]
    assert {tuple(draw["e"]) for draw in three} == {(0, 1, 2), (0, 1, 3)}
    assert all("small" not in draw for draw in three)  # fewer than 3 products


def test_split_keeps_whole_and_categories_in_proportion() -> None:
    table = data(
        *(exhibition(f"{category}{number}", [1], category=category) for category in "abcd" for number in range(50)),
        *(exhibition(f"lone{number}", [1], category=f"lone{number}") for number in range(10)),
    )
    splits = rules.split(table, (0.7, 0.2, 0.1), generator())
    assert {name: len(part.exhibitions) for name, part in splits.items()} == {"train": 147, "valid": 42, "test": 21}
    for category in ("a", "b", "c", "d"):
        counts = [sum(e.category == category for e in part.exhibitions) for part in splits.values()]
        assert np.abs(np.array(counts) - [35, 10, 5]).max() <= 1
    lone = [sum(e.category.startswith("lone") for e in part.exhibitions) for part in splits.values()]
    assert np.abs(np.array(lone) - [7, 2, 1]).max() <= 1
    names = [e.exhibition_id for part in splits.values() for e in part.exhibitions]
    assert sorted(names) == sorted(contents(table))
    dropped = rules.split(table, (0.7, 0.2, 0.1), generator(), "drop")
    assert [len(part.exhibitions) for part in dropped.values()] == [140, 40, 20]
    assert contents(rules.split(table, (0.7, 0.2, 0.1), generator(1))["test"]) != contents(splits["test"])


def test_no_leaks_of_products_and_names() -> None:
    train = data(
        exhibition("a", {0: 3, 1: 2, 2: 1}), exhibition("same name", {5: 1}, title="held"), exhibition("gone", {9: 1})
    )
    held = data(exhibition("held", {1: 1, 9: 1}))
    assert contents(rules.without_leaks(train, [held])) == {"a": [0, 2]}
    assert contents(rules.without_leaks(train, [held], products=False)) == {"a": [0, 1, 2], "gone": [9]}


def test_unique_names() -> None:
    table = data(exhibition("1", [1], title="x"), exhibition("2", [1], title="y"), exhibition("3", [1], title="x"))
    assert list(contents(rules.unique_names(table))) == ["1", "2"]


def test_unique_products() -> None:
    table = data(
        exhibition("1", {0: 4, 1: 3, 2: 2, 3: 1}),
        exhibition("2", {0: 4, 1: 3, 4: 2}),  # only product 4 is left: too few
        exhibition("3", {3: 5, 4: 4, 5: 3}),
    )
    result = rules.unique_products(table, lambda rest: len(rest.products) >= 2, above=3, to=2)
    assert contents(result) == {"1": [0, 1], "3": [3, 4, 5]}  # 2 takes nothing, and what 1 was cut of is free


def test_published_choices_differ_where_the_rules_look_inverted() -> None:
    """One name per kind: what sold everywhere goes, and what hardly sold stays, only under the published rules."""
    sizes = {"min_products": 6, "candidates": 6, "fractions": (1, 0, 0), "lone_categories": "together"}
    table = data(
        exhibition("sold", [6, 5, 4, 3, 2, 1]), exhibition("half", [5, 4, 3, 2, 1, *ZEROS], first=10, category="d")
    )
    kept = {
        inverted: set(contents(apply_rules(table, RefineOptions(**sizes, inverted_rules=inverted))[0]["train"]))
        for inverted in (False, True)
    }
    assert kept == {False: {"sold", "half"}, True: {"half"}}
    assert RefineOptions.published().model_dump(exclude_defaults=True) == {
        "subsample": 50, "lone_categories": "drop", "clear_of": ("valid",), "last_step": ("train", "valid"),
        "inverted_rules": True, "valid_clear_of_test": False,
    }  # fmt: skip


def shop(exhibitions: int = 120, products: int = 60, seed: int = 1) -> RankingData:
    """Exhibitions that overlap: each draws its products from a window it shares with its neighbours."""
    draw = generator(seed)
    table = []
    for number in range(exhibitions):
        chosen = draw.choice(np.arange(20 * number, 20 * number + 2 * products), products, replace=False)
        labels = np.where(draw.random(products) < 0.5, draw.integers(1, 9, products), 0)
        pairs = dict(zip(chosen.tolist(), labels.tolist(), strict=True))
        table.append(exhibition(f"{number:03d}", pairs, category=f"c{number % 4}", title=f"t{number % 110}"))
    return data(*table)


OPTIONS = RefineOptions(min_products=10, candidates=20)


def test_validation_sees_nothing_of_test() -> None:
    """Validation chooses the epoch: with test's pictures in it, test would no longer be unseen."""

    def shared(**changes: bool) -> tuple[int, int]:
        splits, _ = refine(shop(), OPTIONS.model_copy(update=changes))
        valid, test = splits["valid"], splits["test"]
        names = [{item.topic.name for item in part.exhibitions} for part in (valid, test)]
        return len(np.intersect1d(valid.used_products(), test.used_products())), len(names[0] & names[1])

    assert shared() == (0, 0)
    assert shared(valid_clear_of_test=False)[0] > 0


def test_splits_share_neither_products_nor_names() -> None:
    splits, log = refine(shop(), OPTIONS)
    train = splits["train"]
    for name, part in splits.items():
        taken = np.concatenate([e.products for e in part.exhibitions])
        assert len(np.unique(taken)) == len(taken)
        assert all(np.all(np.diff(e.labels) <= 0) for e in part.exhibitions)
        assert min(len(e.products) for e in part.exhibitions) >= 10
        if name != "train":
            assert not np.intersect1d(taken, train.used_products()).size
            assert not {e.topic.name for e in part.exhibitions} & {e.topic.name for e in train.exhibitions}
            assert max(len(e.products) for e in part.exhibitions) <= 20
    assert [(record.rule, record.split) for record in log][:5] == [
        ("members available", None), ("share of members available", None), ("labels above 0", None),
        ("distinct labels", None), ("split", None),
    ]  # fmt: skip
    last = {record.split: (record.exhibitions_after, record.rows_after) for record in log}
    assert all(last[name] == (len(part.exhibitions), part.rows) for name, part in splits.items())
    shared, _ = refine(shop(), OPTIONS.model_copy(update={"shared_products": True}))
    assert shared["train"].rows > 2 * train.rows


def test_same_seed_same_splits_in_every_process() -> None:
    def marks(seed: int) -> list[str]:
        splits, _ = refine(shop(), OPTIONS.model_copy(update={"seed": seed, "subsample": 40}))
        return [part.fingerprint() for part in splits.values()]

    assert marks(27) == marks(27)
    assert marks(27) != marks(28)
    script = (
        "from tests.unit.selection.test_refinement_rules import *; "
        "print([part.fingerprint() for part in refine(shop(), OPTIONS)[0].values()])"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert other.stdout == f"{[part.fingerprint() for part in refine(shop(), OPTIONS)[0].values()]}\n"


def test_the_rule_that_leaves_nothing_is_named() -> None:
    with pytest.raises(UserError, match=r"No exhibition is left for valid: 'cut to candidates' dropped the last \(120"):
        refine(shop(), RefineOptions(min_products=5, candidates=61))
    with pytest.raises(UserError, match=r"for train: 'labels above 0' dropped the last"):
        refine(shop(), RefineOptions(min_positive=61))
    with pytest.raises(UserError, match=r"for test: there are too few to split \(2 were read\)"):
        refine(shop(2), OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.7, 0.2, 0.2)}, "sum to 1"),
        ({"cut_to": 101}, "cut_to is at most cut_above"),
        ({"candidates": 20}, "candidates is at least min_products"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RefineOptions.model_validate(options)
