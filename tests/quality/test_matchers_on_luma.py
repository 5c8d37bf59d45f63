"""Do pictures and words together find the same item where neither does alone? On real photos of one shop.

`make test-quality ARGS="-s tests/quality/test_matchers_on_luma.py"` prints the tables of
docs/benchmarks/matching-quality.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from shopvision.items.pair_files import read_pairs
from shopvision.matching.fitting.config import MatcherConfig
from shopvision.matching.fitting.ensemble_fit import fit_ensemble
from shopvision.matching.fitting.evaluate import evaluate_matcher
from shopvision.matching.fitting.train import train_matcher
from shopvision.matching.scoring.ensemble import load_scorer
from shopvision.training.run import TrainingRun
from tests.quality.frozen import IMAGE, TEXT, door_to
from tests.quality.luma_world import DIFFERENT, SAME, SIDES, write_pairs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = range(5)
METRICS = ("f1", "precision", "recall", "average_precision", "roc_auc")
TITLES = {"builder": "title", "compare_codes": False, "max_length": 48}
BOTH = "text + image"
ENSEMBLE = "ensemble of image and text + image"
FAMILIES: dict[str, dict[str, Any]] = {
    "text": {
        "text": TITLES,
        "model": {"family": "text_one_tower", "text": TEXT},
        "train": {"epochs": 4},
    },
    "image": {
        "model": {"family": "image_two_tower", "image": IMAGE, "head": "interaction", "projection": 512},
        "train": {"epochs": 10, "lr_head": 3e-4},
    },
    BOTH: {
        "text": TITLES,
        "model": {"family": "text_image_one_tower", "text": TEXT, "image": IMAGE},
        "train": {"epochs": 6},
    },
}


@dataclass(frozen=True)
class Found:
    """Of one model and seed, on the test pairs, at the threshold that was chosen on the validation pairs.

    Attributes:
        metrics: in the order of ``METRICS``.
        right: of each kind of pairs the share that is judged right.
    """

    metrics: list[float]
    right: dict[str, float]


def train(luma: Path, folder: Path, how: dict[str, Any], seed: int) -> Path:
    """The model version that comes of it."""
    config = MatcherConfig.model_validate(
        how
        | {
            "data": {"pairs": folder / "train.jsonl", "valid": folder / "valid.jsonl", "images": str(luma)},
            "train": how["train"] | {"seed": seed},
            "thresholds": {"cross_fit": 0},
        }
    )
    report = train_matcher(config, TrainingRun(output=folder / config.model.family))
    assert report is not None
    assert not report.unreadable
    return report.folder


def weigh(luma: Path, folder: Path, members: list[Path]) -> Path:
    """Members weighed on the validation pairs, as one model version."""
    with door_to(luma) as door:
        valid = read_pairs(folder / "valid.jsonl", images=str(luma))
        fit_ensemble(folder / "ensemble", members, valid, method="stacking", door=door)
    return folder / "ensemble"


def measured(luma: Path, folder: Path, model: Path, kinds: dict[tuple[str, str], str]) -> Found:
    with door_to(luma) as door:
        test = read_pairs(folder / "test.jsonl", images=str(luma))
        result = evaluate_matcher(load_scorer(model), test, door=door, resamples=0)
    assert not result.unreadable
    table = result.table
    right = (result.probabilities >= result.thresholds["decision"]) == (table.labels == 1)
    names = [table.items[row].item_id for row in (*table.left.tolist(), *table.right.tolist())]
    kind = np.array([kinds[pair] for pair in zip(names[: len(table)], names[len(table) :], strict=True)])
    return Found(
        [result.metrics[metric].value for metric in METRICS],
        {name: float(right[kind == name].mean()) for name in (*SAME, *DIFFERENT)},
    )


def test_text_and_image_are_ahead_of_either(
    data: Path, tmp_path: Path, set_environment: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    set_environment(SHOPVISION_HOME=str(tmp_path_factory.getbasetemp() / "luma-home"))
    luma = data / "magento_luma"
    found: dict[str, list[Found]] = {name: [] for name in (*FAMILIES, ENSEMBLE)}
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        kinds = write_pairs(luma, folder, seed)
        styles = [_styles(luma, folder / f"{side}.jsonl") for side in SIDES]
        assert sum(map(len, styles)) == len(set.union(*styles))
        models = {name: train(luma, folder, how, seed) for name, how in FAMILIES.items()}
        models[ENSEMBLE] = weigh(luma, folder, [models["image"], models[BOTH]])
        for name, model in models.items():
            found[name].append(measured(luma, folder, model, kinds))
    metrics = {name: np.array([one.metrics for one in of_seeds]) for name, of_seeds in found.items()}
    _show(found, metrics)
    for name in ("text", "image"):
        assert (metrics[BOTH] - metrics[name])[:, METRICS.index("f1")].mean() > 0
        for better, beyond in ((BOTH, METRICS[3:]), (ENSEMBLE, ("f1", *METRICS[3:]))):
            ahead = metrics[better] - metrics[name]
            for metric in beyond:
                assert _interval(ahead[:, METRICS.index(metric)])[0] > 0


def _styles(luma: Path, pairs: Path) -> set[str]:
    """Photos are called after the style, up to the colour: ``mh01-gray_main``."""
    items = read_pairs(pairs, images=str(luma)).used_items()
    return {Path(item.picture).stem.partition("-")[0] for item in items if not item.category.startswith("Gear")}


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean over seeds (Student's t)."""
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, values.mean(), scipy.stats.sem(values))
    return float(low), float(high)


def _cell(values: NDArray[np.float64]) -> str:
    low, high = _interval(values)
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def _show(found: dict[str, list[Found]], metrics: dict[str, NDArray[np.float64]]) -> None:
    """Tables in Markdown, seen with ``pytest -s``."""
    rows = [["", *METRICS], ["---"] * (1 + len(METRICS))]
    rows += [[name, *map(_cell, values.T)] for name, values in metrics.items()]
    rows += [
        [f"{better} ahead of {name}", *map(_cell, (metrics[better] - metrics[name]).T)]
        for better in (BOTH, ENSEMBLE)
        for name in ("text", "image")
    ]
    rows += [[], ["judged right", *found], ["---"] * (1 + len(found))]
    for kind in (*SAME, *DIFFERENT):
        shares = [np.mean([one.right[kind] for one in of_seeds]) for of_seeds in found.values()]
        rows.append([kind, *(f"{share:.2f}" for share in shares)])
    sys.stdout.write("\n" + "".join(f"| {' | '.join(row)} |\n" if row else "\n" for row in rows))
