"""What every family of pair models gives by itself, and what it gives an ensemble of all.

`make test-quality ARGS="-s tests/quality/test_families.py"` prints the tables of docs/benchmarks/matching-quality.md.
With SHOPVISION_TEST_HOME finished models are kept there, and a run that was stopped goes on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from shopvision.evaluation.bootstrap import Measured
from shopvision.items.pair_files import read_pairs
from shopvision.matching.fitting.ensemble_fit import fit_ensemble
from shopvision.matching.fitting.evaluate import MatchingReport, evaluate_matcher
from shopvision.matching.fitting.member_effects import METRICS
from shopvision.matching.scoring.ensemble import load_scorer
from tests.quality.frozen import door_to
from tests.quality.luma_world import write_pairs
from tests.quality.tables import Floats, over_seeds, seeds_cell, show
from tests.quality.taught_families import BESIDE, FAMILIES, OF_OFFERS, Trained, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]

SEEDS = range(3)
ENSEMBLE = "all of them, stacked"


@dataclass(frozen=True)
class Found:
    """On the test pairs of one seed.

    Attributes:
        trained: of each model.
        metrics: of each model and of the ensemble, in the order of ``METRICS``.
        without: of the ensemble that goes without a family.
        agreement: (families, families) share of the pairs that two decide alike.
    """

    trained: dict[str, Trained]
    metrics: dict[str, list[float]]
    without: dict[str, list[float]]
    agreement: Floats


def measure(luma: Path, folder: Path, seed: int) -> Found:
    """Train what is not trained yet, weigh it, and measure."""
    write_pairs(luma, folder, seed)
    where = {"pairs": folder / "train.jsonl", "valid": folder / "valid.jsonl", "images": str(luma)}
    trained = {name: train(folder, where, name, recipe, seed) for name, recipe in (FAMILIES | BESIDE).items()}
    valid, test = (read_pairs(folder / f"{side}.jsonl", images=str(luma)) for side in ("valid", "test"))

    def measured(model: Path) -> MatchingReport:
        result = evaluate_matcher(load_scorer(model), test, door=door, resamples=0)
        assert not result.unreadable
        return result

    with door_to(luma) as door:
        together = folder / f"ensemble-{len(list(folder.glob('ensemble-*')))}"
        fit_ensemble(together, [trained[name].folder for name in FAMILIES], valid, method="stacking", door=door)
        all_of_them = measured(together)
        metrics = {ENSEMBLE: _values(all_of_them.metrics)}
        metrics |= {name: _values(measured(trained[name].folder).metrics) for name in BESIDE}
    members = all_of_them.members
    assert members is not None
    metrics |= {name: _values(of) for name, of in zip(FAMILIES, members.alone, strict=True)}
    without = {name: _values(of) for name, of in zip(FAMILIES, members.without, strict=True)}
    members.plot(folder / "members.png", f"Families on pairs of a clothing shop, seed {seed}")
    found = Found(trained, metrics, without, members.agreement)
    kept = {"metrics": metrics, "without": without, "agreement": members.agreement.tolist()}
    (folder / "found.json").write_text(json.dumps(kept), encoding="utf-8")
    return found


def test_an_ensemble_of_all_families_is_ahead_of_each(data: Path, frozen_home: Path) -> None:
    found = []
    for seed in SEEDS:
        folder = frozen_home / "families" / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        found.append(measure(data / "magento_luma", folder, seed))
    metrics = {name: np.array([one.metrics[name] for one in found]) for name in found[0].metrics}
    _show_families(found, metrics)
    _show_members(found, metrics[ENSEMBLE])
    ranking = METRICS.index("average_precision")
    for name in FAMILIES:
        ahead = (metrics[ENSEMBLE] - metrics[name])[:, ranking]
        assert ahead.mean() > 0
        assert over_seeds(metrics[name][:, METRICS.index("roc_auc")])[1] > 0.5


def test_text_families_learn_offers(data: Path, frozen_home: Path) -> None:
    """One seed each, the threshold chosen on validation pairs."""
    offers = data / "er_product_pairs"
    split = {side: offers / f"abt_buy.{side}.jsonl.gz" for side in ("train", "valid", "test")}
    folder = frozen_home / "families" / "abt_buy"
    where = {"pairs": split["train"], "valid": split["valid"]}
    trained = {name: train(folder, where, name, recipe, 27) for name, recipe in OF_OFFERS.items()}
    together = folder / f"ensemble-{len(list(folder.glob('ensemble-*')))}"
    fit_ensemble(together, [one.folder for one in trained.values()], read_pairs(split["valid"]), method="stacking")
    found = evaluate_matcher(load_scorer(together), read_pairs(split["test"]))
    assert found.members is not None
    rows = [
        [name, *_cells(of), f"{trained[name].cpu_seconds:.0f}", f"{trained[name].mib:.0f}", *_cells(without)]
        for name, of, without in zip(trained, found.members.alone, found.members.without, strict=True)
    ]
    rows.append([ENSEMBLE, *_cells(found.metrics), "", "", *[""] * len(METRICS)])
    others = [f"the others: {metric}" for metric in METRICS]
    show(["Abt-Buy", *METRICS, "CPU seconds of training", "MiB", *others], rows)
    assert all(of["roc_auc"].value > 0.7 for of in found.members.alone)


def _cells(metrics: dict[str, Measured]) -> list[str]:
    found = [metrics[metric] for metric in METRICS]
    return [f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in found]


def _values(metrics: dict[str, Measured]) -> list[float]:
    return [metrics[metric].value for metric in METRICS]


def _show_families(found: list[Found], metrics: dict[str, Floats]) -> None:
    """Cost is that of the median seed: the first reads all pictures, which the others have then."""
    rows = []
    for name, values in sorted(metrics.items(), key=lambda one: one[1][:, 1].mean()):
        cost = ["", ""]
        if name != ENSEMBLE:
            cost = [
                f"{np.median([one.trained[name].cpu_seconds for one in found]):.0f}",
                f"{found[0].trained[name].mib:.0f}",
            ]
        rows.append([name, *map(seeds_cell, values.T), *cost])
    show(["", *METRICS, "CPU seconds of training", "MiB"], rows)


def _show_members(found: list[Found], together: Floats) -> None:
    rows = []
    for name in FAMILIES:
        lost = together - np.array([one.without[name] for one in found])
        rows.append([name, *(seeds_cell(column, "+") for column in lost.T)])
    show(["what the ensemble loses without", *METRICS], rows)
    mean = np.mean([one.agreement for one in found], axis=0)
    alike = zip(FAMILIES, mean, strict=True)
    show(["decided alike", *FAMILIES], [[name, *(f"{share:.2f}" for share in row)] for name, row in alike])
