"""Click-through rates of products in plans, from a click log.

A log that counts impressions says them itself. Of one that notes clicks alone they follow by the published rule: every
click on a plan is a view of it, whether it went to a product or to the plan's own name, and a product was seen as often
as its plan was viewed. That gives a label for each plan and product (``plan``).

The published code has one for each product (``item``), the same in all its plans: its clicks in all of them by the
views of those in which it was clicked. A product that draws in one plan and bores in another then ranks alike in both,
and where it was seen without a click counts for nothing. A product nobody clicked was seen as often as the plan of the
row was viewed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shopvision.selection.clik.click_log import PLAN_NAME, ClickLog
from shopvision.selection.clik.exhibitions import RankingData

Per = Literal["plan", "item"]
Counts = NDArray[np.float64]
Numbers = NDArray[np.int64]


class ClickRates(NamedTuple):
    """Of each row (n,) float64: clicks, impressions, and the rate in [0, 1], NaN where nobody saw it."""

    clicks: Counts
    impressions: Counts
    ctr: Counts


@dataclass(frozen=True)
class LabelledRows:
    """Clicks on the products of exhibitions.

    Attributes:
        exhibitions: (n,) of each row, by position.
        products: (n,) likewise.
        rates: of each row.
        elsewhere: clicks of the log that went to no row and to no exhibition's name.
    """

    exhibitions: Numbers
    products: Numbers
    rates: ClickRates
    elsewhere: float


def label_by_clicks(data: RankingData, log: ClickLog, *, per: Per = "plan", min_impressions: float = 1) -> LabelledRows:
    """The click-through rate of every row of ``data``.

    Args:
        data: exhibitions, whose labels do not matter.
        log: of these and maybe other plans.
        per: a label for each plan and product, or for each product (published).
        min_impressions: a product that was seen less often has no label.
    """
    exhibitions = np.repeat(np.arange(len(data.exhibitions)), [len(one.products) for one in data.exhibitions])
    products = np.concatenate([one.products for one in data.exhibitions]).astype(np.int64)
    plan_numbers = np.array([log.plans.get(one.exhibition_id, -1) for one in data.exhibitions], np.int64)
    used = data.used_products()
    product_numbers = np.full(len(data.products), -1, np.int64)
    product_numbers[used] = [log.products.get(data.products.ids[int(product)], -1) for product in used]
    row_plans, row_products = plan_numbers[exhibitions], product_numbers[products]
    rates = click_rates(log, row_plans, row_products, per)
    rates.ctr[rates.impressions < min_impressions] = np.nan
    here = np.isin(_keys(log.pair_plans, log.pair_products), _keys(row_plans, row_products))
    here |= (log.pair_products == PLAN_NAME) & np.isin(log.pair_plans, plan_numbers)
    return LabelledRows(exhibitions, products, rates, float(log.clicks[~here].sum()))


def click_rates(log: ClickLog, plans: Numbers, products: Numbers, per: Per = "plan") -> ClickRates:
    """Clicks, impressions and rates of products in plans.

    Args:
        log: which numbers both.
        plans: (n,) the plan of each row, -1 where the log does not know it.
        products: (n,) the product of each row, likewise.
        per: see the module's docstring.
    """
    # Of plans, where impressions are not counted.
    views: Counts = np.bincount(log.pair_plans, log.clicks, len(log.plans)).astype(np.float64)
    seen = views[log.pair_plans] if log.impressions is None else log.impressions
    in_plan = _sums(_keys(log.pair_plans, log.pair_products), (log.clicks, seen), _keys(plans, products))
    if log.impressions is None:
        in_plan[1] = np.where(plans >= 0, views[plans], 0.0)
    if per == "plan":
        return _rates(*in_plan)
    was_clicked = np.ones(len(seen), bool) if log.impressions is not None else log.clicks > 0
    clicks, impressions = _sums(log.pair_products[was_clicked], (log.clicks[was_clicked], seen[was_clicked]), products)
    return _rates(clicks, np.where(impressions > 0, impressions, in_plan[1]))


def _keys(plans: Numbers, products: Numbers) -> Numbers:
    """One number for each pair; -1 where plan or product is unknown."""
    keys: Numbers = np.where((plans < 0) | (products < 0), -1, plans << 32 | products)
    return keys


def _sums(keys: Numbers, values: tuple[Counts, ...], wanted: Numbers) -> list[Counts]:
    """The sums of the values of each wanted key; 0 where it is absent."""
    known, place = np.unique(keys, return_inverse=True)
    at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    there = known[at] == wanted
    return [np.where(there, np.bincount(place, column, len(known))[at], 0.0) for column in values]


def _rates(clicks: Counts, impressions: Counts) -> ClickRates:
    ctr = np.full(len(clicks), np.nan)
    np.divide(clicks, impressions, out=ctr, where=impressions > 0)
    return ClickRates(clicks, impressions, ctr)
