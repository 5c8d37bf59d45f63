"""Imports into real Postgres: what is written, what is left alone, what is refused, and what is never deleted."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import boto3
import psutil
import psycopg
import pytest
import stamina
from sqlalchemy import text

from shopvision.catalogue import batch_checking, delete_items, delete_plans, importing, upsert_items, upsert_plans
from shopvision.catalogue.importing import PLANS_KIND, Importer, ImportReport, Kind, items_kind
from shopvision.catalogue.picture_addresses import PictureRoot
from shopvision.catalogue.source_files import open_source
from shopvision.database import connect, get_engine
from shopvision.errors import TransientError, UserError
from tests.made_catalogue import ITEMS, MEMBERS, PICTURES, PLANS, make_catalogue

pytestmark = pytest.mark.usefixtures("database")


def item(item_id: str, *pictures: str, **fields: Any) -> dict[str, Any]:
    return {"item_id": item_id, "images": list(pictures) or [f"s3://shop/{item_id}.jpg"], **fields}


def run(path: Path, records: list[Any] | None = None, *, dry_run: bool = False, **options: bool) -> ImportReport:
    if records is not None:
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        path.write_text("\n".join(lines), encoding="utf-8")
    kind: Kind = PLANS_KIND if "plans" in path.name else items_kind(PictureRoot("s3://shop/"))
    with open_source(str(path)) as source:
        return Importer(kind, source, dry_run=dry_run).run(**options)


def counts(report: ImportReport) -> tuple[int, int, int, int, int]:
    return report.inserted, report.updated, report.unchanged, report.refused, report.deleted


def query(statement: str) -> list[tuple[Any, ...]]:
    with connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def test_a_whole_catalogue_goes_in_once(tmp_path: Path) -> None:
    folder = tmp_path / "catalogue"
    make_catalogue(folder)
    kind = items_kind(PictureRoot.parse(str(folder)))

    def import_items() -> ImportReport:
        with open_source(str(folder / "items.jsonl")) as source:
            return Importer(kind, source).run()

    assert counts(import_items()) == (ITEMS, 0, 0, 0, 0)
    before = query("SELECT * FROM items JOIN item_images USING (item_id) ORDER BY image_id")
    assert len(before) == PICTURES
    assert counts(import_items()) == (0, 0, ITEMS, 0, 0)
    assert query("SELECT * FROM items JOIN item_images USING (item_id) ORDER BY image_id") == before
    assert query("SELECT extra->'flags'->>'sale', price, category FROM items WHERE item_id = 'dress-057'") == [
        ("Yes", 17, "Clothes/Dress")
    ]
    assert counts(run(folder / "plans.jsonl")) == (PLANS, 0, 0, 0, 0)
    assert query("SELECT count(*) FROM plan_items WHERE plan_id = 'plan-03'") == [(MEMBERS,)]


def test_a_change_of_pictures_keeps_the_ids_of_those_that_stay(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    run(path, [item("1", "s3://shop/a", "s3://shop/b", "s3://shop/c", price=1), item("2")])
    ids = dict(query("SELECT uri, image_id FROM item_images"))
    old = dict(query("SELECT item_id, updated_at FROM items"))
    assert counts(run(path, [item("1", "s3://shop/c", "s3://shop/d", "s3://shop/a", price=1), item("2")])) == (
        0,
        1,
        1,
        0,
        0,
    )
    now = {
        uri: (position, image_id)
        for uri, position, image_id in query("SELECT uri, position, image_id FROM item_images")
    }
    assert now["s3://shop/c"] == (0, ids["s3://shop/c"])
    assert now["s3://shop/a"] == (2, ids["s3://shop/a"])
    assert now["s3://shop/d"][0] == 1
    assert "s3://shop/b" not in now
    new = dict(query("SELECT item_id, updated_at FROM items"))
    assert (new["1"] > old["1"], new["2"] == old["2"]) == (True, True)
    assert counts(run(path, [item("1", "s3://shop/c", "s3://shop/d", "s3://shop/a", price=2), item("2")])) == (
        0,
        1,
        1,
        0,
        0,
    )
    assert query("SELECT price FROM items WHERE item_id = '1'") == [(2,)]


def test_bad_rows_are_named_and_good_rows_go_in(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    broken = [item("1"), "{", item("2", price=-1), item("1", title="again"), item("3", "../a"), item("4")]
    report = run(path, broken)
    assert counts(report) == (2, 0, 0, 4, 0)
    assert [(error.line, error.message.split(":")[0]) for error in report.errors] == [
        (2, "not JSON (EOF while parsing an object); correct the line"),
        (3, "price"),
        (5, "images[0]"),
        (4, "item_id"),
    ]
    assert "'1' stands on line 1 already" in report.errors[3].message
    assert query("SELECT item_id, title FROM items ORDER BY 1") == [("1", None), ("4", None)]
    assert not report.complete


def test_repeated_ids_are_found_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_checking, "BATCH_ROWS", 2)
    report = run(tmp_path / "items.jsonl", [item("1"), item("2"), item("3"), item("2"), item("4"), item("4")])
    assert [(error.line, error.message[:36]) for error in report.errors] == [
        (4, "item_id: '2' stands on line 2 alread"),
        (6, "item_id: '4' stands on line 5 alread"),
    ]
    assert counts(report) == (4, 0, 0, 2, 0)


def test_a_large_file_is_imported_as_a_small_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "items.jsonl"
    run(path, [item(str(number)) for number in range(8_000)])
    records = [item(str(number), price=number) for number in range(6_000)]
    records[5_500] = item("17", title="again")
    records[5_600] = item("5600", price=-1)
    monkeypatch.setattr(batch_checking, "LARGE_FILE_BYTES", 0)
    progress: list[tuple[int, float]] = []
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    log = io.StringIO()
    with open_source(str(path)) as source:
        importer = Importer(
            items_kind(PictureRoot("s3://shop/")),
            source,
            error_log=log,
            on_progress=lambda report, fraction: progress.append((report.rows, fraction)),
        )
        report = importer.run(delete_missing=True, force=True)
    assert counts(report) == (0, 5_998, 0, 2, 2_001)  # 5500 is no longer in the file, 5600 is, though refused
    assert sorted(error.line for error in report.errors) == [5_501, 5_601]
    assert [line.split(":")[1] for line in log.getvalue().splitlines()] == ["5601", "5501"]
    assert [rows for rows, _ in progress] == [5_000, 6_000, 6_000]
    assert 0 < progress[0][1] < progress[1][1] == progress[2][1] == 1.0
    assert query("SELECT count(*), sum(price) FROM items") == [(5_999, sum(range(6_000)) - 5_500 - 5_600)]


def test_a_failing_import_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_checking, "LARGE_FILE_BYTES", 0)
    before = psutil.Process().children()

    def broken(*_: Any, **__: Any) -> None:
        raise TransientError("away")

    monkeypatch.setattr(importing, "write_rows", broken)
    with pytest.raises(TransientError, match="away"):
        run(tmp_path / "items.jsonl", [item(str(number)) for number in range(12_000)])
    assert psutil.Process().children() == before


def test_what_postgres_refuses_costs_its_own_row_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importing.write_rows

    def picky(connection: Any, target: Any, rows: Any, **options: Any) -> Any:
        if any(row.item_id == "3" for row in rows):
            raise psycopg.errors.ProgramLimitExceeded("index row too large")
        return real(connection, target, rows, **options)

    def refuse(self: Importer, refusal: Any) -> None:
        threads.add(threading.get_ident())
        really_refuse(self, refusal)

    threads: set[int] = set()
    really_refuse = Importer._refuse
    monkeypatch.setattr(Importer, "_refuse", refuse)
    monkeypatch.setattr(importing, "write_rows", picky)
    report = run(tmp_path / "items.jsonl", [item(str(number)) for number in (1, 2, 3, 4)])
    assert threads == {threading.get_ident()}  # two that note refusals at once lose some
    assert counts(report) == (3, 0, 0, 1, 0)
    assert report.errors[0].line == 3
    assert report.errors[0].message == "refused by the database (index row too large); correct or leave it out"


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    run(path, [item("1"), item("2"), item("3")])
    before = query("SELECT * FROM items ORDER BY 1")
    report = run(path, [item("1"), item("2", price=2), item("9"), "{"], dry_run=True)
    assert counts(report) == (1, 1, 1, 1, 0)
    report = run(path, [item("1"), item("2", price=2), item("9")], dry_run=True, delete_missing=True, force=True)
    assert counts(report) == (1, 1, 1, 0, 1)
    assert query("SELECT * FROM items ORDER BY 1") == before


def test_delete_missing_spares_refused_rows_and_never_empties_the_shop(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    everything = [item(str(number)) for number in range(10)]
    run(path, everything)
    assert counts(run(path, [*everything[:6], item("6", price=-1), item("7")], delete_missing=True, force=True)) == (
        0,
        0,
        7,
        1,
        2,
    )
    assert len(query("SELECT FROM items")) == len(query("SELECT FROM item_images")) == 8

    refused = run(path, everything[:2], delete_missing=True)
    assert refused.not_deleted == "6 of 8 items are not in the file; give --force if that is right"
    unreadable = run(path, [*everything[:6], "{"], delete_missing=True)
    assert unreadable.not_deleted is not None
    assert "1 refused rows have no readable item_id" in unreadable.not_deleted
    assert run(path, [], delete_missing=True, force=True).not_deleted == "the file holds no good row"
    assert len(query("SELECT FROM items")) == 8
    assert counts(run(path, everything[:2], delete_missing=True, force=True)) == (0, 0, 2, 0, 6)


@pytest.fixture
def hundred(tmp_path: Path) -> list[str]:
    """Lines of a CSV file of a hundred items, all of which are stored."""
    lines = ["item_id,title,images", *(f"i{number},Monitor,s3://shop/{number}.jpg" for number in range(100))]
    assert counts(run_csv(tmp_path / "items.csv", lines)) == (100, 0, 0, 0, 0)
    return lines


def run_csv(path: Path, lines: list[str], *, end: str = "\n", **options: bool) -> ImportReport:
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return run(path, **options)


def test_rows_that_an_open_quote_swallowed_are_not_deleted(tmp_path: Path, hundred: list[str]) -> None:
    hundred[61] = 'i60,"21 inch monitor,s3://shop/60.jpg'
    report = run_csv(tmp_path / "items.csv", hundred, delete_missing=True, force=True)
    assert counts(report) == (0, 0, 60, 1, 0)
    assert report.errors[0].line == 62
    assert report.not_deleted == "1 refused rows have no readable item_id, and might be any of the stored ones"
    # Closed by another row's inches it is a valid cell, and only their number tells.
    hundred[91] = 'i90,27",s3://shop/90.jpg'
    report = run_csv(tmp_path / "items.csv", hundred, delete_missing=True)
    assert report.not_deleted == "30 of 100 items are not in the file; give --force if that is right"
    assert len(query("SELECT FROM items")) == 100


@pytest.mark.parametrize("cut", ["i99", "i9", "i99,Moni", 'i99,"Moni', "i99,Monitor,.."])
def test_a_file_cut_in_its_last_row_deletes_nothing(tmp_path: Path, hundred: list[str], cut: str) -> None:
    """Of five rows fewer nobody would think anything."""
    report = run_csv(tmp_path / "items.csv", [*hundred[:95], cut], end="", delete_missing=True, force=True)
    assert (report.refused, report.deleted, report.inserted) == (1, 0, 0)
    assert report.not_deleted == "1 refused rows have no readable item_id, and might be any of the stored ones"


def test_many_refused_rows_ask_for_force(tmp_path: Path, hundred: list[str]) -> None:
    lines = [line.replace("s3://shop/", "../") if 1 <= number <= 11 else line for number, line in enumerate(hundred)]
    report = run_csv(tmp_path / "items.csv", lines[:-1], delete_missing=True)
    assert report.not_deleted == "11 of 99 rows were refused; give --force if the others are all there is"
    assert run_csv(tmp_path / "items.csv", lines[:-1], delete_missing=True, force=True).deleted == 1


def test_an_item_loses_its_last_picture(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    run(path, [item("1"), {"item_id": "2"}])
    assert query("SELECT item_id FROM item_images") == [("1",)]
    assert counts(run(path, [{"item_id": "1", "images": []}, {"item_id": "2", "images": None}])) == (0, 1, 1, 0, 0)
    assert query("SELECT FROM item_images") == []


def test_nothing_is_deleted_after_a_read_error(tmp_path: Path) -> None:
    import gzip

    run(tmp_path / "items.jsonl", [item("1"), item("2"), item("3")])
    (tmp_path / "items.jsonl.gz").write_bytes(gzip.compress(json.dumps(item("1")).encode() + b"\n")[:-6])
    with pytest.raises(UserError, match="repeat the import with a whole file"):
        run(tmp_path / "items.jsonl.gz", delete_missing=True)
    assert len(query("SELECT FROM items")) == 3


def test_a_plan_follows_its_members(tmp_path: Path) -> None:
    path = tmp_path / "plans.jsonl"
    run(
        path,
        [{"plan_id": "p", "name": "Sale", "desc": "d", "kwds": "a,b", "member_item_ids": ["x", "y", "z"], "kind": "k"}],
    )
    assert query("SELECT name, description, keywords, extra FROM plans") == [("Sale", "d", ["a", "b"], {"kind": "k"})]
    run(path, [{"plan_id": "p", "name": "Sale", "member_item_ids": ["z", "w"]}])
    assert query("SELECT item_id FROM plan_items ORDER BY position") == [("z",), ("w",)]
    run(path, [{"plan_id": "p", "name": "Sale"}])
    assert query("SELECT item_id FROM plan_items") == []


def test_two_imports_at_once_end_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_checking, "BATCH_ROWS", 20)
    one = [item(str(number), f"s3://shop/{number}", "s3://shop/one", title="one") for number in range(200)]
    two = [item(str(number), f"s3://shop/{number}", "s3://shop/two", title="two") for number in reversed(range(200))]
    reports: list[ImportReport] = []
    threads = [
        threading.Thread(target=lambda name=name, records=records: reports.append(run(tmp_path / name, records)))
        for name, records in (("1.jsonl", one), ("2.jsonl", two))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.inserted + report.updated + report.unchanged for report in reports] == [200, 200]
    mixed = query(
        "SELECT item_id FROM items JOIN item_images USING (item_id) WHERE position = 1 AND uri <> 's3://shop/' || title"
    )
    assert mixed == []
    assert query("SELECT count(*) FROM item_images") == [(400,)]


def test_a_deadlock_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = importing.write_rows, []

    def deadlocked_once(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise psycopg.errors.DeadlockDetected("deadlock detected")
        return real(*arguments, **options)

    monkeypatch.setattr(importing, "write_rows", deadlocked_once)
    assert counts(run(tmp_path / "items.jsonl", [item("1")])) == (1, 0, 0, 0, 0)
    assert len(calls) == 2


def test_deadlocks_without_end_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def deadlocked(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        raise psycopg.errors.DeadlockDetected("deadlock detected")

    monkeypatch.setattr(importing, "write_rows", deadlocked)
    with stamina.set_testing(True, attempts=3, cap=True), pytest.raises(TransientError, match="run the import again"):
        run(tmp_path / "items.jsonl", [item("1")])
    assert len(calls) == 3


def test_a_lost_connection_says_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importing.write_rows

    def cut(connection: Any, *arguments: Any, **options: Any) -> Any:
        with get_engine().connect() as other:
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        return real(connection, *arguments, **options)

    monkeypatch.setattr(importing, "write_rows", cut)
    with pytest.raises(TransientError, match="run the import again"):
        run(tmp_path / "items.jsonl", [item("1")])


def test_a_file_on_s3(s3: str, s3_server: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_server)
    client.put_object(Bucket="shop", Key="in/items.csv", Body=b"item_id,images,price\n1,a.jpg|b.jpg,9.50\n2,,-1\n")
    with open_source("s3://shop/in/items.csv") as source:
        report = Importer(items_kind(PictureRoot.parse("s3://shop/in")), source).run()
    assert [error.line for error in report.errors] == [3]
    assert query("SELECT uri FROM item_images ORDER BY position") == [("s3://shop/in/a.jpg",), ("s3://shop/in/b.jpg",)]
    with pytest.raises(UserError, match="there is no such object"), open_source("s3://shop/in/none.csv"):
        pass


def test_calls_take_all_records_or_none() -> None:
    with connect() as connection:
        assert upsert_items(connection, [item("1"), item("2")]).inserted == 2
        assert upsert_items(connection, [item("1", price=2), item("2")]).updated == 1  # twice in one transaction
        assert upsert_plans(connection, [{"plan_id": "p", "name": "n", "member_item_ids": ["1"]}]).inserted == 1
    for wrong in ([item("3"), item("4", price=-1)], [item("3"), item("3")], [item("3"), "4"]):
        with pytest.raises(UserError, match=r"Record 1.*Nothing was written"), connect() as connection:
            upsert_items(connection, wrong)  # type: ignore[arg-type]  # what a service might send
    assert query("SELECT item_id FROM items ORDER BY 1") == [("1",), ("2",)]
    with connect() as connection:
        assert delete_items(connection, ["1", "unknown"]) == 1
        assert delete_plans(connection, ["p"]) == 1
    assert query("SELECT item_id FROM item_images") == [("2",)]
    assert query("SELECT FROM plan_items") == []


UNSTORABLE: list[tuple[str, Any]] = [
    ("title", "a\0"), ("title", "\udce9"), ("title", "x" * 2_001), ("brand", float("inf")), ("price", 10**30),
    ("price", "1e400"), ("category", "\U0001f600" * 501), ("description", "x" * 100_001), ("currency", "EURO"),
    ("updated_at", 1e30), ("updated_at", "10000-01-01"), ("images", ["s3://b/" + "x" * 2_000]),
    ("images", [{"uri": "s3://b/a.jpg", "view": "\0"}]), ("images", r'["s3://b/\u0000"]'), ("stock", 10**200_000),
    ("attributes", [{"key": "k", "value": "\0"}]), ("attributes", r'[{"key": "\u0000", "value": "v"}]'),
    ("attributes", [{"key": "k", "value": 10**5_000}]), ("note", {"a": [float("nan")]}), ("note", {"\0": 1}),
]  # fmt: skip
JUST_WITHIN: list[tuple[str, Any]] = [
    ("title", "\U0001f600" * 2_000), ("category", "\U0001f600" * 500), ("price", 1e12), ("price", 5e-324),
    ("updated_at", "0001-01-01T00:00:00+14:00"), ("updated_at", "9999-12-31T23:59:59-12:00"),
    ("images", [f"s3://b/{number}/" + "x" * 1_700 for number in range(200)]), ("stock", 10**999),
    ("attributes", [{"key": "\U0001f600" * 200, "value": "\U0001f600" * 2_000}] * 500), ("note", [[1e308]]),
]  # fmt: skip


def test_what_postgres_cannot_hold_is_named_before_it_sees_it() -> None:
    with connect() as connection:
        for field, value in UNSTORABLE:
            with pytest.raises(UserError) as refused:
                upsert_items(connection, [item("1"), item("2", **{field: value})])
            assert str(refused.value).startswith(f"Record 1: {field}")
            assert len(str(refused.value)) < 300
        assert upsert_items(connection, [item("1")]).inserted == 1  # the caller's transaction goes on


def test_what_is_just_within_bounds_goes_in() -> None:
    with connect() as connection:
        for number, (field, value) in enumerate(JUST_WITHIN):
            upsert_items(connection, [item("\U0001f600" * 199 + str(number), **{field: value})])
    assert query("SELECT count(*) FROM items") == [(len(JUST_WITHIN),)]


def test_tasks_reuse_the_calls() -> None:
    from tasks import catalogue as tasks
    from worker.app import app

    records = [item("1"), item("2")]
    for _ in range(2):  # a message may arrive twice
        tasks.upsert_items(records=records)
        tasks.upsert_plans(records=[{"plan_id": "p", "name": "n"}])
    assert query("SELECT item_id FROM items ORDER BY 1") == [("1",), ("2",)]
    with pytest.raises(UserError, match=r"1,001 entries in one call, at most 1,000"):
        tasks.upsert_items(records=[item(str(number)) for number in range(1_001)])
    tasks.delete_items(item_ids=["1", "2"])
    tasks.delete_plans(plan_ids=["p"])
    assert query("SELECT FROM items") == query("SELECT FROM plans") == []
    names = [task.name for task in (tasks.upsert_items, tasks.delete_items, tasks.upsert_plans, tasks.delete_plans)]
    assert {app.amqp.router.route({}, name)["queue"].name for name in names} == {"io"}
