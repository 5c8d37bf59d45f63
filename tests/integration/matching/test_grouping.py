"""Groups in Postgres: what scores and reviews make of them, what stays when things change, and how much is written."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

import pytest
from sqlalchemy import delete, event, func, insert, select, text

from shopvision.catalogue import delete_items, upsert_items
from shopvision.catalogue.tables import Item, ItemImage
from shopvision.database import connect, get_engine
from shopvision.embeddings.store import write_outcomes
from shopvision.fashion.tables import PictureRegion
from shopvision.images.outcome import Embedded
from shopvision.matching.groups import group_update
from shopvision.matching.groups.components import DifferentEdges, group_items
from shopvision.matching.options import GroupOptions, KeepOptions
from shopvision.matching.tables import GroupConflict, ItemGroup, ItemGroupMember, PairReview, PairScore
from shopvision.models.tables import ModelRole, ModelVersion

JOB, LATER = uuid.UUID(int=1), uuid.UUID(int=2)


class Catalogue:
    """Items and the pairs that a model scored."""

    def __init__(self) -> None:
        with connect() as connection:
            rows = [{"name": "matcher", "tag": tag, "card": {}} for tag in ("1", "2")]
            connection.execute(insert(ModelVersion), rows)

    def add(self, items: str, sources: str = "") -> None:
        """Item by item; ``-`` is no source."""
        named = zip_longest(items, sources, fillvalue="-")
        rows = [{"item_id": item, "content_hash": b"", "source": source.strip("-") or None} for item, source in named]
        with connect() as connection:
            connection.execute(insert(Item), rows)

    def score(self, *pairs: tuple[str, str, float], model: int = 1) -> None:
        """``("ab", "same", 0.9)``."""
        rows = [
            {
                "left_item_id": pair[0], "right_item_id": pair[1], "model_version_id": model, "verdict": verdict,
                "probability": probability, "input_hash": b"", "job_id": JOB,
            }
            for pair, verdict, probability in pairs
        ]  # fmt: skip
        with connect() as connection:
            connection.execute(insert(PairScore), rows)

    def review(self, pair: str, verdict: str) -> None:
        with connect() as connection:
            connection.execute(insert(PairReview).values(left_item_id=pair[0], right_item_id=pair[1], verdict=verdict))

    def forget(self, *pairs: str) -> None:
        with connect() as connection:
            for left, right in pairs:
                connection.execute(
                    delete(PairScore).where(PairScore.left_item_id == left, PairScore.right_item_id == right)
                )


def groups() -> dict[str, uuid.UUID]:
    """``{"abc": its id}``."""
    members = func.string_agg(ItemGroupMember.item_id, text("'' ORDER BY item_id"))
    with connect() as connection:
        rows = connection.execute(select(members, ItemGroupMember.group_id).group_by(ItemGroupMember.group_id))
        found = dict(rows.all())
        sizes = dict(connection.execute(select(ItemGroup.group_id, ItemGroup.size)).all())
    assert sizes == {group_id: len(items) for items, group_id in found.items()}
    return found


def conflicts() -> list[tuple[str, str, float]]:
    with connect() as connection:
        rows = connection.execute(
            select(GroupConflict).with_only_columns(
                GroupConflict.left_item_id + GroupConflict.right_item_id, GroupConflict.reason,
                GroupConflict.probability,
            ).order_by(GroupConflict.left_item_id, GroupConflict.right_item_id)
        )  # fmt: skip
        return [(pair, reason, round(probability, 3)) for pair, reason, probability in rows]


def versions() -> Sequence[object]:
    """The transaction that wrote each row last."""
    statement = "SELECT xmin::text, ctid::text FROM {} ORDER BY 1, 2"
    with connect() as connection:
        return [
            tuple(row)
            for table in ("item_groups", "item_group_members", "group_conflicts")
            for row in connection.execute(text(statement.format(table)))
        ]


@pytest.fixture
def catalogue(database: None) -> Catalogue:
    return Catalogue()


def test_equal_items_become_groups_and_a_second_run_writes_nothing(catalogue: Catalogue) -> None:
    catalogue.add("abcdefgh")
    catalogue.score(
        ("ab", "same", 0.99), ("bc", "same", 0.95), ("ac", "review", 0.5), ("de", "same", 0.99), ("ef", "same", 0.97),
        ("df", "different", 0.01), ("gh", "different", 0.01),
    )  # fmt: skip
    counts = group_update.update_groups(1, JOB)
    assert counts == {"groups": 2, "grouped_items": 5, "new": 2, "changed": 0, "dissolved": 0, "conflicts": 1,
                      "keep": 2}  # fmt: skip
    assert set(groups()) == {"abc", "de"}
    assert conflicts() == [("ef", "different", 0.97)]
    before = versions()
    counts = group_update.update_groups(1, LATER)
    assert counts == {"groups": 2, "grouped_items": 5, "new": 0, "changed": 0, "dissolved": 0, "conflicts": 1,
                      "keep": 0}  # fmt: skip
    assert versions() == before


def test_a_doubtful_difference_is_outvoted(catalogue: Catalogue) -> None:
    catalogue.add("abc")
    catalogue.score(("ab", "same", 0.99), ("bc", "same", 0.98), ("ac", "different", 0.04))
    group_update.update_groups(1, JOB, GroupOptions(different_below=0.03))
    assert set(groups()) == {"abc"}
    group_update.update_groups(1, JOB)
    assert set(groups()) == {"ab"}


def test_people_stand_above_the_model(catalogue: Catalogue) -> None:
    catalogue.add("abcdef")
    catalogue.score(("ab", "same", 0.99), ("cd", "different", 0.001))
    catalogue.review("ab", "different")
    catalogue.review("cd", "same")
    catalogue.review("ef", "same")  # never scored
    group_update.update_groups(1, JOB)
    assert set(groups()) == {"cd", "ef"}
    assert conflicts() == []


def test_what_people_decided_holds_again_when_an_item_comes_back(catalogue: Catalogue) -> None:
    catalogue.add("abcd")
    catalogue.score(("ab", "same", 0.99))
    for pair, verdict in {"ab": "different", "bc": "same", "cd": "same"}.items():
        catalogue.review(pair, verdict)
    group_update.update_groups(1, JOB)
    assert set(groups()) == {"bcd"}
    with connect() as connection:
        delete_items(connection, ["b", "c"])
    group_update.update_groups(1, JOB)
    assert groups() == {}
    catalogue.add("bc")
    catalogue.score(("ab", "same", 0.99))
    group_update.update_groups(1, JOB)
    assert set(groups()) == {"bcd"}


def test_an_absent_item_joins_no_others(catalogue: Catalogue) -> None:
    catalogue.add("abc")
    catalogue.review("ab", "same")
    catalogue.review("bc", "same")
    with connect() as connection:
        delete_items(connection, ["b"])
    assert group_update.update_groups(1, JOB)["grouped_items"] == 0


def test_people_stand_above_whichever_model_serves(catalogue: Catalogue) -> None:
    catalogue.add("abcd")
    catalogue.score(("ab", "same", 0.99), ("cd", "different", 0.01))
    catalogue.review("ab", "different")
    catalogue.review("cd", "same")
    group_update.update_groups(1, JOB)
    catalogue.score(("ab", "same", 0.999), ("cd", "different", 0.001), model=2)
    group_update.update_groups(2, LATER)
    assert set(groups()) == {"cd"}


def test_only_differences_inside_of_a_component_are_read(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all pairs that were ever scored are different for sure."""
    catalogue.add("abcdefg")
    catalogue.score(
        ("ab", "same", 0.9), ("bc", "same", 0.9), ("de", "same", 0.9), ("ac", "different", 0.01),
        ("ad", "different", 0.01), ("af", "different", 0.01), ("fg", "different", 0.01), ("be", "different", 0.01),
    )  # fmt: skip
    catalogue.review("cd", "different")
    read: list[DifferentEdges] = []

    def watched(*arguments: Any) -> object:
        read.append(arguments[2])
        return group_items(*arguments)

    monkeypatch.setattr(group_update, "group_items", watched)
    group_update.update_groups(1, JOB)
    assert [(len(edges.left), edges.reviewed.any()) for edges in read] == [(1, False)]
    assert set(groups()) == {"ab", "de"}


def test_groups_keep_their_ids_while_items_join_leave_merge_and_split(catalogue: Catalogue) -> None:
    catalogue.add("abcdefgh")
    catalogue.score(("ab", "same", 0.9), ("bc", "same", 0.9), ("de", "same", 0.9), ("gh", "same", 0.9))
    group_update.update_groups(1, JOB)
    first = groups()
    catalogue.score(("cd", "same", 0.9), ("fg", "same", 0.9))
    counts = group_update.update_groups(1, LATER)
    assert groups() == {"abcde": first["abc"], "fgh": first["gh"]}
    assert (counts["changed"], counts["dissolved"], counts["new"]) == (2, 1, 0)
    catalogue.forget("bc", "gh")
    counts = group_update.update_groups(1, LATER)
    second = groups()
    assert second["cde"] == first["abc"]
    assert second["fg"] == first["gh"]
    assert second["ab"] not in first.values()
    assert (counts["changed"], counts["dissolved"], counts["new"]) == (2, 0, 1)


def test_only_what_changed_is_written(catalogue: Catalogue) -> None:
    catalogue.add("abcdef")
    catalogue.score(("ab", "same", 0.9), ("cd", "same", 0.9))
    group_update.update_groups(1, JOB)
    catalogue.score(("de", "same", 0.9))
    group_update.update_groups(1, LATER)
    with connect() as connection:
        jobs = dict(connection.execute(select(ItemGroup.size, ItemGroup.job_id)).all())
        touched = connection.scalars(
            select(ItemGroupMember.item_id).where(text("xmin = (SELECT xmin FROM item_groups WHERE size = 3)"))
        ).all()
    assert jobs == {2: JOB, 3: LATER}
    assert touched == ["e"]


def test_an_item_that_leaves_the_catalogue(catalogue: Catalogue) -> None:
    catalogue.add("abcde")
    catalogue.score(("ab", "same", 0.9), ("bc", "same", 0.9), ("de", "same", 0.9))
    group_update.update_groups(1, JOB)
    first = groups()
    with connect() as connection:
        delete_items(connection, ["c", "d"])
    counts = group_update.update_groups(1, LATER)
    assert groups() == {"ab": first["abc"]}
    assert (counts["changed"], counts["dissolved"], counts["grouped_items"]) == (1, 1, 2)


def test_another_model_version_continues_the_groups(catalogue: Catalogue) -> None:
    catalogue.add("abcd")
    catalogue.score(("ab", "same", 0.9), ("cd", "same", 0.9))
    group_update.update_groups(1, JOB)
    first = groups()
    catalogue.score(("ab", "same", 0.8), ("bc", "same", 0.9), ("cd", "different", 0.0), model=2)
    group_update.update_groups(2, LATER)
    assert groups() == {"abc": first["ab"]}
    with connect() as connection:
        assert connection.scalars(select(ItemGroup.model_version_id)).all() == [2]


def test_a_group_of_too_many_items_is_cut_at_its_weakest_pair(catalogue: Catalogue) -> None:
    catalogue.add("abcd")
    catalogue.score(("ab", "same", 0.9), ("bc", "same", 0.7), ("cd", "same", 0.8))
    group_update.update_groups(1, JOB, GroupOptions(max_size=3))
    assert set(groups()) == {"ab", "cd"}
    assert conflicts() == [("bc", "size", 0.7)]
    catalogue.review("bc", "different")
    group_update.update_groups(1, JOB, GroupOptions(max_size=3))
    assert conflicts() == []


def test_one_item_of_each_source_is_in_a_group_where_that_is_asked_for(catalogue: Catalogue) -> None:
    catalogue.add("abcde", sources="1212-")
    catalogue.score(("ab", "same", 0.9), ("bc", "same", 0.7), ("cd", "same", 0.8), ("be", "same", 0.6))
    group_update.update_groups(1, JOB)
    assert set(groups()) == {"abcde"}
    group_update.update_groups(1, JOB, GroupOptions(one_per_source=True))
    assert set(groups()) == {"abe", "cd"}
    assert conflicts() == [("bc", "source", 0.7)]
    catalogue.review("bc", "same")
    group_update.update_groups(1, JOB, GroupOptions(one_per_source=True))
    assert set(groups()) == {"bce"}  # of each source one is there by now
    assert conflicts() == [("ab", "source", 0.9), ("cd", "source", 0.8)]


def test_an_item_deleted_while_groups_are_computed_is_left_out(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.add("abcd")
    catalogue.score(("ab", "same", 0.9), ("bc", "same", 0.9), ("cd", "different", 0.0), ("bd", "same", 0.7))

    def meanwhile(*arguments: object) -> object:
        with connect() as connection:
            delete_items(connection, ["c", "d"])
        return group_items(*arguments)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(group_update, "group_items", meanwhile)
    group_update.update_groups(1, JOB)
    assert set(groups()) == {"ab"}
    assert conflicts() == []


def test_two_runs_at_once_take_turns(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue.add("abc")
    catalogue.score(("ab", "same", 0.9))
    inside, most, lock = 0, 0, threading.Lock()

    def watched(*arguments: object) -> object:
        nonlocal inside, most
        with lock:
            inside, most = inside + 1, max(most, inside + 1)
        threading.Event().wait(0.1)
        result = group_items(*arguments)  # type: ignore[arg-type]  # passed on
        with lock:
            inside -= 1
        return result

    monkeypatch.setattr(group_update, "group_items", watched)
    threads = [threading.Thread(target=group_update.update_groups, args=(1, JOB)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert set(groups()) == {"ab"}


def test_nothing_is_compared_with_each_row_of_a_list(catalogue: Catalogue) -> None:
    """A filter by a subquery is hashed while the list is small, and quadratic once it is not; joins are neither."""
    catalogue.add("abcdef")
    catalogue.score(("ab", "same", 0.9), ("bc", "same", 0.8), ("ac", "different", 0.01), ("de", "same", 0.9))
    plans: dict[str, str] = {}

    def explain(_: object, cursor: Any, statement: str, *__: object) -> None:
        if statement.lstrip().startswith("DELETE"):
            with cursor.connection.cursor() as asking:
                plans[statement] = "\n".join(row[0] for row in asking.execute(f"EXPLAIN {statement}"))

    listens = get_engine(), "before_cursor_execute", explain
    event.listen(*listens)
    try:
        group_update.update_groups(1, JOB)
    finally:
        event.remove(*listens)
    assert len(plans) == 6
    assert [plan for plan in plans.values() if "SubPlan" in plan] == []


def kept() -> dict[str, tuple[str, list[Any]]]:
    """``{item to keep: (rule, what the others of its group lend)}``."""
    with connect() as connection:
        rows = connection.execute(
            select(ItemGroupMember.group_id, ItemGroupMember.item_id, ItemGroupMember.is_kept, ItemGroupMember.lends,
                   ItemGroup.kept_by)
            .join(ItemGroup, ItemGroup.group_id == ItemGroupMember.group_id).order_by(ItemGroupMember.item_id)
        ).all()  # fmt: skip
    one = {row.group_id: row.item_id for row in rows if row.is_kept}
    lent: dict[str, tuple[str, list[Any]]] = {one[row.group_id]: (row.kept_by, []) for row in rows}
    for row in rows:
        lent[one[row.group_id]][1].extend((row.item_id, loan["field"], *loan["values"]) for loan in row.lends)
    return lent


def test_the_item_to_keep_follows_groups_items_and_rules(catalogue: Catalogue) -> None:
    with connect() as connection:
        upsert_items(
            connection,
            [
                {"item_id": "a", "title": "A", "source": "feed"},
                {"item_id": "b", "title": "B", "source": "own", "description": "Soft."},
                {"item_id": "c", "title": "C", "source": "feed", "sold": "12"},
                {"item_id": "d", "title": "D"},
            ],
        )
    catalogue.score(("ab", "same", 0.9), ("cd", "same", 0.9))
    assert group_update.update_groups(1, JOB)["keep"] == 2
    assert kept() == {"b": ("complete", []), "c": ("sold", [])}
    before = versions()
    assert group_update.update_groups(1, LATER)["keep"] == 0
    assert versions() == before
    liked = KeepOptions(sources=("feed", "own"))
    assert group_update.update_groups(1, LATER, keep=liked)["keep"] == 2
    assert kept() == {"a": ("source", [("b", "description", "Soft.")]), "c": ("source", [])}
    with connect() as connection:
        upsert_items(connection, [{"item_id": "d", "title": "D", "sold": 13, "brand": "X"}])
    assert group_update.update_groups(1, LATER)["keep"] == 2
    assert kept() == {"b": ("complete", []), "d": ("sold", [])}
    catalogue.score(("bd", "same", 0.8))
    assert group_update.update_groups(1, LATER)["keep"] == 1
    assert kept() == {"d": ("sold", [("b", "description", "Soft.")])}
    with connect() as connection:
        delete_items(connection, ["d"])
    group_update.update_groups(1, LATER)
    assert kept() == {"b": ("complete", [])}


def test_a_text_that_nobody_can_see_is_lent_none_and_lacking(catalogue: Catalogue) -> None:
    with connect() as connection:
        upsert_items(
            connection,
            [
                {"item_id": "a", "title": "\u200b\u200d", "brand": "X", "description": "Soft."},
                {"item_id": "b", "title": "T", "description": "\u200b"},
            ],
        )
    catalogue.score(("ab", "same", 0.9))
    group_update.update_groups(1, JOB)
    assert kept() == {"a": ("complete", [("b", "title", "T")])}


@pytest.mark.parametrize("unknown", ["nan", "inf", "many", None])
def test_what_is_no_number_of_sales_counts_as_unknown(catalogue: Catalogue, unknown: str | None) -> None:
    """NaN is neither more nor less than any number, so a comparison with it would keep one item or another."""
    sold = {"a": "3", "b": unknown, "c": "7"}
    with connect() as connection:
        upsert_items(connection, [{"item_id": one, "title": "T", "sold": many} for one, many in sold.items()])
    catalogue.score(("ab", "same", 0.9), ("bc", "same", 0.9))
    group_update.update_groups(1, JOB)
    assert kept() == {"c": ("sold", [])}


def test_larger_pictures_and_other_bytes_count_as_the_refresh_saw_them(catalogue: Catalogue) -> None:
    pictures = {"a": [("1", b"1", 100), ("2", b"2", 100)], "b": [("3", b"3", 400), ("4", b"1", 400)]}
    with connect() as connection:
        upsert_items(
            connection,
            [
                {"item_id": item_id, "title": "T", "images": [f"s3://shop/{name}.jpg" for name, *_ in several]}
                for item_id, several in pictures.items()
            ],
        )
        connection.execute(insert(ModelRole).values(role="catalogue_encoder", model_version_id=1))
        ids = dict(connection.execute(select(ItemImage.uri, ItemImage.image_id)).all())
        write_outcomes(
            connection, 1,
            [
                Embedded(ids[f"s3://shop/{name}.jpg"], sha256, "", b"\0\0", pixels)
                for several in pictures.values() for name, sha256, pixels in several
            ],
        )  # fmt: skip
    catalogue.score(("ab", "same", 0.9))
    group_update.update_groups(1, JOB)
    assert kept() == {"b": ("resolution", [("a", "images", "s3://shop/2.jpg")])}  # 1.jpg is 4.jpg


@pytest.mark.parametrize("later", [1, 2])
def test_of_two_detectors_the_one_that_looked_last_tells_the_size(catalogue: Catalogue, later: int) -> None:
    """A picture may have been replaced between them."""
    sides = {"a": (10, 30), "b": (20, 20)}  # of its picture at the first and at the second look
    with connect() as connection:
        rows = [{"item_id": item, "title": "T", "images": [f"s3://shop/{item}.jpg"]} for item in sides]
        upsert_items(connection, rows)
        ids = dict(connection.execute(select(ItemImage.item_id, ItemImage.image_id)).all())
        for detector in (1, 2):
            look = int(detector == later)
            regions = [
                {
                    "detector_version_id": detector, "image_id": ids[item], "region": 0, "image_sha256": item.encode(),
                    "box": [0, 0, size[look], size[look]], "found_at": datetime(2026, 1, 1 + look, tzinfo=UTC),
                }
                for item, size in sides.items()
            ]  # fmt: skip
            connection.execute(insert(PictureRegion), regions)
    catalogue.score(("ab", "same", 0.9))
    group_update.update_groups(1, JOB)
    assert list(kept()) == ["a"]
    assert kept()["a"][0] == "resolution"
