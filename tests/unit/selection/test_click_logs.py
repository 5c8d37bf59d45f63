"""Labels from click logs: the published rule worked out by hand, and the command that makes a table of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from shopvision.errors import UserError
from shopvision.selection.clik import click_log
from shopvision.selection.clik.click_labels import Per, click_rates, label_by_clicks
from shopvision.selection.clik.click_log import ClickLog, read_click_log
from shopvision.selection.clik.data import read_table
from tests.unit.selection.exhibitions import data, exhibition

Run = Callable[..., tuple[int, str, str]]

# Plan 1: 3 clicks on product 10, 1 on the plan's name, so 4 views; plan 2: 1 on 10, 2 on 20, so 3 views.
CLICKS = "plan_id,item_id\n1,10\n1,10\n1,\n1,10\n2,10\n2,20\n2,20\n"
ROWS = [("1", "10"), ("1", "30"), ("2", "10"), ("2", "20"), ("2", "30"), ("3", "10"), ("3", "30")]
# Seen: 10 in plan 1 half as often as in plan 2, where fewer click it; 20 nowhere.
SEEN = "plan_id,item_id,clicks,impressions\n1,10,3,10\n1,10,1,10\n1,30,0,9\n2,10,2,40\n2,20,0,0\n1,-1,5,70\n"
NOBODY = float("nan")


def log_of(tmp_path: Path, text: str) -> ClickLog:
    (tmp_path / "log.csv").write_text(text)
    return read_click_log(str(tmp_path / "log.csv"))


@pytest.mark.parametrize(
    ("text", "per", "clicks", "impressions"),
    [
        (CLICKS, "plan", [3, 0, 1, 2, 0, 0, 0], [4, 4, 3, 3, 3, 0, 0]),
        (CLICKS, "item", [4, 0, 4, 2, 0, 4, 0], [7, 4, 7, 3, 3, 7, 0]),  # published: the same in every plan
        (SEEN, "plan", [4, 0, 2, 0, 0, 0, 0], [20, 9, 40, 0, 0, 0, 0]),
        (SEEN, "item", [6, 0, 6, 0, 0, 6, 0], [60, 9, 60, 0, 9, 60, 9]),
    ],
)
def test_rates_by_hand(tmp_path: Path, text: str, per: Per, clicks: list[float], impressions: list[float]) -> None:
    log = log_of(tmp_path, text)
    plans = np.array([log.plans.get(plan, -1) for plan, _ in ROWS])
    products = np.array([log.products.get(product, -1) for _, product in ROWS])
    rates = click_rates(log, plans, products, per)
    assert rates.clicks.tolist() == clicks
    assert rates.impressions.tolist() == impressions
    expected = [c / i if i else NOBODY for c, i in zip(clicks, impressions, strict=True)]
    np.testing.assert_allclose(rates.ctr, expected)


def test_rows_of_exhibitions_and_clicks_on_none_of_them(tmp_path: Path) -> None:
    shop = data(exhibition("1", [1.0, 1.0]), exhibition("3", [1.0], first=1))
    log = log_of(tmp_path, CLICKS.replace(",10", ",000000").replace(",20", ",000001"))
    rows = label_by_clicks(shop, log)
    assert rows.exhibitions.tolist() == [0, 0, 1]
    assert rows.products.tolist() == [0, 1, 1]
    np.testing.assert_allclose(rows.rates.ctr, [3 / 4, 0, NOBODY])
    assert rows.elsewhere == 3  # those of plan 2; a click on the name of plan 1 is none
    np.testing.assert_allclose(label_by_clicks(shop, log, min_impressions=5).rates.ctr, [NOBODY] * 3)


def test_logs_in_other_forms_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = log_of(tmp_path, CLICKS)
    counted = [("1", "10", 2), ("1", -1, 1), ("1", 10, 1), ("2", "10", 1), ("2", "20", 2)]
    lines = [json.dumps({"exhibit_id": plan, "prod_id": item, "n": n}) for plan, item, n in counted]
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    monkeypatch.setattr(click_log, "ROWS_APART", 2)  # so that sums are made on the way
    other = read_click_log(str(tmp_path / "log.jsonl.gz"), {"clicks": "n"})
    assert (other.plans, other.products) == (plain.plans, plain.products)
    for name in ("pair_plans", "pair_products", "clicks"):
        assert getattr(other, name).tolist() == getattr(plain, name).tolist()
    assert other.impressions is plain.impressions is None


def test_broken_rows_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    log = log_of(tmp_path, SEEN + "1,20,1,\n1,20,,3\n,20,1,1\n1,20,many,3\n")
    assert log.broken == (4, "line 8: some rows say impressions and some do not; all need them, or none")
    assert "20" in log.products  # of plan 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plan_id,item_id\n", r"log\.csv: not one row can be read \(it is empty\)"),
        ("plan,item_id\n1,2\n", r"1 rows are broken, line 2: no plan_id; every row needs one"),
        ("plan_id,item_id,clicks\n1,2,-3\n", r"line 2: clicks is '-3'; write a number that is not negative"),
        ("plan_id,item_id,clicks,impressions\n1,2,3,2\n", r"2 in plan 1 has 3 clicks of 2 impressions, and 0 others"),
    ],
)
def test_logs_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        log_of(tmp_path, text)


PLANS = (
    "exhibit_id,prod_id,exhibit_name,exhibit_startdate,prod_name,image\n"
    "1,10,Summer,2026-06-01,Dress,a.jpg\n1,30,Summer,2026-06-01,=Shirt,b.jpg\n"
    "2,10,Autumn,,Dress,a.jpg\n2,20,Autumn,,Coat,c.jpg\n2,40,Autumn,,Hat,d.jpg\n2,50,Autumn,,Bag,e.jpg\n"
    "2,60,Autumn,,Belt,f.jpg\n4,10,Nobody came,,Dress,a.jpg\n4,30,Nobody came,,=Shirt,b.jpg\n"
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Plans and a log; of plan 2 two of five pictures are there."""
    (tmp_path / "plans.csv").write_text(PLANS)
    (tmp_path / "log.csv").write_text(CLICKS)
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "images" / name).write_bytes(b"")
    return tmp_path


def test_the_command_writes_what_training_reads(shop: Path, command_line: Run) -> None:
    output = shop / "made.parquet"
    words = [
        "data", "clicks", shop / "log.csv", "--plans", shop / "plans.csv", "--output", output, "--min-available", 2,
        "--min-share", 0.4,
    ]  # fmt: skip
    status, shown, _ = command_line(*words, "--images", shop / "images", "--json")
    report = json.loads(shown)
    assert status == 0
    assert {name: report[name] for name in ("plans", "rows", "labelled", "clicks", "clicks_elsewhere")} == {
        "plans": 2, "rows": 4, "labelled": 4, "clicks": 7, "clicks_elsewhere": 0,
    }  # fmt: skip
    assert [(r["rule"], r["exhibitions_before"], r["exhibitions_after"]) for r in report["rules"]] == [
        ("rows without a picture", 3, 3), ("members available", 3, 3), ("share of members available", 3, 3),
        ("plans in the log", 3, 2),
    ]  # fmt: skip
    rows = parquet.read_table(output).to_pylist()
    assert rows[1] == {
        **dict.fromkeys((f"exhibit_cat{depth}" for depth in (1, 2, 3, 4)), ""), "exhibit_id": "1", "prod_id": "30",
        "exhibit_name": "Summer", "exhibit_page_title": "", "exhibit_startdate": "2026-06-01", "exhibit_kwds": "",
        "prod_name": "=Shirt", "image": "b.jpg", "clicks": 0, "impressions": 4, "ctr": 0,
    }  # fmt: skip
    made = read_table(output, label="ctr", images=str(shop / "images"))
    assert [e.labels.tolist() for e in made.exhibitions] == [[0.75, 0], [np.float32(2 / 3), np.float32(1 / 3)]]

    status, shown, _ = command_line(*words, "--per", "item")
    assert status == 0
    assert "clicks elsewhere" in shown
    made = read_table(output, label="ctr", images=str(shop / "images"))
    assert made.exhibitions[1].labels.tolist() == [np.float32(2 / 3), np.float32(4 / 7)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], r"No plan is left: 'members available' dropped the last \(3 came so far\)"),
        (
            ["--min-available", 2, "--images", "{images}", "--min-share", 1.0, "--per", "both"],
            r"--per both: write plan or",
        ),
        (["--output", "made.csv"], r"made\.csv: name it \.parquet"),
    ],
)
def test_mistakes_leave_nothing(shop: Path, command_line: Run, options: list[object], message: str) -> None:
    words = [str(option).format(images=shop / "images") for option in options]
    output = ["--output", shop / "made.parquet"]
    status, _, stderr = command_line("data", "clicks", shop / "log.csv", "--plans", shop / "plans.csv", *output, *words)
    assert status == 1
    with pytest.raises(UserError, match=message):
        raise UserError(stderr)
    assert not list(shop.glob("made.*"))


def test_a_catalogue_takes_no_picture_folder(shop: Path, command_line: Run) -> None:
    words = ["--output", shop / "made.parquet", "--images", shop / "images"]
    status, _, stderr = command_line("data", "clicks", shop / "log.csv", *words)
    assert (status, "--images and --map belong to a table of plans" in stderr) == (1, True)
