"""Which places of a ranking are kept, which jobs are urgent, and which parameters are refused."""

from __future__ import annotations

import numpy as np
import pytest

from shopvision.errors import UserError
from shopvision.selection.outcomes import ranking_of
from tasks.rank_plans import RankPlans
from worker.kinds import parse_params

IDS = np.array([10, 20, 30, 40, 50])
SCORES = np.array([0.1, 0.9, 0.5, 0.9, -0.3], np.float32)


@pytest.mark.parametrize(
    ("top_k", "bottom_k", "kept"),
    [
        (5, 0, [(20, 1), (40, 2), (30, 3), (10, 4), (50, 5)]),  # of equal scores the smaller id
        (2, 1, [(20, 1), (40, 2), (50, 5)]),
        (1, 0, [(20, 1)]),
        (3, 4, [(20, 1), (40, 2), (30, 3), (10, 4), (50, 5)]),  # none twice
        (50, 5, [(20, 1), (40, 2), (30, 3), (10, 4), (50, 5)]),
    ],
)
def test_the_best_and_the_worst_are_kept(top_k: int, bottom_k: int, kept: list[tuple[int, int]]) -> None:
    ranking = ranking_of(IDS, SCORES, top_k, bottom_k)
    assert [(image_id, rank) for image_id, rank, _ in ranking] == kept
    by_id = dict(zip(IDS.tolist(), SCORES.tolist(), strict=True))
    assert all(score == by_id[image_id] for image_id, _, score in ranking)


@pytest.mark.parametrize(
    ("params", "urgent"),
    [
        ({}, False),
        ({"scope": "all"}, False),
        ({"plan_ids": ["a"]}, True),
        ({"plan_ids": [str(number) for number in range(20)]}, True),
        ({"plan_ids": [str(number) for number in range(21)]}, False),
        ({"plan_ids": ["a"], "urgent": False}, False),
        ({"urgent": True}, True),
    ],
)
def test_a_few_named_plans_are_urgent(params: dict[str, object], urgent: bool) -> None:
    kind = RankPlans()
    assert kind.urgent(parse_params(kind, params)) is urgent  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"plan_ids": []}, "rank_plans: plan_ids: List should have at least 1 item"),
        ({"plan_ids": ["a"], "scope": "all"}, "give either scope=all or plan_ids"),
        ({"top_k": 0}, "rank_plans: top_k: Input should be greater than or equal to 1"),
        ({"min_candidates": 0}, "min_candidates: Input should be greater"),
        ({"pictures": "some"}, "pictures: Input should be 'leading' or 'all'"),
        ({"topk": 3}, "topk: Extra inputs are not permitted"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_params(RankPlans(), params)
