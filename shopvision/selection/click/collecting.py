"""Pairs gathered one by one: repeated and mirrored ones merged, ties and rare sights left out and counted."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shopvision.errors import ItemError
from shopvision.selection.click.data import ClickData, ClickItem, Comparisons, Floats, Shown, as_rows

TIE, FEW, SAME, REPEATED = "equal rates", "too few impressions", "the same picture twice", "said before"
UNSURE = "not significant"


@dataclass
class _Counted:
    """Clicks and impressions of the two sides of a pair, the smaller picture number first."""

    clicks: list[float] = field(default_factory=lambda: [0.0, 0.0])
    impressions: list[float] = field(default_factory=lambda: [0.0, 0.0])


@dataclass(frozen=True)
class _Pair:
    item: int
    first: int
    second: int
    first_wins: bool
    clicks: tuple[float, float] = (math.nan, math.nan)
    views: tuple[float, float] = (math.nan, math.nan)
    p_value: float = math.nan


class ClickCollector:
    """Gathers what a source says. ``finish`` makes the data of it.

    A picture of an item is one, however many pairs it is in; a pair is one, whichever side is named first.
    """

    def __init__(self, source: str, *, min_impressions: float, max_p_value: float | None) -> None:
        """Start empty.

        Args:
            source: named in failures.
            min_impressions: a counted picture that was shown less often says nothing.
            max_p_value: counted pairs whose difference is as likely by luck alone are left out; None keeps all.
        """
        self._source, self._min_impressions, self._max_p_value = source, min_impressions, max_p_value
        self.items: list[ClickItem] = []
        self._items: dict[str, int] = {}
        self._pictures: dict[str, int] = {}
        self._addresses: list[str] = []
        self._ordered: dict[tuple[int, int, int], tuple[int, bool]] = {}
        self._counted: dict[tuple[int, int, int], _Counted] = {}
        self._logged: dict[int, dict[int, list[float]]] = {}
        self._left_out: Counter[str] = Counter()
        self._failures: list[ItemError] = []

    def fail(self, line: int, error: ItemError) -> None:
        """Note a record that cannot be used."""
        self._failures.append(ItemError(error.code, f"{self._source}: line {line}: {error.message}"))

    def item(self, item: ClickItem) -> int:
        """The row of an item.

        Raises:
            ItemError: ``contradiction``, the same id was described otherwise before.
        """
        row = self._items.setdefault(item.item_id, len(self.items))
        if row == len(self.items):
            self.items.append(item)
        elif self.items[row] != item:
            raise ItemError("contradiction", f"item {item.item_id!r} was described otherwise before; keep one form")
        return row

    def picture(self, key: str, address: str | None = None) -> int:
        """The row of a picture, known by ``key`` and lying at ``address``, which is the key where it is None."""
        row = self._pictures.setdefault(key, len(self._addresses))
        if row == len(self._addresses):
            self._addresses.append(key if address is None else address)
        return row

    def add_order(self, line: int, item: int, first: int, second: int, rates: tuple[float, float]) -> None:
        """Note which of two pictures has the higher rate, where nobody says how often they were shown.

        Raises:
            ItemError: ``contradiction``, the pair came before, the other way round.
        """
        if first == second:
            self._left_out[SAME] += 1
        elif rates[0] == rates[1]:
            self._left_out[TIE] += 1
        else:
            key, wins = (item, min(first, second), max(first, second)), (rates[0] > rates[1]) == (first < second)
            before = self._ordered.setdefault(key, (line, wins))
            if before[1] != wins:
                raise ItemError(
                    "contradiction", f"the pair has the other order in line {before[0]}; keep the right one"
                )
            if before[0] != line:
                self._left_out[REPEATED] += 1

    def add_counts(
        self, item: int, first: int, second: int, clicks: tuple[float, float], impressions: tuple[float, float]
    ) -> None:
        """Note how two pictures did that were shown by turns; counts of one pair add up.

        Raises:
            ItemError: ``broken_record``, more clicks than impressions.
        """
        for side in (0, 1):
            _require_rate(clicks[side], impressions[side])
        if first == second:
            self._left_out[SAME] += 1
            return
        key = (item, min(first, second), max(first, second))
        if key in self._counted:
            self._left_out[REPEATED] += 1
        counted = self._counted.setdefault(key, _Counted())
        order = (0, 1) if first < second else (1, 0)
        for side, given in enumerate(order):
            counted.clicks[side] += clicks[given]
            counted.impressions[side] += impressions[given]

    def add_log(self, item: int, picture: int, clicks: float, impressions: float) -> None:
        """Note how one picture of an item did; all its pictures are compared with each other.

        Raises:
            ItemError: ``broken_record``, more clicks than impressions.
        """
        _require_rate(clicks, impressions)
        counts = self._logged.setdefault(item, {}).setdefault(picture, [0.0, 0.0])
        counts[0] += clicks
        counts[1] += impressions

    def finish(self) -> ClickData:
        """The data: pairs in the order in which they first came."""
        ordered = [_Pair(*key, wins) for key, (_, wins) in self._ordered.items()]
        pairs = [*ordered, *self._pairs_of_counts(), *self._pairs_of_logs()]
        comparisons = Comparisons(
            items=as_rows([pair.item for pair in pairs]),
            first=as_rows([pair.first for pair in pairs]),
            second=as_rows([pair.second for pair in pairs]),
            first_wins=np.array([pair.first_wins for pair in pairs], bool),
            clicks=np.array([pair.clicks for pair in pairs], np.float64).reshape(-1, 2),
            views=np.array([pair.views for pair in pairs], np.float64).reshape(-1, 2),
            p_values=np.array([pair.p_value for pair in pairs], np.float64),
        )
        return ClickData(
            tuple(self.items),
            tuple(self._addresses),
            comparisons,
            self._shown(ordered),
            dict(self._left_out),
            tuple(self._failures),
        )

    def _pairs_of_counts(self) -> Iterator[_Pair]:
        for key, counted in self._counted.items():
            yield from self._compared(*key, counted.clicks, counted.impressions)

    def _pairs_of_logs(self) -> Iterator[_Pair]:
        for item, pictures in self._logged.items():
            for (one, (clicks, views)), (two, (clicks2, views2)) in itertools.combinations(pictures.items(), 2):
                yield from self._compared(item, one, two, [clicks, clicks2], [views, views2])

    def _compared(
        self, item: int, first: int, second: int, clicks: list[float], impressions: list[float]
    ) -> Iterator[_Pair]:
        """The pair, if it says anything."""
        if min(impressions) < max(self._min_impressions, 1.0):
            self._left_out[FEW] += 1
            return
        rates = [clicks[side] / impressions[side] for side in (0, 1)]
        if rates[0] == rates[1]:
            self._left_out[TIE] += 1
            return
        p_value = two_rates_p_value(clicks, impressions)
        if self._max_p_value is not None and p_value > self._max_p_value:
            self._left_out[UNSURE] += 1
            return
        counts = (clicks[0], clicks[1]), (impressions[0], impressions[1])
        yield _Pair(item, first, second, rates[0] > rates[1], *counts, p_value)

    def _shown(self, ordered: list[_Pair]) -> Shown:
        """Rates of pictures: pooled over their pairs, or the share of the pairs that they won."""
        totals: dict[tuple[int, int], list[float]] = {}

        def add(item: int, picture: int, good: float, all_: float) -> None:
            total = totals.setdefault((item, picture), [0.0, 0.0])
            total[0] += good
            total[1] += all_

        for pair in ordered:
            add(pair.item, pair.first, float(pair.first_wins), 1.0)
            add(pair.item, pair.second, float(not pair.first_wins), 1.0)
        for (item, *sides), counted in self._counted.items():
            for picture, clicks, views in zip(sides, counted.clicks, counted.impressions, strict=True):
                add(item, picture, clicks, views)
        for item, pictures in self._logged.items():
            for picture, (clicks, views) in pictures.items():
                add(item, picture, clicks, views)
        least = 1.0 if ordered else max(self._min_impressions, 1.0)
        kept = sorted(key for key, (_, views) in totals.items() if views >= least)
        return Shown(
            as_rows([item for item, _ in kept]),
            as_rows([picture for _, picture in kept]),
            np.array([totals[key][0] / totals[key][1] for key in kept], np.float64),
        )


def two_rates_p_value(clicks: list[float], impressions: list[float]) -> float:
    """How likely two equal rates would look at least as different: the two-sided z-test of pooled proportions."""
    total, shown = sum(clicks), sum(impressions)
    pooled = total / shown
    spread = math.sqrt(pooled * (1 - pooled) * sum(1 / views for views in impressions))
    if spread == 0:
        return 1.0
    z = (clicks[0] / impressions[0] - clicks[1] / impressions[1]) / spread
    return math.erfc(abs(z) / math.sqrt(2))


def _require_rate(clicks: float, impressions: float) -> None:
    if clicks > impressions:
        raise ItemError("broken_record", f"{clicks:g} clicks of {impressions:g} impressions; correct the counts")


def tiers(impressions: Floats, bounds: tuple[float, ...]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Names of tiers of impressions, and which pairs are in each; those that nobody counted are in none."""
    result = []
    for low, high in itertools.pairwise((0.0, *bounds, math.inf)):
        name = f"below {high:g}" if low == 0 else f"from {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"
        result.append((name, (impressions >= low) & (impressions < high)))
    return result
