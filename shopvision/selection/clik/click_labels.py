"""Click-through rates from a click log that notes clicks but no impressions.

The rule: every click on a plan is a view of it, whether it went to a product or to the plan's own name. A clicked
product was seen as often as the plans in which it was clicked were viewed; its rate is one number, the same in every
plan. A product nobody clicked was seen as often as its plan was viewed, and its rate is 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shopvision.errors import UserError

PLAN_NAME = -1  # what was clicked, where it was the plan's own name


class ClickRates(NamedTuple):
    """Per row of the rows asked for: impressions (n,) float64 and click-through rate (n,) float64 in [0, 1]."""

    impressions: NDArray[np.float64]
    ctr: NDArray[np.float64]


def click_rates(
    clicked_plans: ArrayLike, clicked_products: ArrayLike, plans: ArrayLike, products: ArrayLike
) -> ClickRates:
    """Impressions and click-through rates of products in plans.

    Args:
        clicked_plans: (clicks,) whole numbers, the plan of each click.
        clicked_products: (clicks,) whole numbers, the product of each click; ``PLAN_NAME`` for the plan's own name.
        plans: (n,) the plan of each row that a label is wanted for.
        products: (n,) the product of each row.

    Raises:
        UserError: arrays that belong together differ in length.
    """
    log_plans, log_products = np.asarray(clicked_plans, np.int64), np.asarray(clicked_products, np.int64)
    row_plans, row_products = np.asarray(plans, np.int64), np.asarray(products, np.int64)
    if log_plans.shape != log_products.shape or row_plans.shape != row_products.shape:
        raise UserError("Clicks and rows are pairs of a plan and a product: give two arrays of one length each.")
    plan_ids, views = np.unique(log_plans, return_counts=True)
    pairs, pair_clicks = np.unique(
        np.stack([log_plans, log_products], axis=1)[log_products != PLAN_NAME], axis=0, return_counts=True
    )
    product_ids, product_of_pair = np.unique(pairs[:, 1], return_inverse=True)
    clicks = np.bincount(product_of_pair, pair_clicks, len(product_ids))
    seen = np.bincount(product_of_pair, views[np.searchsorted(plan_ids, pairs[:, 0])], len(product_ids))

    was_clicked = np.isin(row_products, product_ids)
    impressions = _looked_up(plan_ids, views, row_plans)
    impressions[was_clicked] = _looked_up(product_ids, seen, row_products[was_clicked])
    ctr = np.zeros(len(row_plans))
    ctr[was_clicked] = _looked_up(product_ids, clicks, row_products[was_clicked]) / impressions[was_clicked]
    return ClickRates(impressions, ctr)


def _looked_up(keys: NDArray[np.int64], values: NDArray[Any], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    """The value of each wanted key, 0 where it is unknown; ``keys`` ascend."""
    result = np.zeros(len(wanted))
    known = np.isin(wanted, keys)
    result[known] = values[np.searchsorted(keys, wanted[known])]
    return result
