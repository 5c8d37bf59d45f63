"""From raw exhibitions to training, validation and test data: which are worth learning from, and no leaks.

Each rule is one function. The published procedure (the code that came with CLIK) and where this one differs by
default, because the published rule looks inverted or leaks; ``RefineOptions.published()`` selects theirs:

* After de-leakage an exhibition was kept with fewer than 5 labels above 0, or with two distinct labels. Here it needs
  5 labels above 0 *and* two distinct ones, as in the first step.
* At the end an exhibition was skipped with fewer than 5 labels of *zero*, which throws away those where everything
  sold and keeps those where nothing did. Here it is skipped with fewer than 5 above 0.
* Only validation was kept clear of training; test was not. Here both are, and the last step refines test as well.
* Validation and test shared products and names, so the epoch that validation chose was chosen on test's pictures as
  well. Here validation is kept clear of test before it is cut to candidates.
* Exhibitions alone in their category were dropped. Here they are split together, as one category.

Before all of this a plan was collected only where at least 50 of its members, and half of them or more, were for sale
and had a picture: the rest of others says little of what was clicked. These are the first two rules.

The sizes are parameters: a shop with twenty plans of ten products lowers them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shopvision.errors import UserError
from shopvision.selection.clik.exhibition_filters import (
    distinct_labels,
    keep_available,
    keep_available_share,
    keep_distinct,
    keep_positive,
    keep_positive_or_distinct,
    keep_products,
    positive_labels,
)
from shopvision.selection.clik.exhibitions import Exhibition, RankingData, RuleRecord
from shopvision.selection.clik.weighted_sampling import tie_broken, weighted_sample

Split = Literal["train", "valid", "test"]
HeldOut = Literal["valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
HELD_OUT: tuple[HeldOut, ...] = ("valid", "test")


class RefineOptions(BaseModel):
    """Sizes and choices of the rules; defaults are the published ones where the module says no other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_available: int | None = Field(
        None, ge=0, description="members for sale with a picture that an exhibition needs; by default min_products"
    )
    min_available_share: float = Field(0.5, ge=0, le=1, description="share of its members that these are at least")
    min_positive: int = Field(5, ge=0, description="labels above 0 that an exhibition needs")
    min_distinct_labels: int = Field(2, ge=1, description="1 lets plain membership pass, for topic matching alone")
    subsample: int | None = Field(None, ge=1, description="products drawn from each exhibition before the split")
    fractions: tuple[float, float, float] = Field((0.7, 0.2, 0.1), description="of train, valid and test")
    lone_categories: Literal["together", "drop"] = Field("together", description="exhibitions alone in their category")
    candidates: int = Field(50, ge=2, description="products of each valid and test exhibition")
    min_products: int = Field(50, ge=1, description="products that an exhibition of any split needs in the end")
    clear_of: tuple[HeldOut, ...] = Field(HELD_OUT, description="splits that train must not share with")
    valid_clear_of_test: bool = Field(default=True, description="validation chooses the epoch: keep test out of it")
    shared_products: bool = Field(default=False, description="let exhibitions share products, for a shop of few plans")
    cut_above: int = Field(100, ge=1, description="products above which an exhibition is cut")
    cut_to: int = Field(75, ge=1, description="products that are left of it, those of the highest labels")
    last_step: tuple[Split, ...] = Field(SPLITS, description="splits made unique")
    inverted_rules: bool = Field(default=False, description="the two published rules that look inverted")
    seed: int = 27

    @model_validator(mode="after")
    def _possible(self) -> RefineOptions:
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:  # what adding decimals may lose
            raise ValueError("fractions are not negative and sum to 1, such as [0.7, 0.2, 0.1]")
        if self.cut_to > self.cut_above:
            raise ValueError("cut_to is at most cut_above")
        if self.candidates < self.min_products and self.fractions[0] < 1:
            raise ValueError("candidates is at least min_products, or no valid exhibition would be left")
        return self

    @classmethod
    def published(cls) -> RefineOptions:
        """Every choice as the code that came with CLIK makes it."""
        return cls(
            subsample=50,
            lone_categories="drop",
            clear_of=("valid",),
            valid_clear_of_test=False,
            last_step=("train", "valid"),
            inverted_rules=True,
        )


def sample_products(data: RankingData, size: int, generator: np.random.Generator) -> RankingData:
    """``size`` products of each exhibition, in proportion to label + U * 1e-8 without replacement (published: 50).

    Exhibitions of fewer products are dropped.
    """
    chosen = []
    for exhibition in data.exhibitions:
        if len(exhibition.products) >= size:
            weights = tie_broken(exhibition.labels, generator)
            chosen.append(exhibition.keep(np.sort(weighted_sample(weights, size, generator))))
    return data.with_exhibitions(chosen)


def split(
    data: RankingData,
    fractions: Sequence[float],
    generator: np.random.Generator,
    lone_categories: Literal["together", "drop"] = "together",
) -> dict[str, RankingData]:
    """Exhibitions into train, valid and test (published: 0.7, 0.2, 0.1), in every category in these proportions.

    Exhibitions are lined up by category, shuffled within it, and each goes to the split that lacks most, so that whole
    and categories keep to the fractions within about one exhibition.

    Args:
        data: the exhibitions.
        fractions: of train, valid and test; they sum to 1.
        generator: source of randomness.
        lone_categories: exhibitions alone in their category are split together, or dropped (published).
    """
    sizes = Counter(exhibition.category for exhibition in data.exhibitions)
    strata: dict[str | None, list[Exhibition]] = defaultdict(list)
    for exhibition in data.exhibitions:
        strata[exhibition.category if sizes[exhibition.category] > 1 else None].append(exhibition)
    lone = strata.pop(None, [])
    lined_up = [strata[category] for category in sorted(strata, key=str)]
    if lone_categories == "together":
        lined_up.append(lone)
    parts: dict[str, list[Exhibition]] = {name: [] for name in SPLITS}
    due = np.zeros(len(SPLITS))
    for stratum in generator.permutation(len(lined_up)).tolist():
        members = lined_up[stratum]
        for place in generator.permutation(len(members)).tolist():
            due += fractions
            chosen = int(np.argmax(due))
            due[chosen] -= 1
            parts[SPLITS[chosen]].append(members[place])
    return {
        name: data.with_exhibitions(sorted(part, key=lambda exhibition: exhibition.exhibition_id))
        for name, part in parts.items()
    }


def without_leaks(data: RankingData, held_out: Iterable[RankingData], *, products: bool = True) -> RankingData:
    """``data`` without exhibitions whose name, and (``products``) rows whose product, is in a held-out split."""
    held = [exhibition for data in held_out for exhibition in data.exhibitions]
    names = {exhibition.topic.name for exhibition in held}
    taken = np.zeros(len(data.products), bool)
    for exhibition in held if products else ():
        taken[exhibition.products] = True
    kept = [exhibition for exhibition in data.exhibitions if exhibition.topic.name not in names]
    return _filled(data, [exhibition.keep(~taken[exhibition.products]) for exhibition in kept])


def unique_names(data: RankingData) -> RankingData:
    """One exhibition of each name: that with the first id."""
    first: dict[str, Exhibition] = {}
    for exhibition in data.exhibitions:
        first.setdefault(exhibition.topic.name, exhibition)
    return data.with_exhibitions(first.values())


def unique_products(data: RankingData, accept: Callable[[Exhibition], bool], above: int, to: int) -> RankingData:
    """Every product in one exhibition only: walk by id, leave out what an earlier one took.

    Args:
        data: the exhibitions.
        accept: whether what is left of an exhibition is worth keeping; one that is not takes nothing.
        above: an exhibition left with more products is cut (published: 100)
        to: to so many, those of the highest labels (published: 75).
    """
    taken = np.zeros(len(data.products), bool)
    kept = []
    for exhibition in data.exhibitions:
        rest = exhibition.keep(~taken[exhibition.products])
        if not accept(rest):
            continue
        if len(rest.products) > above:
            rest = rest.keep(np.arange(to))
        taken[rest.products] = True
        kept.append(rest)
    return data.with_exhibitions(kept)


def refine(data: RankingData, options: RefineOptions | None = None) -> tuple[dict[str, RankingData], list[RuleRecord]]:
    """Every rule in turn.

    Args:
        data: as it was read.
        options: sizes and choices.

    Returns:
        The splits ``train``, ``valid`` and ``test``, and what each rule dropped.

    Raises:
        UserError: nothing is left of a split that should hold something; the message names the rule.
    """
    options = options or RefineOptions()
    splits, log = apply_rules(data, options)
    for name, fraction in zip(SPLITS, options.fractions, strict=True):
        if fraction and not splits[name].exhibitions:
            own = (record for record in log if record.split in (name, None) and record.exhibitions_before)
            emptied = next((record for record in own if not record.exhibitions_after), None)
            reason = f"'{emptied.rule}' dropped the last" if emptied else "there are too few to split"
            raise UserError(
                f"No exhibition is left for {name}: {reason} ({len(data.exhibitions):,} were read). Lower the sizes of "
                "[refine]; `shopvision data describe` shows what each rule drops."
            )
    return splits, log


def apply_rules(data: RankingData, options: RefineOptions) -> tuple[dict[str, RankingData], list[RuleRecord]]:
    """Like :func:`refine`, but splits may end up empty."""
    for_subsample, for_split, for_cut = np.random.default_rng(options.seed).spawn(3)
    log: list[RuleRecord] = []

    def note(rule: str, before: RankingData, after: RankingData, name: str | None = None) -> RankingData:
        counts = (len(before.exhibitions), len(after.exhibitions), before.rows, after.rows)
        log.append(RuleRecord(rule, *counts, split=name))
        return after

    least = options.min_products if options.min_available is None else options.min_available
    data = note("members available", data, keep_available(data, least))
    data = note("share of members available", data, keep_available_share(data, options.min_available_share))
    data = note("labels above 0", data, keep_positive(data, options.min_positive))
    if options.subsample:
        data = note("subsample", data, sample_products(data, options.subsample, for_subsample))
    data = note("distinct labels", data, keep_distinct(data, options.min_distinct_labels))
    splits = split(data, options.fractions, for_split, options.lone_categories)
    note("split", data, data.with_exhibitions([item for part in splits.values() for item in part.exhibitions]))
    # Test first: what it shows must be settled before validation is kept clear of it.
    for held in reversed(HELD_OUT):
        if held == "valid" and options.valid_clear_of_test:
            part, test = splits["valid"], [splits["test"]]
            clear = without_leaks(part, test, products=not options.shared_products)
            splits["valid"] = note("leaks", part, clear, "valid")
        part = splits[held]
        splits[held] = note("cut to candidates", part, sample_products(part, options.candidates, for_cut), held)

    train, held_out = splits["train"], [splits[held] for held in options.clear_of]
    train = note("leaks", train, without_leaks(train, held_out, products=not options.shared_products), "train")
    train = note("products left", train, keep_products(train, options.min_products), "train")
    splits["train"] = note("labels left", train, _worth_training(train, options), "train")
    for name in SPLITS:
        if name in options.last_step:
            splits[name] = _made_unique(splits[name], options, name, note)
        part = splits[name]
        splits[name] = note("enough products", part, keep_products(part, options.min_products), name)
    return splits, log


def _worth_training(train: RankingData, options: RefineOptions) -> RankingData:
    if options.inverted_rules:
        return keep_positive_or_distinct(train, options.min_positive)
    return keep_distinct(keep_positive(train, options.min_positive), options.min_distinct_labels)


def _made_unique(
    part: RankingData,
    options: RefineOptions,
    name: str,
    note: Callable[[str, RankingData, RankingData, str], RankingData],
) -> RankingData:
    part = note("unique names", part, unique_names(part), name)
    if options.shared_products:
        return part

    def accept(rest: Exhibition) -> bool:
        positive = positive_labels(rest)
        enough = (len(rest.labels) - positive if options.inverted_rules else positive) >= options.min_positive
        return (
            enough
            and len(rest.products) >= options.min_products
            and distinct_labels(rest) >= options.min_distinct_labels
        )

    return note("unique products", part, unique_products(part, accept, options.cut_above, options.cut_to), name)


def _filled(data: RankingData, exhibitions: Iterable[Exhibition]) -> RankingData:
    return data.with_exhibitions(exhibition for exhibition in exhibitions if len(exhibition.products))
