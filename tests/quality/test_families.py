"""What every family of pair models gives by itself, and what it gives an ensemble of all.

`make test-quality ARGS="-s tests/quality/test_families.py"` prints the tables of docs/benchmarks/matching-quality.md.
With SHOPVISION_TEST_HOME finished models are kept there, and a run that was stopped goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from shopvision.evaluation.bootstrap import Measured
from shopvision.images import PictureDoor
from shopvision.items.pair_files import read_pairs
from shopvision.items.pair_table import PairTable
from shopvision.matching.fitting.ensemble_fit import fit_ensemble
from shopvision.matching.fitting.evaluate import evaluate_matcher
from shopvision.matching.fitting.member_effects import METRICS
from shopvision.matching.scoring.ensemble import load_scorer
from tests.quality.frozen import door_to
from tests.quality.luma_world import write_pairs
from tests.quality.tables import show
from tests.quality.taught_families import BESIDE, BESIDE_OFFERS, FAMILIES, OF_OFFERS, Trained, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]

ENSEMBLE = "all families, stacked"
SEED = 0

Recipes = Mapping[str, dict[str, Any]]
Metrics = Mapping[str, Measured]


def test_an_ensemble_of_all_families_is_ahead_of_each_on_photos(data: Path, frozen_home: Path) -> None:
    luma, folder = data / "magento_luma", frozen_home / "families" / "luma"
    folder.mkdir(parents=True, exist_ok=True)
    write_pairs(luma, folder, SEED)
    where = {"pairs": folder / "train.jsonl", "valid": folder / "valid.jsonl", "images": str(luma)}
    with door_to(luma) as door:
        valid, test = (read_pairs(folder / f"{side}.jsonl", images=str(luma)) for side in ("valid", "test"))
        found = measure("clothing shop", folder, where, (FAMILIES, BESIDE), valid, test, door)
    for name in FAMILIES:
        assert found[ENSEMBLE]["average_precision"].value > found[name]["average_precision"].value
        assert found[name]["roc_auc"].low > 0.5


def test_families_of_texts_learn_offers(data: Path, frozen_home: Path) -> None:
    offers, folder = data / "er_product_pairs", frozen_home / "families" / "abt_buy"
    folder.mkdir(parents=True, exist_ok=True)
    split = {side: offers / f"abt_buy.{side}.jsonl.gz" for side in ("train", "valid", "test")}
    where = {"pairs": split["train"], "valid": split["valid"]}
    pairs = read_pairs(split["valid"]), read_pairs(split["test"])
    found = measure("Abt-Buy", folder, where, (OF_OFFERS, BESIDE_OFFERS), *pairs)
    for name in OF_OFFERS:
        assert found[name]["roc_auc"].value > 0.7


def measure(
    data_name: str,
    folder: Path,
    where: Mapping[str, Any],
    recipes: tuple[Recipes, Recipes],
    valid: PairTable,
    test: PairTable,
    door: PictureDoor | None = None,
) -> dict[str, Metrics]:
    """Train what is not trained yet, weigh the members of the first recipes, and measure all on the test pairs."""
    members, beside = recipes
    trained = {name: train(folder, dict(where), name, recipe, SEED) for name, recipe in {**members, **beside}.items()}
    together = folder / "ensemble"
    shutil.rmtree(together, ignore_errors=True)
    fit_ensemble(together, [trained[name].folder for name in members], valid, method="stacking", door=door)
    of_all = evaluate_matcher(load_scorer(together), test, door=door)
    effects = of_all.members
    assert effects is not None
    effects.plot(folder / "members.png", f"Families on pairs of {data_name}")
    found: dict[str, Metrics] = {ENSEMBLE: of_all.metrics, **dict(zip(members, effects.alone, strict=True))}
    for name in beside:
        found[name] = evaluate_matcher(load_scorer(trained[name].folder), test, door=door).metrics
    _show_models(data_name, found, trained)
    rows = [[name, *_cells(without)] for name, without in zip(members, effects.without, strict=True)]
    show([f"{data_name}: the others without", *METRICS], rows)
    alike = zip(members, effects.agreement, strict=True)
    show(["decided alike", *members], [[name, *(f"{share:.2f}" for share in row)] for name, row in alike])
    return found


def _show_models(data_name: str, found: Mapping[str, Metrics], trained: Mapping[str, Trained]) -> None:
    rows = []
    for name, metrics in sorted(found.items(), key=lambda one: one[1]["average_precision"].value):
        of = trained.get(name)
        rows.append([name, *_cells(metrics), *(["", ""] if of is None else [f"{of.cpu_seconds:.0f}", f"{of.mib:.0f}"])])
    show([data_name, *METRICS, "CPU seconds of training", "MiB"], rows)


def _cells(metrics: Metrics) -> list[str]:
    measured = [metrics[metric] for metric in METRICS]
    return [f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in measured]
