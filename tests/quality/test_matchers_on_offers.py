"""Do matchers learn real offers? Against what the same encoder's cosine says, and what a rule on model codes says.

`make test-quality ARGS="-s tests/quality/test_matchers_on_offers.py"` prints the tables of
docs/benchmarks/matching-quality.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shopvision.evaluation.bootstrap import Measured
from shopvision.evaluation.pair_measurement import measure_pairs
from shopvision.evaluation.pair_metrics import best_f1_threshold, confusion, roc_auc
from shopvision.items.code_agreement import SAME, SIMILAR, agreement, item_codes
from shopvision.items.pair_files import read_pairs
from shopvision.items.pair_table import PairTable
from shopvision.matching.families.item_encoder import make_item_encoder
from shopvision.matching.fitting.cascade_effect import evaluate_cascade
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.train import MatcherReport, train_matcher
from shopvision.matching.scoring.predict import PairScorer
from shopvision.training.run import TrainingRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SPLITS = {
    "abt_buy": ("train", "valid", {"epochs": 3}, 96, 2),
    "wdc_lspc_shoes": ("train_small", "valid_small", {"epochs": 8}, 80, 0),
    "wdc_lspc_computers": ("train_small", "valid_small", {"epochs": 8}, 80, 0),
}


Train = Callable[[str], tuple[MatcherReport, float]]


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """What was trained on a set, once, and in how many seconds."""
    return lru_cache(lambda name: train(data, name, tmp_path_factory.mktemp(name)))


def train(data: Path, offers: str, output: Path, **model: str) -> tuple[MatcherReport, float]:
    train_split, valid_split, how, length, folds = SPLITS[offers]
    folder = data / "er_product_pairs"
    config = MatcherConfig.model_validate(
        {
            "data": {
                "pairs": folder / f"{offers}.{train_split}.jsonl.gz",
                "valid": folder / f"{offers}.{valid_split}.jsonl.gz",
            },
            "text": {"max_length": length},
            "model": model,
            "train": how,
            "thresholds": {"cross_fit": 0 if model else folds},
        }
    )
    started = time.monotonic()
    report = train_matcher(config, TrainingRun(output=output))
    assert report is not None
    return report, time.monotonic() - started


@pytest.mark.parametrize("name", list(SPLITS))
def test_a_matcher_learns_offers(name: str, data: Path, trained: Train, tmp_path: Path) -> None:
    test = read_pairs(data / "er_product_pairs" / f"{name}.test.jsonl.gz")
    report, seconds = trained(name)
    scorer = PairScorer(report.folder)
    probabilities = scorer.score(test.items, test.left, test.right)
    decision = report.card.thresholds["decision"]
    measured = measure_pairs(probabilities, test.labels, decision)
    make_item_encoder("wheel:minilm", tmp_path / "zero")
    cosine = PairScorer(tmp_path / "zero").score(test.items, test.left, test.right)
    rule = confusion(by_codes(test), test.labels, 0.5)
    zero_shot = best_f1_threshold(cosine, test.labels)[1], roc_auc(cosine, test.labels)
    rows: list[list[Any]] = [
        ["matcher", *(cell(measured[metric]) for metric in ("precision", "recall", "f1", "roc_auc"))],
        ["cosine of the same encoder, threshold chosen on test", "", "", *(f"{value:.3f}" for value in zero_shot)],
        ["rule: a model code is shared", *(f"{value:.3f}" for value in (rule.precision, rule.recall, rule.f1)), ""],
    ]
    verdicts = scorer.verdicts(probabilities)
    for verdict in ("same", "review", "different"):
        chosen = verdicts == verdict
        positive = test.labels[chosen].mean() if chosen.any() else float("nan")
        rows.append([f"verdict {verdict}", f"{chosen.mean():.1%} of pairs", f"{positive:.3f} are the same", "", ""])
    assert report.card.promises is not None
    rows += [[promise, told, "", "", ""] for promise, told in report.card.promises.rows()]
    show(
        [f"{name}, {len(test):,} test pairs, trained in {seconds:.0f} s", "precision", "recall", "F1", "ROC-AUC"], rows
    )
    assert measured["f1"].value > zero_shot[0] + 0.1
    assert measured["roc_auc"].value > zero_shot[1] + 0.1
    if name == "abt_buy":
        assert measured["f1"].value >= 0.85
        assert seconds < 45 * 60


@pytest.mark.parametrize("name", list(SPLITS))
def test_statements_alone_match_offers(name: str, data: Path, tmp_path: Path) -> None:
    """The family ``agreement``, which has no encoder, with its defaults."""
    folder, (train_split, valid_split, *_) = data / "er_product_pairs", SPLITS[name]
    pairs, valid = (folder / f"{name}.{split}.jsonl.gz" for split in (train_split, valid_split))
    config = MatcherConfig.model_validate(
        {
            "data": {"pairs": pairs, "valid": valid},
            "model": {"family": "agreement"},
            "thresholds": {"cross_fit": 0},
        }
    )
    started = time.monotonic()
    report = train_matcher(config, TrainingRun(output=tmp_path))
    seconds = time.monotonic() - started
    assert report is not None
    test = read_pairs(folder / f"{name}.test.jsonl.gz")
    probabilities = PairScorer(report.folder).score(test.items, test.left, test.right)
    measured = measure_pairs(probabilities, test.labels, report.card.thresholds["decision"])
    cells = [cell(measured[metric]) for metric in ("precision", "recall", "f1", "roc_auc")]
    show([f"{name}, trained in {seconds:.0f} s", "precision", "recall", "F1", "ROC-AUC"], [["agreement", *cells]])
    assert measured["f1"].value > confusion(by_codes(test), test.labels, 0.5).f1
    assert measured["f1"].value > 0.8


def test_a_cascade_saves_work_and_costs_little(data: Path, trained: Train, tmp_path: Path) -> None:
    valid, test = (read_pairs(data / "er_product_pairs" / f"abt_buy.{split}.jsonl.gz") for split in ("valid", "test"))
    second = PairScorer(trained("abt_buy")[0].folder)
    tower, seconds = train(data, "abt_buy", tmp_path, family="text_two_tower", name="tower")
    rows = []
    for loss in (0.0, 0.002, 0.01):
        report = evaluate_cascade(PairScorer(tower.folder), second, valid, test, max_f1_loss=loss)
        found = report.limits.low, report.limits.high, report.limits.passed_on, report.passed_on
        saved = report.seconds_alone / report.seconds_together
        cells = [cell(report.together[metric]) for metric in ("precision", "recall", "f1")]
        rows.append([f"{loss}", *(f"{value:.3f}" for value in found), *cells, f"{saved:.1f}"])
        assert report.passed_on < 0.7
        assert report.together["f1"].value > report.alone["f1"].value - 0.02
        assert saved > 1
    alone = [cell(report.alone[metric]) for metric in ("precision", "recall", "f1")]
    rows.append(["the second alone", "", "", "", "1.000", *alone, "1.0"])
    show(
        [f"F1 loss allowed on validation; the first trained in {seconds:.0f} s", "low", "high", "passed on (valid)",
         "passed on (test)", "precision", "recall", "F1", "times faster"],
        rows,
    )  # fmt: skip


def by_codes(table: PairTable) -> np.ndarray:
    """(n,) 1.0 where the items' model codes are the same or alike."""
    codes = [item_codes(item) for item in table.items]
    said = [agreement(codes[a], codes[b]) for a, b in zip(table.left.tolist(), table.right.tolist(), strict=True)]
    return np.isin(said, (SAME, SIMILAR)).astype(np.float64)


def cell(measured: Measured) -> str:
    return f"{measured.value:.3f} ({measured.low:.3f} to {measured.high:.3f})"


def show(header: list[str], rows: list[list[Any]]) -> None:
    """A table in Markdown, seen with ``pytest -s``."""
    lines = [header, ["---"] * len(header), *rows]
    sys.stdout.write("\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
