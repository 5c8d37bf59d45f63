"""A page for reviewers: groups of equal items, pairs the model is unsure about, conflicts, a form to decide them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from shopvision.database import among, snapshot
from shopvision.items.catalogue_items import items_from_catalogue
from shopvision.items.item import Item
from shopvision.items.side_by_side import side_by_side
from shopvision.matching.fitting.error_page import Field, compare
from shopvision.matching.groups.reviews import read_pairs_to_review
from shopvision.matching.tables import GroupConflict, ItemGroup, ItemGroupMember, PairReview, PairScore
from shopvision.reports import render_page

GROUPS, PAIRS = 500, 200
MEMBERS = 12  # of a group that are shown

_TEXT_FIELDS = ("category", "brand", "price")


@dataclass(frozen=True)
class ShownGroup:
    """A group as the page shows it.

    Attributes:
        size: items it has.
        is_changed: by the job of the page.
        items: the one to keep, then the first of the others by id.
        kept_by: the rule that chose the first; empty where none was chosen yet.
        common: (name, value) of what all of ``items`` share.
        differing: for each of ``items`` (name, value, whether another value stands against it) of all other fields.
        lends: for each of ``items`` (name, value) of what it has and the one to keep lacks.
        exact: for each of ``items`` what another of them has exactly like it: picture, code.
    """

    group_id: uuid.UUID
    size: int
    is_changed: bool
    items: list[Item]
    common: list[tuple[str, str]]
    differing: list[list[tuple[str, str, bool]]]
    kept_by: str
    lends: list[list[tuple[str, str]]]
    exact: list[list[str]]

    @property
    def text(self) -> str:
        """What the page's filter looks through."""
        marks = ["new or changed"] if self.is_changed else []
        return " ".join([*map(_words, self.items), str(self.group_id), *marks]).lower()


@dataclass(frozen=True)
class ShownPair:
    """Two items side by side; ``reason`` is that of a conflict, or empty; ``exact`` as of ``PairScore``."""

    left: Item
    right: Item
    probability: float
    reason: str
    exact: Sequence[str] = ()

    @property
    def fields(self) -> list[Field]:
        """Line by line, with what differs marked."""
        return compare(self.left, self.right)

    @property
    def text(self) -> str:
        """What the page's filter looks through."""
        kind = "conflict" if self.reason else "review"
        return f"{_words(self.left)} {_words(self.right)} {kind}".lower()


@dataclass(frozen=True)
class MatchingPage:
    """What the page shows, and how much there is of it."""

    groups: list[ShownGroup]
    borderline: list[ShownPair]
    conflicts: list[ShownPair]
    totals: Mapping[str, int]


def matching_page(
    model_version_id: int,
    job_id: uuid.UUID,
    *,
    decision: float = 0.5,
    most_groups: int = GROUPS,
    most_pairs: int = PAIRS,
) -> MatchingPage:
    """The groups as they are now, those that the job changed first; unsure pairs and conflicts, unless decided since.

    Args:
        model_version_id: whose unsure pairs are shown.
        job_id: whose changes are marked.
        decision: see ``read_pairs_to_review``.
        most_groups: at most so many; after the changed ones the largest.
        most_pairs: at most so many of both kinds.
    """
    changed = (ItemGroup.job_id == job_id).label("changed")
    # One moment, because an item may be deleted between two statements.
    with snapshot() as connection:
        unsure = read_pairs_to_review(connection, model_version_id, decision=decision, limit=most_pairs)
        groups = connection.execute(
            select(ItemGroup.group_id, ItemGroup.size, ItemGroup.kept_by, changed)
            .order_by(changed.desc(), ItemGroup.size.desc(), ItemGroup.created_at, ItemGroup.group_id)
            .limit(most_groups)
        ).all()
        members: dict[uuid.UUID, list[str]] = {row.group_id: [] for row in groups}
        lends: dict[str, list[dict[str, Any]]] = {}
        for row in connection.execute(
            select(ItemGroupMember.group_id, ItemGroupMember.item_id, ItemGroupMember.lends)
            .where(among(ItemGroupMember.group_id, members))
            .order_by(ItemGroupMember.is_kept.desc(), ItemGroupMember.item_id)
        ):
            members[row.group_id].append(row.item_id)
            lends[row.item_id] = row.lends
        apart = connection.execute(
            select(
                GroupConflict.left_item_id, GroupConflict.right_item_id, GroupConflict.probability, GroupConflict.reason
            )
            .order_by(GroupConflict.probability.desc(), GroupConflict.left_item_id, GroupConflict.right_item_id)
            .limit(most_pairs)
        ).all()
        totals = {name: int(connection.scalar(query) or 0) for name, query in _totals(model_version_id).items()}
        pairs = [(one.left_item_id, one.right_item_id, one.probability, "") for one in unsure]
        kept_apart = [(row.left_item_id, row.right_item_id, row.probability, row.reason) for row in apart]
        wanted = [item_id for ids in members.values() for item_id in ids[:MEMBERS]]
        wanted += [item_id for left, right, *_ in pairs + kept_apart for item_id in (left, right)]
        items = items_from_catalogue(connection, wanted)
        exact = _exact(connection, model_version_id, list(items))
    shown = [
        _group(
            row.group_id,
            row.size,
            [items[item_id] for item_id in members[row.group_id][:MEMBERS]],
            is_changed=row.changed,
            kept_by=row.kept_by or "",
            lends=lends,
            exact=exact,
        )
        for row in groups
    ]
    unsure_pairs, conflicts = (
        [
            ShownPair(items[left], items[right], probability, reason, exact.get((left, right), ()))
            for left, right, probability, reason in several
        ]
        for several in (pairs, kept_apart)
    )
    return MatchingPage([group for group in shown if group.items], unsure_pairs, conflicts, totals)


def _exact(
    connection: Connection, model_version_id: int, item_ids: Sequence[str]
) -> dict[tuple[str, str], Sequence[str]]:
    """Pairs of some items -> what both have exactly, where they have something."""
    query = select(PairScore.left_item_id, PairScore.right_item_id, PairScore.exact).where(
        PairScore.model_version_id == model_version_id,
        among(PairScore.left_item_id, item_ids),
        among(PairScore.right_item_id, item_ids),
        func.cardinality(PairScore.exact) > 0,
    )
    return {(row.left_item_id, row.right_item_id): row.exact for row in connection.execute(query)}


def write_report(
    output: Path,
    page: MatchingPage,
    *,
    facts: Sequence[tuple[str, str]] = (),
    failures: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the page, with its pictures inside.

    Args:
        output: the HTML file.
        page: from ``matching_page``.
        facts: (name, value) pairs shown on top.
        failures: ``item_key``, ``code`` and ``message`` of pairs that could not be scored.

    Raises:
        UserError: the file cannot be written.
    """
    items = [item for group in page.groups for item in group.items]
    items += [item for pair in (*page.borderline, *page.conflicts) for item in (pair.left, pair.right)]
    number = {item.picture: place for place, item in enumerate(items) if item.picture}
    render_page(
        "item_groups.html",
        output,
        {place: picture for picture, place in number.items()},
        title="Items that are the same product",
        subtitle="What differs is marked. Decide pairs and items by a click; the file of your decisions goes into "
        "`shopvision pairs reviews import`.",
        facts=[(name, f"{count:,}") for name, count in page.totals.items()] + list(facts),
        page=page,
        number=number,
        failures=failures,
    )


def _totals(model_version_id: int) -> dict[str, Any]:
    undecided = (
        select(func.count())
        .select_from(PairScore)
        .where(
            PairScore.model_version_id == model_version_id,
            PairScore.verdict == "review",
            ~select(PairReview.verdict)
            .where(
                PairReview.left_item_id == PairScore.left_item_id, PairReview.right_item_id == PairScore.right_item_id
            )
            .exists(),
        )
    )
    return {
        "groups": select(func.count()).select_from(ItemGroup),
        "items in groups": select(func.count()).select_from(ItemGroupMember),
        "pairs for review": undecided,
        "conflicts": select(func.count()).select_from(GroupConflict),
    }


def _group(
    group_id: uuid.UUID,
    size: int,
    items: list[Item],
    *,
    is_changed: bool,
    kept_by: str,
    lends: Mapping[str, Sequence[Mapping[str, Any]]],
    exact: Mapping[tuple[str, str], Sequence[str]],
) -> ShownGroup:
    lines = [(name, texts, len(set(texts) - {""}) > 1) for name, texts in side_by_side(items, _TEXT_FIELDS)]
    common = [(name, texts[0]) for name, texts, is_contested in lines if all(texts) and not is_contested]
    others = [line for line in lines if line[2] or not all(line[1])]
    differing = [
        [(name, texts[place], is_contested) for name, texts, is_contested in others if texts[place]]
        for place in range(len(items))
    ]
    lent = [[_loan(loan) for loan in lends[item.item_id]] for item in items]
    shared: dict[str, set[str]] = {item.item_id: set() for item in items}
    for (left, right), what in exact.items():
        if left in shared and right in shared:
            shared[left].update(what)
            shared[right].update(what)
    exactly = [sorted(shared[item.item_id], reverse=True) for item in items]
    return ShownGroup(group_id, size, is_changed, items, common, differing, kept_by, lent, exactly)


def _loan(loan: Mapping[str, Any]) -> tuple[str, str]:
    if loan["field"] == "images":
        return "pictures", str(len(loan["values"]))
    return str(loan.get("key", loan["field"])), ", ".join(loan["values"])


def _words(item: Item) -> str:
    return " ".join([item.item_id, item.title, item.category, item.brand])
