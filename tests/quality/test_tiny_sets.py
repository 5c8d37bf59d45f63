"""What comes of 30, 100 and 300 labelled pairs: the best of five seeds, which is a matcher or says that it is none.

`make test-quality ARGS="-s tests/quality/test_tiny_sets.py"` prints how far the seeds are apart.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shopvision.evaluation.pair_metrics import roc_auc
from shopvision.items.pair_files import read_pairs
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.train import train_matcher
from shopvision.matching.kinds import LEAST_ROC_AUC, PairScorerKind
from shopvision.matching.scoring.predict import PairScorer
from shopvision.training.run import TrainingRun

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def some_pairs(data: Path, output: Path, count: int) -> Path:
    """A third of them the same product, as people label who look for both."""
    with gzip.open(data / "er_product_pairs" / "abt_buy.train.jsonl.gz", "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    generator = np.random.default_rng(count)
    chosen = [
        pairs[row]
        for label, share in ((1, count // 3), (0, count - count // 3))
        for row in generator.choice([row for row, pair in enumerate(pairs) if pair["label"] == label], share, False)
    ]
    output.write_text("".join(json.dumps(pair) + "\n" for pair in chosen))
    return output


TOO_HIGH = {"lr": 2e-3, "lr_head": 2e-2, "epochs": 3, "precision": "float32"}  # rates at which seeds collapse


@pytest.mark.parametrize(("count", "rates"), [(30, {}), (100, {}), (300, {}), (30, TOO_HIGH), (60, TOO_HIGH)])
def test_the_best_of_five_seeds_is_a_matcher_or_says_that_it_is_none(
    count: int, rates: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    config = MatcherConfig.model_validate(
        {
            "data": {"pairs": some_pairs(data, tmp_path / "pairs.jsonl", count), "fractions": [0.6, 0.4, 0]},
            "text": {"max_length": 96},
            "train": {"epochs": 10, "batch_size": 16, "seeds": 5, **rates},
            "thresholds": {"cross_fit": 0},
        }
    )
    report = train_matcher(config, TrainingRun(output=tmp_path / "run"))
    assert report is not None
    test = read_pairs(data / "er_product_pairs" / "abt_buy.valid.jsonl.gz")  # no pair of it was learnt from
    reached = roc_auc(PairScorer(report.folder).score(test.items, test.left, test.right), test.labels)
    sys.stdout.write(f"\n{count} pairs: ROC-AUC {reached:.3f} on others. {' '.join(report.notes)}\n")
    doubt = PairScorerKind().doubt(report.card, "pair_scorer")
    assert len(report.seeds) == 5
    assert any(note.startswith("5 seeds reach f1") for note in report.notes)
    assert (doubt is not None) == any(note.startswith("The model collapsed") for note in report.notes)
    assert reached >= LEAST_ROC_AUC or doubt is not None
