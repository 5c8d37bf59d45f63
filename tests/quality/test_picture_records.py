"""The real file of 1,000 picture pairs, which has no pixels: its parsers, its labels, and what texts alone can say."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from shopvision.evaluation.pair_metrics import roc_auc
from shopvision.selection.click.collecting import REPEATED
from shopvision.selection.click.data import split_by_item
from shopvision.selection.click.entities import read_entities
from shopvision.selection.click.evaluate import constant_answers
from shopvision.selection.click.records import PairRecord, read_records, write_records
from shopvision.selection.click.sources import ClickSource, read_clicks

pytestmark = pytest.mark.slow

FOLDS = 5


@pytest.fixture
def records(data: Path) -> Path:
    return data / "chinese_items" / "fliggy_ctr_pairs_val_1000.csv"


def test_the_published_file_is_read_and_written_byte_for_byte(records: Path, data: Path, tmp_path: Path) -> None:
    found = [record for _, record in read_records(records)]
    assert all(isinstance(record, PairRecord) for record in found)
    write_records(tmp_path / "again.csv", [record for record in found if isinstance(record, PairRecord)])
    assert (tmp_path / "again.csv").read_bytes() == records.read_bytes()

    clicks = read_clicks(ClickSource(records, "records"))
    assert not clicks.failures
    # 7 pairs are repeated, one of 1,000 mirrored.
    assert (len(clicks.comparisons), clicks.left_out) == (992, {REPEATED: 8})
    rates = [record.rates for record in found if isinstance(record, PairRecord)]
    assert sum(first > second for first, second in rates) == 451
    assert len(clicks.items) == 952
    assert len(clicks.pictures) == 1949
    assert np.isnan(clicks.comparisons.impressions).all()

    table = read_entities(data / "chinese_items" / "poi_picture_counts.json")
    item = next(item for item in clicks.items if [key.name for key in item.entities][:2] == ["漠河", "北极村"])
    weights = [one.weight for one in table.ordered(item.entities, "counts")]
    assert weights == sorted(weights, reverse=True)
    assert len({key.name for one in clicks.items for key in one.entities if key in table.facts}) == 703


def test_texts_alone_say_nothing_of_which_picture_wins(records: Path) -> None:
    """A text belongs to both pictures: all that is left is which one stands first, and what addresses look like."""
    clicks = read_clicks(ClickSource(records, "records"))
    constant = constant_answers(clicks)
    assert constant["always the second"]["pair_accuracy"].value == pytest.approx(0.5544, abs=1e-4)
    parts = split_by_item(clicks, {str(fold): 1 / FOLDS for fold in range(FOLDS)}, seed=1)

    def inputs(part: str) -> np.ndarray:
        rows = []
        for item, first, second in zip(
            parts[part].comparisons.items, parts[part].comparisons.first, parts[part].comparisons.second, strict=True
        ):
            words = np.zeros(512)
            for pair in zip(clicks.items[item].title, clicks.items[item].title[1:], strict=False):
                words[hash_of("".join(pair))] += 1
            sides = [clicks.pictures[row].rpartition(".")[2] == "png" for row in (first, second)]
            rows.append([*(words / max(1.0, np.linalg.norm(words))), float(sides[0]) - float(sides[1])])
        return np.array(rows)

    right, scores, truth = [], [], []
    for fold in parts:
        others = [part for part in parts if part != fold]
        model = LogisticRegression(max_iter=500, C=0.3)
        model.fit(
            np.concatenate([inputs(part) for part in others]),
            np.concatenate([parts[part].comparisons.first_wins for part in others]),
        )
        probabilities = model.predict_proba(inputs(fold))[:, 1]
        wins = parts[fold].comparisons.first_wins
        right.append((probabilities > 0.5) == wins)
        scores.append(probabilities)
        truth.append(wins)
    accuracy = float(np.concatenate(right).mean())
    auc = roc_auc(np.concatenate(scores), np.concatenate(truth))
    sys.stdout.write(f"\n| texts alone, {FOLDS} folds | accuracy {accuracy:.3f} | AUC {auc:.3f} |\n")
    # Three standard errors of 992 answers around a half and around the constant one.
    assert 0.45 < accuracy < 0.6
    assert 0.45 < auc < 0.57


def hash_of(text: str) -> int:
    """The same in every process."""
    return int.from_bytes(text.encode()[:8], "little") % 512
