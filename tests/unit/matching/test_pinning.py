"""What decides a verdict, which file may be read, and how failures are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shopvision.catalogue.allowed_files import allowed_location
from shopvision.catalogue.record_texts import RecordError
from shopvision.errors import UserError
from shopvision.matching import requested_pairs
from shopvision.matching.options import Thresholds
from shopvision.matching.pinning import FirstStage, ScoringMethod, require_vectors, thresholds_of
from shopvision.matching.requests import item_name, pair_name, parse_name, row_name
from shopvision.models import ModelVersionRef
from shopvision.models.card import Architecture, ModelCard
from worker.kinds import get_kind, parse_params

NO_ID = "no right_item_id; give the ids of two catalogue items"
LONG_ID = "right_item_id has 201 characters; ids have 200 at most"


def version(name: str = "m", **fields: Any) -> ModelVersionRef:
    architecture = Architecture(library="shopvision", name="text_one_tower", arguments=fields.pop("arguments", {}))
    values = {"name": name, "tag": "1", "kind": "pair_scorer", "architecture": architecture, "source": "test"}
    return ModelVersionRef(7, name, "1", ModelCard(**values, files={}, **fields))


@pytest.mark.parametrize(("same", "different"), [(0.2, 0.7), (1.1, 0.5), (0.5, -0.1), (float("nan"), 0.1)])
def test_thresholds_out_of_order(same: float, different: float) -> None:
    with pytest.raises(UserError, match="give 0 <= different <= same <= 1"):
        Thresholds(same, different)


def test_thresholds_come_from_the_card() -> None:
    card = {"same": 0.9, "different": 0.2, "decision": 0.4}
    assert thresholds_of(version(thresholds=card)) == Thresholds(0.9, 0.2)
    with pytest.raises(UserError, match="m:1 has no calibrated thresholds"):
        thresholds_of(version())


def test_a_cascade_decides_nothing_that_is_for_review() -> None:
    thresholds = Thresholds(0.8, 0.2)
    method = ScoringMethod(version(), thresholds, FirstStage(version("first"), 0.2, 0.8))
    assert [ref.name for ref in method.models] == ["first", "m"]
    for low, high in [(0.3, 0.8), (0.2, 0.7)]:
        with pytest.raises(UserError, match=r"pairs from 0\.2 to 0\.8 are for review"):
            ScoringMethod(version(), thresholds, FirstStage(version("first"), low, high))


def test_scores_of_one_setup_do_not_count_for_another() -> None:
    first = FirstStage(version("first"), 0.1, 0.9)
    methods = [
        ScoringMethod(version(), Thresholds(0.8, 0.2)), ScoringMethod(version(), Thresholds(0.8, 0.3)),
        ScoringMethod(version(), Thresholds(0.8, 0.2), first),
        ScoringMethod(version(), Thresholds(0.8, 0.2), FirstStage(version("other"), 0.1, 0.9)),
        ScoringMethod(version(), Thresholds(0.8, 0.2), FirstStage(version("first"), 0.1, 0.95)),
    ]  # fmt: skip
    assert len({method.options for method in methods}) == len(methods)
    assert methods[0].options == b"0.8 0.2"


def test_only_two_towers_find_candidates() -> None:
    require_vectors(version(arguments={"axes": {"interaction": "two_tower"}}))
    for arguments in ({"axes": {"interaction": "one_tower"}}, {}):
        with pytest.raises(UserError, match="m:1 has no item vectors"):
            require_vectors(version(arguments=arguments))


def test_files_below_the_allowed_folders(tmp_path: Path, set_environment: Callable[..., None]) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "allowed too"
    allowed.mkdir()
    other.mkdir()
    (other / "pairs.csv").write_text("secret")
    (allowed / "link.csv").symlink_to(other / "pairs.csv")
    set_environment(SHOPVISION_IMAGE_ROOTS=str(allowed))
    assert allowed_location("s3://shop/pairs.csv") == "s3://shop/pairs.csv"
    assert (
        allowed_location(f"{allowed}/a b.csv")
        == allowed_location(f"file://{allowed}/a%20b.csv")
        == f"{allowed}/a b.csv"
    )
    for path in (f"{other}/pairs.csv", f"{allowed}/link.csv", f"{allowed}/../allowed too/pairs.csv"):
        with pytest.raises(UserError, match="outside the allowed folders"):
            allowed_location(path)
    for address in ("file://host/pairs.csv", "https://shop/pairs.csv", "ftp://shop/pairs.csv"):
        with pytest.raises(UserError, match="give s3://bucket/key"):
            allowed_location(address)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"left_id": "b", "right_id": "a"}, ("a", "b", None, None)),
        ({"src_item_id": 10, "tgt_item_id": 9, "item_label": "1"}, ("10", "9", None, None)),
        ({"left_id": "Z", "right_id": "a"}, ("Z", "a", None, None)),  # by code point
        ({"left_id": "a"}, (None, None, "broken_row", f"Row 3 of f: {NO_ID}.")),
        ({"left_id": "a", "right_id": {}}, (None, None, "broken_row", f"Row 3 of f: {NO_ID}.")),
        ({"left_id": "a", "right_id": "b" * 201}, (None, None, "broken_row", f"Row 3 of f: {LONG_ID}.")),
        (RecordError("not JSON; correct it"), (None, None, "broken_row", "Row 3 of f: not JSON; correct it.")),
    ],
)  # fmt: skip
def test_a_row_of_a_file(record: Any, expected: tuple[str | None, ...]) -> None:
    assert requested_pairs._row("f", 3, record) == (3, *expected)


@pytest.mark.parametrize("item_id", ["a", 'b"中', "17", "row 17", "row x", "[1]", '["a","b"]', "[", "\\"])
def test_names_of_failures_are_read_as_they_were_written(item_id: str) -> None:
    assert parse_name(item_name(item_id)) == (item_id,)
    assert parse_name(pair_name((item_id, "z"))) == (item_id, "z")


def test_what_failures_are_called() -> None:
    assert [item_name("a b"), pair_name(("a", 'b"中')), row_name(17)] == ["a b", '["a","b\\"中"]', "row 17"]
    assert parse_name("row 17") == 17


def test_parameters_come_back_from_json_as_they_were() -> None:
    kind = get_kind("score_pairs")
    given = {
        "blocking": {"max_per_item": 3, "sources": ["code"]},
        "cascade": {"low": 0.1},
        "thresholds": {"same": 1, "different": 0},
    }
    params = parse_params(kind, given)
    stored = params.model_dump(mode="json", exclude_defaults=True)
    assert parse_params(kind, stored) == params
    assert stored["blocking"] == given["blocking"]
