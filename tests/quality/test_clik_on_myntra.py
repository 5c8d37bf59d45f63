"""Does CLIK learn? On real photos, with frozen wheel encoders, against what anyone could fit in the same run.

`make test-quality ARGS="-s tests/quality"` prints the tables of docs/benchmarks/ranking-quality.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
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
    picture_features,
    sentence_features,
    text_features,
    through,
)
from tests.quality.myntra_world import CANDIDATES, make_ranking_tables, make_title_table, read_products

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = range(5)
METHODS: dict[str, dict[str, Any]] = {name: {"method": name} for name in ("clik", "triplet", "pairwise", "pointwise")}
ABLATIONS: dict[str, dict[str, Any]] = {
    "virtual image alone": {"query": "virtual"},
    "fused scores": {"query": "fusion"},
    "list-wise": {"ranking_loss": "listwise"},
}
PLAIN, TUNED = "two linear heads", "two tuned linear heads"
MRR, RECALL_AT = "mrr", (1, 5, 10)
WIDTH = 512  # of the common space for titles


@pytest.fixture
def myntra(data: Path, set_environment: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos; features of frozen encoders are shared by the tests of one run."""
    set_environment(SHOPVISION_HOME=str(tmp_path_factory.getbasetemp() / "myntra-home"))
    return data / "myntra_fashion"


@pytest.fixture(scope="module")
def pictures(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Product id -> frozen feature of its picture, made without any part of the trainer."""
    source = data / "myntra_fashion"
    products = read_products(source)
    features = picture_features([source / product["image"] for product in products], tmp_path_factory.mktemp("lite0"))
    return {product["id"]: feature for product, feature in zip(products, features, strict=True)}


def train(
    table: Path,
    images: Path,
    label: str,
    folder: Path,
    *,
    refine: dict[str, Any],
    dimension: int = 128,
    query: str | None = None,
    **how: Any,
) -> Path:
    config = ClikConfig.model_validate(
        {
            "data": {"table": table, "images": str(images), "label": label},
            "refine": {"fractions": (1, 0, 0), "last_step": (), "candidates": CANDIDATES} | refine,
            "model": {
                "text": TEXT, "image": IMAGE, "frozen": True, "season_language": "en", "feature_dim": dimension,
                "query": query,
            },
            "train": {"warmup_fraction": 0.05, "select_by": "last"} | how,
        }
    )  # fmt: skip
    report = train_clik(config, TrainingRun(output=folder))
    assert report is not None
    return report.folder


@torch.inference_mode()
def towers(model: LoadedClik, topics: list[Topic], features: Tensor) -> tuple[Vectors, Vectors, Vectors]:
    """Topic, query and picture vectors from frozen features."""
    topic_vectors = model.clik.txt_encoder.from_features(text_features(model, topics))
    queries = model.clik.query_vectors(topic_vectors)
    return topic_vectors.numpy(), queries.numpy(), model.clik.img_encoder.from_features(features).numpy()


def test_unseen_titles_find_their_pictures(myntra: Path, pictures: dict[str, Tensor], tmp_path: Path) -> None:
    seen, unseen = make_title_table(myntra, tmp_path / "titles.csv")
    assert not {p["productDisplayName"] for p in seen} & {p["productDisplayName"] for p in unseen}
    features = {name: torch.stack([pictures[p["id"]] for p in of]) for name, of in (("seen", seen), ("unseen", unseen))}
    topics = {
        name: [Topic(product["productDisplayName"]) for product in of]
        for name, of in (("seen", seen), ("unseen", unseen))
    }
    own = np.arange(len(unseen))
    hits: dict[str, list[np.ndarray]] = {}
    refine = {"min_positive": 1, "min_distinct_labels": 1, "min_products": 1}
    for seed in SEEDS:
        folder = train(
            tmp_path / "titles.csv", myntra, "member", tmp_path / f"clik-{seed}", refine=refine, dimension=WIDTH,
            groups=0, epochs=30, matching_batch=256, text_augmentation=0.8, temperature=0.1, seed=seed,
        )  # fmt: skip
        model = load_clik(folder)
        topic_vectors, _, picture_vectors = towers(model, topics["unseen"], features["unseen"])
        hits.setdefault("CLIK", []).append(recall_at(topic_vectors, picture_vectors, own, RECALL_AT))
        same = {name: text_features(model, of) for name, of in topics.items()}
        plain = {name: sentence_features(model, [topic.name for topic in of]) for name, of in topics.items()}
        for name, texts, width, rate, temperature in (
            (PLAIN, same, 256, 1e-3, 0.07),
            (TUNED, same, 512, 2e-3, 0.1),
            (f"{TUNED}, on plain sentences", plain, 512, 2e-3, 0.1),
        ):
            heads = fit_linear_heads(
                texts["seen"], features["seen"], dimension=width, rate=rate, temperature=temperature, seed=seed
            )
            with torch.inference_mode():
                found = through(heads[0], texts["unseen"]), through(heads[1], features["unseen"])
            hits.setdefault(name, []).append(recall_at(found[0].numpy(), found[1].numpy(), own, RECALL_AT))
    mean = {name: np.mean(of_seeds, axis=0) for name, of_seeds in hits.items()}
    rows = [[name, *_cells(values, *bootstrap_interval(values))] for name, values in mean.items()]
    rows += [
        [f"CLIK ahead of {name}", *_cells(mean["CLIK"] - mean[name], *bootstrap_interval(mean["CLIK"] - mean[name]))]
        for name in list(hits)[1:]
    ]
    _show(["", *(f"R@{k}" for k in RECALL_AT)], rows)
    ahead = (mean["CLIK"] - mean[PLAIN]).mean(axis=0)
    assert (ahead > 0).all()
    assert bootstrap_interval(mean["CLIK"] - mean[PLAIN])[0][1] > 0  # R@5, beyond chance
    # Heads whose width, rate and temperature were chosen with these very titles come as far; CLIK's were no less.
    assert (mean["CLIK"].mean(axis=0) > mean[TUNED].mean(axis=0) - 0.03).all()
    assert (mean["CLIK"].mean(axis=0) > (0.33, 0.68, 0.80)).all()


def test_clik_ranks_unseen_topics_ahead_of_other_losses(
    myntra: Path, pictures: dict[str, Tensor], tmp_path: Path
) -> None:
    tables = make_ranking_tables(myntra, tmp_path)
    test = read_table(tables.test, label="ctr", images=str(tables.images))
    learnt = read_table(tables.train, label="ctr", images=str(tables.images))
    assert not _names(test) & _names(learnt)
    assert not set(test.products.ids) & set(learnt.products.ids)
    features = torch.stack([pictures[test.products.ids[int(product)]] for product in test.used_products()])
    topics = [exhibition.topic for exhibition in test.exhibitions]
    refine = {"min_positive": 5, "min_products": 20}
    reports: dict[str, list[RankingEvaluation]] = {}
    for method, how in (METHODS | ABLATIONS).items():
        for seed in SEEDS:
            folder = train(
                tables.train, tables.images, "ctr", tmp_path / f"{method}-{seed}", refine=refine,
                epochs=3, groups=4, group_size=20, matching_batch=128, text_augmentation=0.8, seed=seed, **how,
            )  # fmt: skip
            vectors = towers(load_clik(folder), topics, features)
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
        low, _ = _interval(values["clik"] - values[method])
        assert low > 0, method
    # The whole way, pictures and all, gives what features gave: half precision moves neighbours.
    with door_to(tables.images) as door:
        whole = evaluate_ranker(tmp_path / "clik-0" / "model", test, door, device="cpu")
    assert whole.metrics[MRR].value == pytest.approx(reports["clik"][0].metrics[MRR].value, abs=0.02)


def _names(data: RankingData) -> set[str]:
    return {exhibition.topic.name for exhibition in data.exhibitions}


def _values(reports: list[RankingEvaluation], metric: str) -> np.ndarray:
    return np.array([report.metrics[metric].value for report in reports])


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean over seeds (Student's t)."""
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, values.mean(), scipy.stats.sem(values))
    return float(low), float(high)


def _cells(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[str]:
    return [f"{v:.3f} ({a:.3f} to {b:.3f})" for v, a, b in zip(values.mean(axis=0), low, high, strict=True)]


def _show(header: list[str], rows: list[list[str]]) -> None:
    """A table in Markdown, seen with ``pytest -s``."""
    lines = [header, ["---"] * len(header), *rows]
    sys.stdout.write("\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))


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
    for metric, first in reports["clik"][0].metrics.items():
        cells = []
        for of_seeds in reports.values():
            values = _values(of_seeds, metric)
            cells.append(f"{values.mean():.3f} ({' to '.join(f'{bound:.3f}' for bound in _interval(values))})")
        rows.append([metric, f"{first.random:.3f}", *cells])
    for method in list(reports)[1:]:
        ahead = _values(reports["clik"], MRR) - _values(reports[method], MRR)
        bounds = " to ".join(f"{bound:.3f}" for bound in _interval(ahead))
        rows.append([f"mrr ahead of {method}", "", f"{ahead.mean():.3f} ({bounds})"])
    _show(["", "random", *reports], rows)
