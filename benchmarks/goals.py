"""Goals that results are held against, as columns of a table."""

from __future__ import annotations


def at_least(goal: float, measured: float) -> dict[str, str]:
    """Columns: the goal, and whether it is met."""
    return {"goal": f"at least {goal:g}", "met": "yes" if measured >= goal else "no"}


def at_most(goal: float, measured: float) -> dict[str, str]:
    """Likewise."""
    return {"goal": f"at most {goal:.4g}", "met": "yes" if measured <= goal else "no"}


NO_GOAL: dict[str, str | None] = {"goal": None, "met": None}
