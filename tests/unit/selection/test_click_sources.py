"""Who was clicked more, from every kind of source; and that no record gets lost without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from scipy.stats import chi2_contingency

from shopvision.errors import UserError
from shopvision.items.item import Item
from shopvision.selection.click.collecting import FEW, REPEATED, SAME, TIE, UNSURE, tiers, two_rates_p_value
from shopvision.selection.click.data import ClickData, pictures_on_both_sides, split_by_item
from shopvision.selection.click.entities import (
    EntityFacts,
    EntityKey,
    EntityTable,
    entities_of,
    entities_of_items,
    read_entities,
)
from shopvision.selection.click.records import PairRecord, read_records, write_records
from shopvision.selection.click.sources import ClickSource, SourceKind, read_clicks

PAIRS = """item_id,image_a,image_b,clicks_a,impressions_a,clicks_b,impressions_b,title,entities
shoe,a.jpg,b.jpg,30,1000,10,1000,Red shoe,Puma|Shoes
shoe,b.jpg,a.jpg,10,1000,10,1000,Red shoe,Puma|Shoes
bag,c.jpg,d.jpg,5,100,5,100,Bag,
bag,c.jpg,e.jpg,5,100,0,10,Bag,
bag,c.jpg,c.jpg,5,100,6,100,Bag,
bag,d.jpg,e.jpg,7,0,1,100,Bag,
bag,d.jpg,,7,10,1,100,Bag,
hat,c.jpg,d.jpg,12,100,11,100,Hat,
hat,c.jpg,d.jpg,x,100,11,100,Hat,
,c.jpg,d.jpg,1,100,11,100,Hat,
"""


def record(number: int, title: str, first: str, second: str, order: str, names: str = "") -> PairRecord:
    urls = [f"http://shop.example/{name}.jpg" for name in (first, second)]
    copies = [f"https://copy.example/x/{name}.jpg" for name in (first, second)]
    return PairRecord(f"val_{number:06d}", *urls, order[0], order[1], title, "tours", *copies, names)


def read(path: Path, kind: SourceKind, **how: object) -> ClickData:
    return read_clicks(ClickSource(path, kind, **how))  # type: ignore[arg-type]


def told(data: ClickData) -> list[tuple[str, str, str]]:
    """(item, winner, loser) of every pair."""
    pairs = data.comparisons
    rows = zip(pairs.items, pairs.first, pairs.second, pairs.first_wins, strict=True)
    name = [address.rpartition("/")[2] for address in data.pictures]
    return [
        (data.items[item].item_id, *((name[a], name[b]) if wins else (name[b], name[a]))) for item, a, b, wins in rows
    ]


def test_records_are_written_as_they_were_read(tmp_path: Path) -> None:
    lines = [
        ["val_1", "http://a", "http://b", "1", "2", " A\u2028 title\x85 ", "", "c", "d", ""],
        ["val_2", "http://a", "http://b", "2.0", "1", "\u6f20\u6cb3\r", "x", "c", "d", "\u6f20\u6cb3, \u5317"],
    ]
    text = "\n".join("$record$".join(cells) for cells in lines).encode()
    (tmp_path / "file.csv").write_bytes(text)
    records = [found for _, found in read_records(tmp_path / "file.csv")]
    assert all(isinstance(found, PairRecord) for found in records)
    write_records(tmp_path / "again.csv", [found for found in records if isinstance(found, PairRecord)])
    assert (tmp_path / "again.csv").read_bytes() == text
    assert isinstance(records[1], PairRecord)
    assert records[1].rates == (2.0, 1.0)
    assert records[1].names == ("\u6f20\u6cb3", "\u5317")


def test_records_become_pairs_of_items_and_broken_ones_are_told(tmp_path: Path) -> None:
    good = [
        record(1, "Harbin", "a", "b", "12", "Mohe,Harbin"),
        record(2, "Harbin", "b", "a", "21", "Mohe,Harbin"),  # mirrored
        record(3, "Harbin", "a", "c", "21", "Mohe,Harbin"),
        record(4, "Bali", "a", "b", "21"),  # another item may have the same pictures
        record(5, "Bali", "c", "d", "11"),
        record(6, "Bali", "d", "d", "12"),
        record(7, "Bali", "b", "a", "21"),  # says the opposite of 4
    ]
    lines = [one.line() for one in good]
    lines += [
        lines[0] + "$record$",
        lines[0].replace("$record$tours", ""),
        lines[3].replace("2$record$1", "2$record$?"),
    ]
    (tmp_path / "file.csv").write_text("\n".join(lines))
    data = read(tmp_path / "file.csv", "records")
    harbin, bali = (item.item_id for item in data.items)
    assert told(data) == [(harbin, "b.jpg", "a.jpg"), (harbin, "a.jpg", "c.jpg"), (bali, "a.jpg", "b.jpg")]
    assert data.items[0].entities == (EntityKey("entity", "Mohe"), EntityKey("entity", "Harbin"))
    assert data.left_out == {REPEATED: 1, TIE: 1, SAME: 1}
    messages = [failure.message.removeprefix(f"{tmp_path}/file.csv: ") for failure in data.failures]
    assert messages == [
        "line 7: the pair has the other order in line 4; keep the right one",
        f"line 8: 11 fields between $record$, not 10: {messages[1].partition('10: ')[2]}",
        f"line 9: 9 fields between $record$, not 10: {messages[1].partition('10: ')[2]}",
        "line 10: ctr_b is '?'; write a number that is not negative",
    ]
    assert np.isnan(data.comparisons.impressions).all()
    # Won shares: Harbin's a won one of two, b one of one, c none of one.
    harbins = data.shown.select(data.shown.items == 0)
    rates = {data.pictures[row][-5]: rate for row, rate in zip(harbins.pictures, harbins.rates, strict=True)}
    assert rates == {"a": 0.5, "b": 1.0, "c": 0.0}


def test_copies_of_records_pictures_may_lie_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    write_records(tmp_path / "file.csv", [record(1, "Harbin", "a", "b", "12")])
    data = read(tmp_path / "file.csv", "records", images=str(tmp_path / "photos"))
    assert data.pictures == tuple((tmp_path / "photos" / name).as_uri() for name in ("a.jpg", "b.jpg"))
    assert read(tmp_path / "file.csv", "records").pictures[0] == "https://copy.example/x/a.jpg"


def test_counted_pairs_add_up_and_say_how_sure_they_are(tmp_path: Path) -> None:
    (tmp_path / "ab.csv").write_text(PAIRS)
    data = read(tmp_path / "ab.csv", "pairs", min_impressions=50)
    assert told(data) == [("shoe", "a.jpg", "b.jpg"), ("hat", "c.jpg", "d.jpg")]
    assert data.left_out == {REPEATED: 1, TIE: 1, FEW: 1, SAME: 1}
    assert [failure.message.partition(": line ")[2] for failure in data.failures] == [
        "7: 7 clicks of 0 impressions; correct the counts",
        "8: no image_b; every record needs it",
        "10: clicks_a is 'x'; write a number that is not negative",
        "11: no item_id; every record needs one",
    ]
    np.testing.assert_array_equal(data.comparisons.impressions, [4000, 200])
    np.testing.assert_array_equal(data.comparisons.clicks[0], [40, 20])
    np.testing.assert_array_equal(data.comparisons.swapped().clicks[0], [20, 40])
    expected = chi2_contingency([[40, 1960], [20, 1980]], correction=False).pvalue
    assert data.comparisons.p_values[0] == pytest.approx(expected, rel=1e-9)
    assert data.items[0].entities == (EntityKey("entity", "Puma"), EntityKey("entity", "Shoes"))
    sure = read(tmp_path / "ab.csv", "pairs", min_impressions=50, max_p_value=0.05)
    assert (told(sure), sure.left_out[UNSURE]) == ([("shoe", "a.jpg", "b.jpg")], 1)


def test_rates_without_counts_and_other_names_of_columns(tmp_path: Path) -> None:
    (tmp_path / "ab.csv").write_text("sku,left,right,ra,rb\nx,a.jpg,b.jpg,0.02,0.03\nx,a.jpg,c.jpg,0.02,0.02\n")
    columns = {"item_id": "sku", "image_a": "left", "image_b": "right", "ctr_a": "ra", "ctr_b": "rb"}
    data = read(tmp_path / "ab.csv", "pairs", columns=columns)
    assert (told(data), data.left_out) == ([("x", "b.jpg", "a.jpg")], {TIE: 1})
    with pytest.raises(UserError, match="there is no column image_a; a file of pairs needs item_id, image_a, image_b"):
        read(tmp_path / "ab.csv", "pairs", columns={"item_id": "sku"})
    with pytest.raises(UserError, match="the mapping names picture, which is no column of ours: item_id, "):
        read(tmp_path / "ab.csv", "pairs", columns={"picture": "left"})


def test_a_click_log_compares_all_pictures_of_an_item(tmp_path: Path) -> None:
    rows = [
        ("s", "a.jpg", 9, 90),
        ("s", "b.jpg", 2, 100),
        ("s", "c.jpg", 1, 3),
        ("s", "a.jpg", 1, 10),
        ("t", "a.jpg", 1, 99),
    ]
    table = dict(zip(("item_id", "image", "clicks", "impressions"), zip(*rows, strict=True), strict=True))
    parquet.write_table(pa.table({name: list(values) for name, values in table.items()}), tmp_path / "log.parquet")
    known = {"s": Item("s", "Red shoe", "Shoes", "Puma", attributes={"colour": ("red",)}), "t": Item("t")}
    data = read(tmp_path / "log.parquet", "clicks", min_impressions=20, items=known)
    assert (told(data), data.left_out) == ([("s", "a.jpg", "b.jpg")], {FEW: 2})
    np.testing.assert_allclose(data.shown.rates, [0.1, 0.02, 1 / 99])
    assert [len(rows) for rows in data.shown.by_item()] == [2]
    assert data.items[0].entities == (
        EntityKey("brand", "Puma"), EntityKey("category", "Shoes"), EntityKey("colour", "red"),
    )  # fmt: skip
    del known["t"]
    (failure,) = read(tmp_path / "log.parquet", "clicks", items=known).failures
    assert failure.message.endswith("line 5: item 't' is unknown; add it to the items")


def test_nothing_to_learn_from_is_said_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("item_id,image,clicks,impressions\ns,a.jpg,1,10\ns,b.jpg,2,20\ns,,1,9\n")
    with pytest.raises(
        UserError, match=r"no pair of pictures can be used \(1 pairs: equal rates; 1 broken records, the"
    ):
        read(tmp_path / "log.csv", "clicks")


def test_items_lie_on_one_side_of_a_split(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    lines = ["item_id,image,clicks,impressions"]
    lines += [f"i{item},{item}-{n}.jpg,{generator.integers(99)},1000" for item in range(40) for n in range(4)]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    data = read(tmp_path / "log.csv", "clicks")
    parts = split_by_item(data, {"train": 0.7, "valid": 0.3}, seed=3)
    sides = [set(part.comparisons.items.tolist()) for part in parts.values()]
    assert not sides[0] & sides[1]
    assert [set(part.shown.items.tolist()) for part in parts.values()] == sides
    assert sum(len(part.comparisons) for part in parts.values()) == len(data.comparisons)
    assert pictures_on_both_sides(parts["train"], parts["valid"]) == 0
    assert len({part.fingerprint() for part in (data, *parts.values())}) == 3


def test_significance_is_the_test_of_two_proportions() -> None:
    expected = chi2_contingency([[30, 970], [45, 955]], correction=False).pvalue
    assert two_rates_p_value([30, 45], [1000, 1000]) == pytest.approx(expected, rel=1e-9)
    assert two_rates_p_value([0, 0], [10, 10]) == 1


def test_tiers_of_impressions() -> None:
    named = tiers(np.array([5.0, 100, 999, 1000, np.nan]), (100, 1000))
    assert [(name, mask.tolist().count(True)) for name, mask in named] == [
        ("below 100", 1), ("100 to 1000", 2), ("from 1000", 1),
    ]  # fmt: skip


def test_entities_come_in_the_published_order_or_by_frequency(tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text('{"a": [10, 0, 0], " b ": [0, 2, 1], "c": [0, 2, 1], "d": [0, 0, 1]}')
    table = read_entities(tmp_path / "counts.json")
    keys = [EntityKey("entity", name) for name in ("unknown", "d", "c", "b", "a", "d")]
    # -(c0 + 5 c1 + 3 c2): b and c 13, a 10, d 3, unknown 0
    assert [one.key.name for one in table.ordered(keys, "counts")] == ["c", "b", "a", "d", "unknown"]
    items = [
        Item(str(n), brand="Puma" if n else "Nike", category="Shoes", picture=f"https://x/{n}.jpg") for n in range(12)
    ]
    catalogue = entities_of_items(
        [*items, Item("z", attributes={"currency": ("EUR",), "collection": ("Eco", "Sport")})]
    )
    assert [one.key for one in catalogue.ordered(entities_of(items[0]), "frequency")] == [
        EntityKey("category", "Shoes"), EntityKey("brand", "Nike"),
    ]  # fmt: skip
    shoes = catalogue.get(EntityKey("category", "Shoes"))
    assert (shoes.frequency, len(shoes.pictures), shoes.pictures[0]) == (12, 10, "https://x/0.jpg")
    assert entities_of(Item("z", attributes={"currency": ("EUR",), "collection": ("Eco",)})) == (("collection", "Eco"),)
    merged = catalogue.merged(EntityTable({shoes.key: EntityFacts(shoes.key, "7", ("https://y/1.jpg",))}))
    assert (merged.get(shoes.key).entity_id, merged.get(shoes.key).frequency) == ("7", 12)


def test_entity_files(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("id,name,kind,pictures,n0,n1,n2\n7,Puma,brand,a.jpg|b/c.jpg,3,1,0\n8,Nike,,,,,\n")
    table = read_entities(tmp_path / "e.csv")
    puma = table.get(EntityKey("brand", "Puma"))
    assert (puma.entity_id, puma.weight) == ("7", 8)
    assert puma.pictures == ((tmp_path / "a.jpg").as_uri(), (tmp_path / "b/c.jpg").as_uri())
    assert table.get(EntityKey("entity", "Nike")).pictures == ()
    (tmp_path / "e.csv").write_text("id,name,n0\n7,Puma,x\n")
    with pytest.raises(UserError, match="line 2: n0, n1, n2 are "):
        read_entities(tmp_path / "e.csv")
    (tmp_path / "c.json").write_text('{"a": [1, 2]}')
    with pytest.raises(UserError, match="'a' has no three counts"):
        read_entities(tmp_path / "c.json")
