"""Does CLIK learn? On real photos, with frozen wheel encoders, against what anyone could fit in the same run.

`make test-quality ARGS="-s tests/quality"` prints the tables of docs/benchmarks/ranking-quality.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shopvision.evaluation.bootstrap import bootstrap_interval
from shopvision.evaluation.ranking_metrics import RankedLists, reciprocal_rank
from shopvision.evaluation.retrieval_metrics import recall_at
from shopvision.selection.clik.card import LoadedClik, load_clik
from shopvision.selection.clik.config import ClikConfig
from shopvision.selection.clik.data import read_table
from shopvision.selection.clik.evaluate import RankingEvaluation, evaluate_ranker, evaluate_vectors
from shopvision.selection.clik.exhibitions import RankingData
from shopvision.selection.clik.train import train_clik
from shopvision.selection.topic import Topic
from shopvision.training.run import TrainingRun
from tests.quality.frozen import (
    IMAGE,
    TEXT,
    Vectors,
    door_to,
    fit_linear_heads,
    last_features,
    photo_features,
    text_features,
    through,
)
from tests.quality.myntra_world import CANDIDATES, make_ranking_tables, make_title_table, read_products
from tests.quality.tables import over_seeds, seeds_cell, show, text_cells

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = range(5)
METHODS: dict[str, dict[str, Any]] = {name: {"method": name} for name in ("clik", "triplet", "pairwise", "pointwise")}
ABLATIONS: dict[str, dict[str, Any]] = {
    "virtual image alone": {"query": "virtual"},
    "fused scores": {"query": "fusion"},
    "list-wise": {"ranking_loss": "listwise"},
}
CLIK, CLIK_STAGES = "CLIK", "CLIK on all stages"
PLAIN, PLAIN_STAGES, TUNED = "two linear heads", "two linear heads on all stages", "two tuned linear heads"
MRR, RECALL_AT = "mrr", (1, 5, 10)
WIDTH = 512  # of the common space for titles


@pytest.fixture
def myntra(data: Path, frozen_home: Path) -> Path:
    assert frozen_home
    return data / "myntra_fashion"


@pytest.fixture
def pictures(myntra: Path, tmp_path: Path) -> dict[str, Tensor]:
    """Product id -> frozen features of its picture, of all stages."""
    products = read_products(myntra)
    features = photo_features([myntra / product["image"] for product in products], tmp_path)
    return {product["id"]: feature for product, feature in zip(products, features, strict=True)}


def train(
    table: Path,
    images: Path,
    label: str,
    folder: Path,
    *,
    refine: dict[str, Any],
    dimension: int = 128,
    stages: bool = False,
    query: str | None = None,
    **how: Any,
) -> Path:
    config = ClikConfig.model_validate(
        {
            "data": {"table": table, "images": str(images), "label": label},
            "refine": {"fractions": (1, 0, 0), "last_step": (), "candidates": CANDIDATES} | refine,
            "model": {
                "text": TEXT, "image": IMAGE, "frozen": True, "season_language": "en", "feature_dim": dimension,
                "query": query, "image_stages": stages,
            },
            "train": {"warmup_fraction": 0.05, "select_by": "last"} | how,
        }
    )  # fmt: skip
    report = train_clik(config, TrainingRun(output=folder))
    assert report is not None
    return report.folder


@torch.inference_mode()
def towers(model: LoadedClik, topics: Tensor, pictures: Tensor) -> tuple[Vectors, Vectors, Vectors]:
    """Topic, query and picture vectors from frozen features."""
    topic_vectors = model.clik.txt_encoder.from_features(topics)
    queries = model.clik.query_vectors(topic_vectors)
    return topic_vectors.numpy(), queries.numpy(), model.clik.img_encoder.from_features(pictures).numpy()


def test_unseen_titles_find_their_pictures(myntra: Path, pictures: dict[str, Tensor], tmp_path: Path) -> None:
    seen, unseen = make_title_table(myntra, tmp_path / "titles.csv")
    assert not {p["productDisplayName"] for p in seen} & {p["productDisplayName"] for p in unseen}
    sides = {"seen": seen, "unseen": unseen}
    staged = {name: torch.stack([pictures[p["id"]] for p in of]) for name, of in sides.items()}
    last = {name: last_features(of) for name, of in staged.items()}
    topics: dict[str, Tensor] = {}
    own = np.arange(len(unseen))
    hits: dict[str, list[np.ndarray]] = {}
    refine = {"min_positive": 1, "min_distinct_labels": 1, "min_products": 1}
    for seed in SEEDS:
        for name, of, stages in ((CLIK, last, False), (CLIK_STAGES, staged, True)):
            folder = train(
                tmp_path / "titles.csv", myntra, "member", tmp_path / f"{name}-{seed}", refine=refine,
                dimension=WIDTH, stages=stages, groups=0, epochs=30, matching_batch=256, text_augmentation=0.8,
                temperature=0.1, seed=seed,
            )  # fmt: skip
            model = load_clik(folder)
            topics = topics or {
                side: text_features(model, [Topic(p["productDisplayName"]) for p in products])
                for side, products in sides.items()
            }
            topic_vectors, _, picture_vectors = towers(model, topics["unseen"], of["unseen"])
            hits.setdefault(name, []).append(recall_at(topic_vectors, picture_vectors, own, RECALL_AT))
        for name, of, width, rate, temperature in (
            (PLAIN, last, 256, 1e-3, 0.07),
            (PLAIN_STAGES, staged, 256, 1e-3, 0.07),
            (TUNED, last, 512, 2e-3, 0.1),
        ):
            heads = fit_linear_heads(
                topics["seen"], of["seen"], dimension=width, rate=rate, temperature=temperature, seed=seed
            )
            with torch.inference_mode():
                found = through(heads[0], topics["unseen"]), through(heads[1], of["unseen"])
            hits.setdefault(name, []).append(recall_at(found[0].numpy(), found[1].numpy(), own, RECALL_AT))
    mean = {name: np.mean(of_seeds, axis=0) for name, of_seeds in hits.items()}
    ahead = {
        f"{one} ahead of: {name}": mean[one] - mean[name]
        for one, name in ((CLIK, PLAIN), (CLIK, TUNED), (CLIK_STAGES, PLAIN), (CLIK_STAGES, PLAIN_STAGES))
    }
    show(["", *(f"R@{k}" for k in RECALL_AT)], [
        *([name, *text_cells(values)] for name, values in mean.items()),
        *([name, *text_cells(values, "+")] for name, values in ahead.items()),
    ])  # fmt: skip
    for name in (CLIK, CLIK_STAGES):
        assert bootstrap_interval(ahead[f"{name} ahead of: {PLAIN}"])[0][1] > 0, name  # R@5, beyond chance
        assert (ahead[f"{name} ahead of: {PLAIN}"].mean(axis=0) > 0).all(), name
    # Heads whose width, rate and temperature were chosen with these very titles come as far; CLIK's were no less.
    assert (ahead[f"{CLIK} ahead of: {TUNED}"].mean(axis=0) > -0.03).all()
    assert (mean[CLIK].mean(axis=0) > (0.33, 0.68, 0.80)).all()


def test_clik_ranks_unseen_topics_ahead_of_other_losses(
    myntra: Path, pictures: dict[str, Tensor], tmp_path: Path
) -> None:
    tables = make_ranking_tables(myntra, tmp_path)
    test = read_table(tables.test, label="ctr", images=str(tables.images))
    learnt = read_table(tables.train, label="ctr", images=str(tables.images))
    assert not _names(test) & _names(learnt)
    assert not set(test.products.ids) & set(learnt.products.ids)
    features = last_features(
        torch.stack([pictures[test.products.ids[int(product)]] for product in test.used_products()])
    )
    topics = torch.empty(0)
    refine = {"min_positive": 5, "min_products": 20}
    reports: dict[str, list[RankingEvaluation]] = {}
    for method, how in (METHODS | ABLATIONS).items():
        for seed in SEEDS:
            folder = train(
                tables.train, tables.images, "ctr", tmp_path / f"{method}-{seed}", refine=refine,
                epochs=3, groups=4, group_size=20, matching_batch=128, text_augmentation=0.8, seed=seed, **how,
            )  # fmt: skip
            model = load_clik(folder)
            if not len(topics):
                topics = text_features(model, [exhibition.topic for exhibition in test.exhibitions])
            vectors = towers(model, topics, features)
            reports.setdefault(method, []).append(
                evaluate_vectors(
                    test, topic_vectors=vectors[0], query_vectors=vectors[1], image_vectors=vectors[2], seed=seed
                )
            )
    _show_rankings(reports, _best_possible(test, read_table(tables.test, label="fit", images=str(tables.images))))
    values = {method: _values(of_seeds, MRR) for method, of_seeds in reports.items()}
    random = reports["clik"][0].metrics[MRR].random
    assert values["clik"].mean() >= 3 * random
    for method in list(METHODS)[1:]:
        low, _ = over_seeds(values["clik"] - values[method])
        assert low > 0, method
    # The whole way, pictures and all, gives what features gave: half precision moves neighbours.
    with door_to(tables.images) as door:
        whole = evaluate_ranker(tmp_path / "clik-0" / "model", test, door, device="cpu")
    assert whole.metrics[MRR].value == pytest.approx(reports["clik"][0].metrics[MRR].value, abs=0.02)


def _names(data: RankingData) -> set[str]:
    return {exhibition.topic.name for exhibition in data.exhibitions}


def _values(reports: list[RankingEvaluation], metric: str) -> np.ndarray:
    return np.array([report.metrics[metric].value for report in reports])


def _best_possible(test: RankingData, fits: RankingData) -> float:
    """MRR of who knows the rule but neither taste nor luck."""
    scores = []
    for exhibition, same in zip(test.exhibitions, fits.exhibitions, strict=True):
        known = dict(zip(same.products.tolist(), same.labels.tolist(), strict=True))
        scores.append([known[product] for product in exhibition.products.tolist()])
    lists = RankedLists.from_lists(scores, [exhibition.labels for exhibition in test.exhibitions])
    return float(reciprocal_rank(lists).mean())


def _show_rankings(reports: dict[str, list[RankingEvaluation]], best_possible: float) -> None:
    rows = [["mrr of who knows the rule", "", f"{best_possible:.3f}"]]
    rows += [
        [metric, f"{first.random:.3f}", *(seeds_cell(_values(of, metric)) for of in reports.values())]
        for metric, first in reports["clik"][0].metrics.items()
    ]
    rows += [
        [f"mrr ahead of {method}", "", seeds_cell(_values(reports["clik"], MRR) - _values(of_method, MRR), "+")]
        for method, of_method in reports.items()
        if method != "clik"
    ]
    show(["", "random", *reports], rows)
