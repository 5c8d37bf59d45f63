"""Measuring recall models: own data, the published protocol with its shared names and pictures, and wrong files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shopvision.errors import UserError
from shopvision.images import PictureDoor
from shopvision.selection.recall.calibrate import choose_threshold
from shopvision.selection.recall.data import RecallData, read_items, read_pairs, right_pictures, split
from shopvision.selection.recall.evaluate import evaluate_places, evaluate_recall
from shopvision.selection.recall.poi_rows import PoiRows, read_poi_rows
from shopvision.selection.recall.predict import RecallModel
from shopvision.settings import get_settings
from tests.unit.selection.recall_world import make_world
from tests.unit.selection.tiny_recall import save_tiny_recall

KS = (1, 5, 10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recall")
    save_tiny_recall(folder)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Places with three pictures each: two share a name, two a picture; one picture is broken, one place has none."""
    folder, rng = tmp_path_factory.mktemp("places"), np.random.default_rng(5)
    names = ["summer", "linen", "linen", "shoe", "dress", "women", "men"]
    rows = []
    for place, name in enumerate(names):
        for rank in (1, 2, 3):
            url = "https://img.example/same.jpg" if (place, rank) in {(3, 1), (4, 1)} else f"https://x/{place}-{rank}"
            rows.append(f"{place},{name},{url},{rank},800,600,{100 + place}")
            if place < 6:
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{place}_{rank}.png")
    shutil.copyfile(folder / "3_1.png", folder / "4_1.png")
    (folder / "5_3.png").write_bytes(b"broken")
    (folder / "thumbs.png").write_bytes(b"no picture of a place")
    (folder / "places.csv").write_text("\n".join(rows))
    return folder


def test_the_published_protocol_and_what_it_counts_as_wrong(model: Path, places: Path) -> None:
    rows = read_poi_rows(places / "places.csv")
    assert (len(rows.rows), rows.shared_names()) == (21, {"linen": ("1", "2")})
    assert rows.shared_urls() == {"https://img.example/same.jpg": ("3", "4")}
    with PictureDoor(get_settings().with_image_roots((places,))) as door:
        found = evaluate_places(model, rows, places, door, device="cpu", resamples=100)
    counts = found.counts
    assert (counts["places"], counts["pictures searched among"], counts["unreadable pictures left out"]) == (7, 17, 1)
    assert counts["places without a readable picture, which count as misses"] == 1
    assert counts["pictures of the same bytes as another"] == 1

    loaded = RecallModel(model, device="cpu")
    files = [path for path in sorted(places.glob("*_*.png")) if path.name != "5_3.png"]
    names = [name for _, name in rows.names()]
    scores = loaded.scores(names, files)
    hits, shared = [], []
    for place, row in enumerate(scores):
        best = [files[at].name[0] for at in np.argsort(-row, kind="stable")[:5]]
        hits.append(str(place) in best)
        twins = {"1": "12", "2": "12"}.get(str(place), str(place))
        same = {"3": "4", "4": "3"}.get(str(place))
        near = [files[at].name for at in np.argsort(-row, kind="stable")[:5]]
        shared.append(any(name[0] in twins or (same and name == f"{same}_1.png") for name in near))
    assert found.metrics["hit_rate_5"].value == pytest.approx(np.mean(hits))
    assert found.parts[0].metrics["hit_rate_5"].value == pytest.approx(np.mean(shared))
    assert found.parts[0].metrics["hit_rate_5"].random > found.metrics["hit_rate_5"].random


def test_texts_of_items_look_for_all_their_pictures(model: Path, tmp_path: Path) -> None:
    world = make_world(tmp_path / "world", titles=6)
    shutil.copyfile(world.images / "000-0.png", world.images / "005-1.png")
    (world.images / "001-0.png").write_bytes(b"broken")
    data = read_items(world.items, str(world.images))
    with PictureDoor(get_settings().with_image_roots((world.images,))) as door:
        found = evaluate_recall(model, data, door, device="cpu", resamples=50)
    assert found.counts["pictures searched among"] == 11
    assert found.counts["unreadable pictures left out"] == 1
    left = data.readable(set(data.pictures()) - {(world.images / "001-0.png").as_uri()})
    uris = left.pictures()
    contents = [0 if uri.endswith(("000-0.png", "005-1.png")) else 1 + row for row, uri in enumerate(uris)]
    right = right_pictures(left, uris, contents)
    assert [len(rows) for rows in right] == [3, 1, 2, 2, 2, 3]
    assert found.metrics["hit_rate_1"].random == pytest.approx(np.mean([len(rows) / 11 for rows in right]))
    assert found.summary().title.startswith("tiny-recall:")


def test_rows_of_one_text_are_one_example(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("text,picture,category\nred shoe,a.png,shoes\nred  shoe,b.png,shoes\ncap,a.png,\n,c.png,\ncoat,,\n")
    data = read_pairs(path)
    told = [(one.text, [uri.rpartition("/")[2] for uri in one.pictures], one.category) for one in data.examples]
    assert told == [("red shoe", ["a.png", "b.png"], "shoes"), ("cap", ["a.png"], "")]
    assert data.left_out == 2
    with pytest.raises(UserError, match="2 texts hang together in 1 groups by their pictures"):
        split(data, 0.5, seed=1)
    path.write_text("title,picture\nred shoe,a.png\n")
    with pytest.raises(UserError, match="has no row with text and picture: name a file that has them"):
        read_pairs(path)


def test_sides_depend_on_content_and_share_nothing(tmp_path: Path) -> None:
    data = read_items(make_world(tmp_path, titles=20).items, str(tmp_path / "images"))
    train, valid = split(data, 0.25, seed=4)
    assert (len(train.examples), len(valid.examples)) == (15, 5)
    again = split(RecallData(tuple(reversed(data.examples))), 0.25, seed=4)[1]
    assert set(again.texts()) == set(valid.texts())
    assert set(split(data, 0.25, seed=5)[1].texts()) != set(valid.texts())


def test_the_threshold_lies_where_right_and_wrong_are_as_likely() -> None:
    """Cosines 0.8 of right pairs and 0.2 of wrong ones: by symmetry one half lies at 0.5."""
    texts = np.eye(4, 5, dtype=np.float32)
    rest = np.sqrt(1 - 0.8**2 - 3 * 0.2**2)
    pictures = np.column_stack([np.full((4, 4), 0.2) + np.eye(4) * 0.6, np.full(4, rest)]).astype(np.float32)
    found = choose_threshold(texts, pictures, [[0], [1], [2], [3]], seed=1)
    assert (found.value, found.kept, found.passed) == (pytest.approx(0.5, abs=0.01), 1.0, 0.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,a,url,1,800,600", "line 2: 6 fields, not 7: poi_id, poi_name, image_url"),
        ("1,,url,1,800,600,9", "line 2: a place without id or name"),
        ("1,a,url,first,800,600,9", "line 2: rank_number is 'first': write a whole number"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "places.csv"
    path.write_text(f"1,a,url,1,800,600,9\n{line}\n")
    with pytest.raises(UserError, match=message):
        read_poi_rows(path)


def test_folders_without_pictures_of_places_are_refused(model: Path, places: Path, tmp_path: Path) -> None:
    rows = read_poi_rows(places / "places.csv")
    with PictureDoor(get_settings().with_image_roots((tmp_path,))) as door:
        with pytest.raises(UserError, match="holds no picture named <poi_id>_<anything>"):
            evaluate_places(model, rows, tmp_path, door)
        (tmp_path / "99_1.png").touch()
        with pytest.raises(UserError, match="has no picture of the 7 places: file names begin with the place's id"):
            evaluate_places(model, rows, tmp_path, door)
    with pytest.raises(UserError, match=r"gone\.csv cannot be read \(No such file or directory\)"):
        read_poi_rows(tmp_path / "gone.csv")
    assert PoiRows(()).shared_urls() == {}
